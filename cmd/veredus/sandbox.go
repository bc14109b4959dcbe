package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/integration/simulation"
	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/config"
)

// The key that a sandbox without one makes for itself. Mail from every domain below
// sandboxDomain is signed with it.
const (
	sandboxDomain   = "veredus.example"
	sandboxSelector = "sandbox"
)

// sandbox is the built-in receivers of a node. All that passes between the two is
// addresses, DNS records and limits as plain data.
type sandbox struct {
	data  world.World
	world *serve.World
}

// startSandbox serves the receivers until ctx ends or close is called.
func startSandbox(ctx context.Context, data world.World, control string, log *slog.Logger) (*sandbox, error) {
	w, err := serve.Start(ctx, serve.Config{World: data, ControlListen: control, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("built-in receivers: %w", err)
	}
	return &sandbox{data: data, world: w}, nil
}

func (s *sandbox) close() { s.world.Close() }

// setReturnTo makes the receivers send bounces, complaints and replies to addr, the
// node's inbound listener; until then such mail waits with them.
func (s *sandbox) setReturnTo(addr string) error {
	if err := s.world.SetReturnTo(addr); err != nil {
		return fmt.Errorf("built-in receivers: %w", err)
	}
	return nil
}

// fit points a configuration to the receivers, publishes its keys in their DNS and
// tells them the limits that its MX rules state.
func (s *sandbox) fit(cfg *config.Config) error {
	cfg.DNS.Server, cfg.Relay.SMTPPort = s.world.DNSAddr(), s.world.SMTPPort()
	takeReturns(cfg)
	for _, d := range cfg.DKIM.Domains {
		key, err := dkim.LoadKeyFile(d.Domain, d.Selector, d.KeyFile)
		if err != nil {
			return err
		}
		if err := s.world.AddTXT(dkim.RecordName(key), dkim.Record(key)); err != nil {
			return err
		}
	}
	rules := mxrules.Builtin()
	if cfg.MXRules != "" {
		var err error
		if rules, err = loadRules(cfg.MXRules); err != nil {
			return err
		}
	}
	return s.world.SetLimits(statedLimits(rules, &s.data))
}

// statedLimits is what rules say of each receiver, as data for its ledger. A
// receiver's domains share its infrastructure, so the first one stands for all.
func statedLimits(rules *mxrules.Rules, w *world.World) map[string]world.Limits {
	stated := map[string]world.Limits{}
	for i := range w.Receivers {
		r := &w.Receivers[i]
		if !r.HasHosts() || len(r.Domains) == 0 {
			continue
		}
		domain := r.Domains[0].Name
		stated[r.Name] = simulation.Stated(rules.Match(mxrules.Query{Host: bestHost(r, domain), Domain: domain}).Limits)
	}
	return stated
}

// bestHost is the mail exchanger that a rule's mask is compared with.
func bestHost(r *world.Receiver, domain string) string {
	if r.DNS == world.DNSImplicit {
		return domain // RFC 5321 section 5.1: the domain is its own exchanger
	}
	best := r.Hosts[0]
	for _, h := range r.Hosts[1:] {
		if h.Preference < best.Preference {
			best = h
		}
	}
	return best.NameFor(domain)
}

// ownKey gives a sandbox without a key one of its own, kept in data_dir.
func ownKey(cfg *config.Config) error {
	if len(cfg.DKIM.Domains) > 0 {
		return nil
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	key, err := sandboxKey(cfg.DataDir, sandboxDomain, sandboxSelector)
	cfg.DKIM.Domains = []config.Domain{key}
	return err
}
