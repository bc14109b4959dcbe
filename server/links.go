package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/unsubscribe"
	"github.com/veredus/veredus/server/address"
)

// links makes hosted unsubscribe links, with the current one of the keys that the store has.
type links struct {
	store interface {
		UnsubscribeKeys(ctx context.Context) ([]address.LinkKey, error)
	}
	log          *slog.Logger
	base         string // what links begin with; empty: there are none
	bounceDomain func(from string) string

	loading sync.Mutex // so that the keys in force are those read last
	keys    atomic.Pointer[unsubscribe.Keys]
}

// load reads the keys.
func (l *links) load(ctx context.Context) error {
	l.loading.Lock()
	defer l.loading.Unlock()
	list, err := l.store.UnsubscribeKeys(ctx)
	if err != nil {
		return err
	}
	return l.use(list)
}

func (l *links) use(list []address.LinkKey) error {
	keys := make([]unsubscribe.Key, len(list))
	for i, k := range list {
		keys[i] = unsubscribe.Key{ID: k.ID, Secret: k.Secret}
	}
	made, err := unsubscribe.New(keys...)
	if err != nil {
		return err
	}
	l.keys.Store(made)
	return nil
}

// rotated takes that there is a new key, which links use from now on.
func (l *links) rotated([]address.LinkKey) {
	if err := l.load(context.Background()); err != nil { // keys of a repeated request are those of then
		l.log.Error("the new key of unsubscribe links is not in use before the next start", "error", err)
	}
}

// of are the links of one message.
func (l *links) of(a mta.Addressee) (compose.Links, error) {
	if l.base == "" {
		return compose.Links{}, fmt.Errorf("hosted unsubscribe links need public.listen and public.url in the configuration")
	}
	claim := unsubscribe.Claim{
		Address: a.Recipient, Tenant: a.Tenant, List: a.List, Delivery: a.Delivery,
		Message: returnpath.Ref{Handover: a.ID.Handover, Domain: a.ID.Domain, Lane: a.ID.Lane, Order: a.ID.Order, Delivery: a.DeliveryNo},
	}
	keys := l.keys.Load()
	url, err := unsubscribe.Link(l.base, keys, claim)
	if err != nil {
		return compose.Links{}, &compose.RenderError{Field: "unsubscribe", Err: err}
	}
	return compose.Links{URL: url, Mailto: unsubscribe.Mailto(l.bounceDomain(a.SenderDomain), keys, claim)}, nil
}
