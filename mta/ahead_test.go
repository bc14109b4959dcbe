package mta

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// slow is a receiver with one connection, whose first final reply takes 900 ms. With
// PIPELINING the next envelope comes before that.
type slow struct {
	receiver
	pipelining bool
	mu         sync.Mutex
	contents   int
	recipients []string
}

func (s *slow) hear(line string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.HasPrefix(line, "EHLO") && s.pipelining:
		return "250-mx\r\n250 PIPELINING"
	case strings.HasPrefix(line, "RCPT"):
		s.recipients = append(s.recipients, line[len("RCPT TO:<"):strings.IndexByte(line, '@')])
	case line == ".":
		s.contents++
		if s.contents == 1 {
			s.mu.Unlock()
			time.Sleep(900 * time.Millisecond)
			s.mu.Lock()
		}
	}
	return ""
}

func oneConnection(t *testing.T) *mxrules.Rules {
	t.Helper()
	rules, err := mxrules.NewRules([]mxrules.Rule{{
		ID: "one", Set: mxrules.FieldsOf(mxrules.FieldConnections), Limits: mxrules.Limits{Connections: 1},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// What is made ready while another message is on the wire is dropped if it is paused,
// cancelled, excluded or expired before its turn. The message under way goes on.
func TestWhatIsMadeReadyAheadIsDropped(t *testing.T) {
	for _, tt := range []struct {
		name     string
		validity time.Duration
		change   func(ctx context.Context, r *Relay, e *exclusions) error
		want     Outcome // of the second; 0: none yet
	}{
		{name: "paused", change: func(ctx context.Context, r *Relay, _ *exclusions) error { return r.Pause(ctx, 1) }},
		{name: "cancelled", change: func(ctx context.Context, r *Relay, _ *exclusions) error { return r.Cancel(ctx, 1) }},
		{name: "suspended", change: func(ctx context.Context, r *Relay, _ *exclusions) error {
			return r.Suspend(ctx, "x", dispatch.Selector{Kind: dispatch.Everything})
		}},
		{name: "excluded", want: Suppressed, change: func(_ context.Context, _ *Relay, e *exclusions) error {
			e.set("second", bounce.ReasonDenylisted, nil)
			return nil
		}},
		{name: "expired", want: Expired, validity: 600 * time.Millisecond, change: func(context.Context, *Relay, *exclusions) error { return nil }},
	} {
		for _, pipelining := range []bool{false, true} {
			if pipelining && tt.want != 0 {
				continue // its envelope is on the wire: it is under way
			}
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, rc := newMemory(), &slow{pipelining: pipelining}
					rc.reply = rc.hear
					h := bulk(1)
					if tt.validity > 0 {
						h.Expires = time.Now().Add(tt.validity)
					}
					store.handovers = []*Handover{h}
					ids := store.add(h, 1, "first@a.example", "second@a.example")
					e := &exclusions{by: map[string]bounce.Reason{}}
					cfg := config(t, store, rc.serve)
					cfg.Excluded, cfg.Settings.Rules = e.excluded, oneConnection(t)
					r := started(t, cfg)
					r.HandOver(h)
					pass(500 * time.Millisecond)
					if err := tt.change(t.Context(), r, e); err != nil {
						t.Fatal(err)
					}
					pass(10 * time.Second)
					if list := store.outcomes(ids[0]); len(list) != 1 || list[0].Outcome != Delivered {
						t.Errorf("the first: %+v", list)
					}
					list := store.outcomes(ids[1])
					if tt.want == 0 && len(list) != 0 || tt.want != 0 && (len(list) != 1 || list[0].Outcome != tt.want) {
						t.Errorf("the second: %+v", list)
					}
					if rc.contents != 1 || !pipelining && rc.count() != 1 {
						t.Errorf("%d MAIL, %d contents", rc.count(), rc.contents)
					}
					stop(t, r)
				})
			})
		}
	}
}
