package smtpc

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mxrules"
)

const roundTrip = 50 * time.Millisecond

// distant is a session with a server a round trip away, that agrees to everything.
func distant(t testing.TB, extensions string, change func(*Config)) *Session {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	s, err := Open(context.Background(), func(context.Context) (net.Conn, error) {
		client, end := memnet.Distant(256<<10, roundTrip/2)
		go yes(end, extensions)
		return client, nil
	}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hangUp ends a session and lets the news of it reach the server.
func hangUp(s *Session) {
	s.Abort()
	time.Sleep(2 * roundTrip)
}

// A message on a warm connection costs one round trip. The time is virtual, so it is
// exact.
func TestOneRoundTripPerMessage(t *testing.T) {
	const messages = 100
	off := func(s ...*mxrules.Switch) {
		for _, s := range s {
			*s = mxrules.Off
		}
	}
	tests := []struct {
		name       string
		extensions string
		change     func(*Config)
		want       time.Duration
	}{
		// The first goes without content before it: one round trip more.
		{"across", "PIPELINING", nil, (messages + 1) * roundTrip},
		{"chunked", "PIPELINING\r\n250 CHUNKING", nil, messages * roundTrip},
		{"chunking off", "PIPELINING\r\n250 CHUNKING", func(c *Config) { off(&c.Chunking) }, (messages + 1) * roundTrip},
		{"grouped", "PIPELINING", func(c *Config) { off(&c.Across) }, 2 * messages * roundTrip},
		{"pipelining off", "PIPELINING", func(c *Config) { off(&c.Pipelining) }, 4 * messages * roundTrip},
		{"pipelining off, chunks", "PIPELINING\r\n250 CHUNKING", func(c *Config) { off(&c.Pipelining) }, 3 * messages * roundTrip},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := distant(t, tt.extensions, tt.change)
				var mail []*Mail
				for range messages {
					mail = append(mail, &Mail{Envelope: testEnvelope(), Content: newsletter(10 << 10)})
				}
				start := time.Now()
				for _, got := range carryAll(t.Context(), s, mail) {
					if !got.Delivered {
						t.Fatal(describe(got))
					}
				}
				if took := time.Since(start); took != tt.want {
					t.Errorf("%d messages took %v, want %v", messages, took, tt.want)
				}
				hangUp(s)
			})
		})
	}
}

// The next message that comes at any time before the reply costs one round trip, too.
func TestOneRoundTripWhenTheNextComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := distant(t, "PIPELINING", nil)
		q := &taking{queue: newQueue()}
		start := time.Now()
		const messages = 20
		m := letter(1)
		for n := range messages {
			q.gave = nil
			late := time.AfterFunc(time.Duration(n)*roundTrip/messages, func() { q.put(letter(n + 2)) })
			if got := s.Carry(t.Context(), m, q); !got.Delivered {
				t.Fatal(describe(got))
			}
			late.Stop()
			if m = q.gave; m == nil {
				t.Fatalf("message %d was not begun", n+2)
			}
		}
		// An envelope that leaves later is answered later by as much, and no more.
		if took, most := time.Since(start), (messages+1)*roundTrip+messages*roundTrip/2; took > most {
			t.Errorf("took %v, at most %v", took, most)
		}
		hangUp(s)
	})
}
