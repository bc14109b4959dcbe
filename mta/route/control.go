package route

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// brokenFor is how long a server that denied every control name is taken
	// for broken before it is asked for them again.
	brokenFor = time.Minute
	// maxLearned is how many names found earlier serve as control names.
	maxLearned = 4
)

// DefaultControlNames returns names that any resolver of the public DNS knows.
func DefaultControlNames() []string {
	return []string{"a.root-servers.net", "gmail.com", "outlook.com"}
}

// controls are the names by which denials are tested. An NXDOMAIN ends a message
// for good, so a resolver that lost its way (a captive portal, a forwarder
// without its upstream) would wreck a whole mailing if it were believed.
type controls struct {
	fixed  []string
	learns bool

	mu      sync.Mutex
	learned []string  // found lately, the newest last
	broken  time.Time // when every name was denied; zero if not so
}

func newControls(names []string) (*controls, error) {
	if names == nil {
		return &controls{fixed: DefaultControlNames(), learns: true}, nil
	}
	c := new(controls)
	for _, name := range names {
		plain, err := normalizeName(name)
		if err != nil {
			return nil, fmt.Errorf("dns: control name %q: %w", name, err)
		}
		c.fixed = append(c.fixed, plain)
	}
	return c, nil
}

// confirm returns nil when an NXDOMAIN just received may be believed: when the
// server, asked after it, answers for a control name. Asking each time leaves no
// moment in which a resolver that broke a second ago is still believed, and
// costs one question that the resolver has in its cache.
func (r *Resolver) confirm(ctx context.Context) error {
	c := r.controls
	if len(c.fixed) == 0 {
		return nil
	}
	if c.knownBroken(r.now()) {
		return fmt.Errorf("it denied every control name less than %s ago", brokenFor)
	}
	var asked []string
	denied := 0
	for name := c.next(asked); name != ""; name = c.next(asked) {
		asked = append(asked, name)
		reply, err := r.exchange(ctx, question{name, dns.TypeA})
		if err == nil && reply.Rcode != dns.RcodeNameError {
			return nil
		}
		if err == nil {
			denied++
		}
	}
	if denied == len(asked) {
		c.markBroken(r.now())
	}
	return fmt.Errorf("it answers for none of the control names %s", strings.Join(asked, ", "))
}

// next returns the next name to ask for, or "" when all were asked. It looks at
// the learned names anew each time, since others may have just been found.
func (c *controls) next(asked []string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(asked) >= len(c.fixed)+maxLearned {
		return ""
	}
	for _, names := range [][]string{c.fixed, c.learned} {
		for _, name := range names {
			if !slices.Contains(asked, name) {
				return name
			}
		}
	}
	return ""
}

// learn remembers a name that the server has just answered for.
func (c *controls) learn(name string) {
	if !c.learns {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = time.Time{}
	if slices.Contains(c.learned, name) {
		return
	}
	if len(c.learned) == maxLearned {
		c.learned = append(c.learned[:0], c.learned[1:]...)
	}
	c.learned = append(c.learned, name)
}

func (c *controls) knownBroken(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.broken.IsZero() && now.Before(c.broken.Add(brokenFor))
}

func (c *controls) markBroken(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = now
}
