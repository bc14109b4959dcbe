package mta

import (
	"context"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// Settings are what a reload replaces, as one piece. They are immutable once given.
type Settings struct {
	Rules   *mxrules.Rules
	Bounces *bounce.Table
	Keys    *dkim.Keyring
	Pools   []dispatch.Pool
	// HelloNames are the EHLO names by source.
	HelloNames map[string]string
	// BounceDomain is the domain of the return path and the Message-ID for a From domain.
	BounceDomain func(fromDomain string) string
	// By is who ordered the reload, for its event; empty: nobody.
	By string
}

// Apply replaces the settings at once: new sessions, messages and replies see the
// new ones, sessions stay, removed sources drain.
func (r *Relay) Apply(ctx context.Context, s Settings) error {
	return r.call(ctx, func(now time.Time) {
		r.settings.Store(&s)
		r.core.SetPools(now, s.Pools)
		r.core.SetRules(now, s.Rules)
		r.writer.event(RelayEvent{Kind: RuleChangedEvent, Time: now, Text: "configuration reloaded", By: s.By})
	})
}
