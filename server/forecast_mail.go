package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/forecast"
)

// mail is a delivery's mail by recipient domain: the largest by name, of the rest the sum.
type mail struct {
	named []*domainMail // the largest first
	rest  bound
}

// domainMail is what goes to one recipient domain.
type domainMail struct {
	mta.RunState
	route *route.Route
	dead  bool // it takes no mail
}

// bound is mail for one destination.
type bound struct {
	name     string
	route    dispatch.Route
	domain   string // one of its recipient domains
	domains  int
	fresh    int64
	deferred int64
	nextDue  time.Time
	like     int
	dead     bool
}

func (b *bound) messages() int64 { return b.fresh + b.deferred }

func (b *bound) add(s *mta.RunState) {
	b.domains++
	b.fresh += s.Fresh
	b.deferred += s.Deferred
	if s.Deferred > 0 && (b.nextDue.IsZero() || s.NextDue.Before(b.nextDue)) {
		b.nextDue = s.NextDue
	}
}

// readPage is how many runs are read at a time.
const readPage = 1000

// read sums a delivery's mail up by domain.
func (f *forecaster) read(ctx context.Context, d *campaign.Delivery) (*mail, error) {
	m := &mail{}
	for after, seen := uint32(0), 0; seen < maxRead; {
		page, err := f.store.Runs(ctx, d.Handover, after, readPage)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		for i := range page {
			m.add(&page[i])
		}
		if len(page) < readPage {
			return m, nil
		}
		seen += len(page)
		after = page[len(page)-1].Domain
	}
	m.unread(d)
	return m, nil
}

// unread counts mail to domains that were not read, by the delivery's figures.
func (m *mail) unread(d *campaign.Delivery) {
	left := d.Counters.Pending + d.Counters.InRelay - m.rest.messages()
	for _, n := range m.named {
		left -= n.Fresh + n.Deferred
	}
	if left > 0 && m.rest.domains > 0 {
		m.rest.domains += int(left / max(1, m.rest.messages()/int64(m.rest.domains)))
		m.rest.fresh += left
	}
}

// add keeps the largest by name.
func (m *mail) add(s *mta.RunState) {
	i, _ := slices.BinarySearchFunc(m.named, s, func(a *domainMail, s *mta.RunState) int {
		return cmp.Or(cmp.Compare(s.Fresh+s.Deferred, a.Fresh+a.Deferred), strings.Compare(a.DomainName, s.DomainName))
	})
	if i < maxNamed {
		m.named = slices.Insert(m.named, i, &domainMail{RunState: *s})
	} else {
		m.rest.add(s)
	}
	if len(m.named) > maxNamed {
		m.rest.add(&m.named[maxNamed].RunState)
		m.named = m.named[:maxNamed]
	}
}

// lookUp finds the routes of the domains known by name, as far as that goes in time.
func (m *mail) lookUp(ctx context.Context, resolver mta.Resolver, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	room := make(chan struct{}, maxLookUps)
	var asked sync.WaitGroup
	for _, n := range m.named {
		room <- struct{}{}
		asked.Go(func() {
			defer func() { <-room }()
			rt, err := resolver.Route(ctx, n.DomainName)
			var failed *route.Error
			switch {
			case err == nil && len(rt.Hosts) > 0:
				n.route = rt
			case errors.As(err, &failed):
				n.dead = failed.Final()
			}
		})
	}
	asked.Wait()
}

// noExchanger is the destination of domains that take no mail.
const noExchanger = "domains without a mail exchanger"

// group sums the domains up by destination. Those without a route are average ones.
func (m *mail) group() []*bound {
	by := map[string]*bound{}
	var list []*bound
	into := func(name string, n *domainMail) *bound {
		b := by[name]
		if b == nil {
			b = &bound{name: name, domain: n.DomainName, dead: n.dead}
			by[name] = b
			list = append(list, b)
		}
		b.add(&n.RunState)
		return b
	}
	for _, n := range m.named {
		switch {
		case n.dead:
			into(noExchanger, n)
		case n.route == nil:
			m.rest.add(&n.RunState)
		default:
			if b := into(n.route.Destination, n); b.route.Hosts == nil {
				b.route = routeOf(n.route)
			}
		}
	}
	if m.rest.domains > 0 {
		rest := m.rest
		rest.name, rest.like = forecast.EveryoneElse, rest.domains
		rest.route = dispatch.Route{Destination: forecast.EveryoneElse, Hosts: []dispatch.Host{{Name: "mx.everyone-else.invalid"}}}
		list = append(list, &rest)
	}
	return list
}

func routeOf(rt *route.Route) dispatch.Route {
	r := dispatch.Route{Destination: rt.Destination, Provider: rt.Provider}
	for _, h := range rt.Hosts {
		r.Hosts = append(r.Hosts, dispatch.Host{Name: h.Name, Preference: h.Preference})
	}
	return r
}
