// Package world models mailbox providers as they look to a sender: which
// domains they serve, on which hosts, how much mail they take from one source,
// which mailboxes exist, and what they say when they refuse.
//
// Everything here is pure and deterministic. A [World] is plain data, a [Model]
// is one provider's state machine, and every decision takes the instant it is
// made at as a parameter; nothing reads a clock, a socket or a random source.
// The package serve puts the same models behind real TCP and DNS, and a
// simulator may drive them in virtual time.
//
// Some mailboxes accept a message and have something to say about it afterwards:
// the decision names a [Return], and [Return.Compose] writes the bounce, complaint,
// unsubscribe or reply in the form of that kind of provider.
//
// Start with [Default] or [Open], or decode a World from YAML or JSON, call
// [World.Validate], then [NewModel] for each receiver.
package world

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// World is a set of receivers and the names that lead to them.
type World struct {
	// Name is shown in reports.
	Name string `json:"name" yaml:"name"`
	// Seed decides which mailboxes exist and how latency varies. The same seed
	// gives the same world.
	Seed uint64 `json:"seed" yaml:"seed"`
	// CatchAll names the receiver that serves every domain no receiver lists.
	// Empty makes such domains NXDOMAIN. Names below "invalid" (RFC 2606
	// section 2) never exist either way.
	CatchAll string `json:"catch_all,omitempty" yaml:"catch_all,omitempty"`
	// Magic is how the magic local parts of [Fate] behave at every receiver.
	Magic Magic `json:"magic" yaml:"magic"`
	// Receivers are the providers, in the order reports show them.
	Receivers []Receiver `json:"receivers" yaml:"receivers"`
}

// Magic sets the pace of the magic local parts.
type Magic struct {
	// GreylistDelay is how long a "greylist" recipient stays refused; default 5 min.
	GreylistDelay Duration `json:"greylist_delay,omitempty" yaml:"greylist_delay,omitempty"`
	// RateLimitCount is how often a "ratelimit" recipient is refused before it
	// is accepted; default 2.
	RateLimitCount int `json:"rate_limit_count,omitempty" yaml:"rate_limit_count,omitempty"`
	// SlowDelay is how long the replies to RCPT and to the final dot of a "slow"
	// recipient wait; default 2 s.
	SlowDelay Duration `json:"slow_delay,omitempty" yaml:"slow_delay,omitempty"`
	// ReturnDelay is how long after its acceptance a message comes back as a
	// bounce, a complaint or a reply; default 1 s. It is real time, which
	// [World.Compress] leaves alone: in it the sender writes down that it was
	// delivered.
	ReturnDelay Duration `json:"return_delay,omitempty" yaml:"return_delay,omitempty"`
}

// WithDefaults returns m with its unset figures filled in.
func (m Magic) WithDefaults() Magic {
	if m.GreylistDelay == 0 {
		m.GreylistDelay = Duration(5 * time.Minute)
	}
	if m.RateLimitCount == 0 {
		m.RateLimitCount = 2
	}
	if m.SlowDelay == 0 {
		m.SlowDelay = Duration(2 * time.Second)
	}
	if m.ReturnDelay == 0 {
		m.ReturnDelay = Duration(time.Second)
	}
	return m
}

// Receiver returns the receiver called name, or nil.
func (w *World) Receiver(name string) *Receiver {
	for i := range w.Receivers {
		if w.Receivers[i].Name == name {
			return &w.Receivers[i]
		}
	}
	return nil
}

// Lookup returns the receiver that serves domain and the entry that matched: a
// listed domain first, the catch-all receiver next. Both are nil for a domain
// that does not exist. Letter case does not matter.
func (w *World) Lookup(domain string) (*Receiver, *Domain) {
	domain = canonicalName(domain)
	for i := range w.Receivers {
		r := &w.Receivers[i]
		for j := range r.Domains {
			if canonicalName(r.Domains[j].Name) == domain {
				return r, &r.Domains[j]
			}
		}
	}
	if w.CatchAll == "" || w.missing(domain) {
		return nil, nil
	}
	if r := w.Receiver(w.CatchAll); r != nil {
		return r, &Domain{Name: domain}
	}
	return nil, nil
}

// missing reports whether domain is below one that does not exist.
func (w *World) missing(domain string) bool {
	if domain == "invalid" || strings.HasSuffix(domain, ".invalid") {
		return true
	}
	for _, r := range w.Receivers {
		for _, d := range r.Domains {
			if r.DNS == DNSNXDomain && strings.HasSuffix(domain, "."+canonicalName(d.Name)) {
				return true
			}
		}
	}
	return false
}

// Compress returns a copy of the world in which waiting is shorter by factor:
// greylisting, penalties and outages, the periods a sender has to sit out. It
// goes with a sender whose retry schedule is divided by the same factor. Rates,
// quotas and reply latency stay as they are, because they bound work, not
// waiting. A factor at or below 1 changes nothing.
func (w World) Compress(factor float64) World {
	if factor <= 1 {
		return w
	}
	w.Magic = w.Magic.WithDefaults()
	w.Magic.GreylistDelay = w.Magic.GreylistDelay.divide(factor)
	receivers := make([]Receiver, len(w.Receivers))
	for i, r := range w.Receivers {
		receivers[i] = r.compress(factor)
	}
	w.Receivers = receivers
	return w
}

// Validate reports every mistake in the world's data, each naming the field,
// the value and what is allowed.
func (w *World) Validate() error {
	var errs []error
	names, domains := map[string]bool{}, map[string]string{}
	for i := range w.Receivers {
		r := &w.Receivers[i]
		if names[r.Name] {
			errs = append(errs, fmt.Errorf("receivers[%d].name: %q is used twice; give each receiver its own name", i, r.Name))
		}
		names[r.Name] = true
		for _, d := range r.Domains {
			key := canonicalName(d.Name)
			if other, ok := domains[key]; ok {
				errs = append(errs, fmt.Errorf("receivers[%d].domains: %q already belongs to receiver %q; list it once", i, d.Name, other))
			}
			domains[key] = r.Name
		}
		if err := r.validate(); err != nil {
			errs = append(errs, fmt.Errorf("receivers[%d] (%s): %w", i, r.Name, err))
		}
	}
	if len(w.Receivers) == 0 {
		errs = append(errs, errors.New("receivers: the list is empty; a world needs at least one receiver"))
	}
	if len(w.Receivers) > maxReceivers {
		errs = append(errs, fmt.Errorf("receivers: %d listed; at most %d fit", len(w.Receivers), maxReceivers))
	}
	errs = append(errs, w.validateCatchAll())
	if w.Magic.RateLimitCount < 0 || w.Magic.GreylistDelay < 0 || w.Magic.SlowDelay < 0 || w.Magic.ReturnDelay < 0 {
		errs = append(errs, errors.New("magic: counts and delays must not be negative"))
	}
	return errors.Join(errs...)
}

func (w *World) validateCatchAll() error {
	if w.CatchAll == "" {
		return nil
	}
	r := w.Receiver(w.CatchAll)
	if r == nil {
		return fmt.Errorf("catch_all: there is no receiver %q; name one of the receivers or leave it empty", w.CatchAll)
	}
	for _, h := range r.Hosts {
		if h.PerTenant() {
			return fmt.Errorf("catch_all: receiver %q has the host %q, which needs listed domains; name another receiver", w.CatchAll, h.Name)
		}
	}
	return nil
}

// maxReceivers keeps one loopback network of 16 bits for each receiver's hosts.
const maxReceivers = 250

func canonicalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
