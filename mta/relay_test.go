package mta

import (
	"bufio"
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
)

// receiver answers SMTP; reply says what to a line, "" what is usual. It counts MAIL.
type receiver struct {
	mu    sync.Mutex
	mails int
	reply func(line string) string
}

func (rc *receiver) serve(conn net.Conn) {
	defer conn.Close()
	fmt.Fprint(conn, "220 mx ESMTP\r\n")
	in := bufio.NewReader(conn)
	for data := false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if data && line != "." {
			continue
		}
		reply := rc.answer(line)
		if reply == "hang up" {
			return
		}
		data = strings.HasPrefix(reply, "354")
		if _, err := fmt.Fprintf(conn, "%s\r\n", reply); err != nil || line == "QUIT" {
			return
		}
	}
}

func (rc *receiver) answer(line string) string {
	rc.mu.Lock()
	if strings.HasPrefix(line, "MAIL") {
		rc.mails++
	}
	ask := rc.reply
	rc.mu.Unlock()
	if ask != nil {
		if reply := ask(line); reply != "" {
			return reply
		}
	}
	switch line {
	case "DATA":
		return "354 go"
	case "QUIT":
		return "221 bye"
	}
	return "250 ok"
}

func (rc *receiver) count() int {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.mails
}

func started(t *testing.T, cfg Config) *Relay {
	t.Helper()
	r := New(cfg)
	if _, err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// pass lets time go by, and waits until everything has happened that was to happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stop ends a relay, of which then nothing may be left in memory.
func stop(t *testing.T, r *Relay) {
	t.Helper()
	if err := r.Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if n := len(r.byID); n > 0 {
		t.Errorf("%d messages are left in memory", n)
	}
}

// A retry that becomes durable while its run is being read is not forgotten, also
// when that read answers that nothing is left.
func TestDeferralDuringLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		h := bulk(1)
		first := store.add(h, 1, "a@a.example")[0]
		rc.reply = func(line string) string {
			if strings.HasPrefix(line, "RCPT TO:<a@") && rc.count() == 1 {
				time.Sleep(time.Second)
				return "452 4.2.2 mailbox full"
			}
			return ""
		}
		loads := 0
		store.after = func(call string, _ any) {
			if call != "Load" {
				return
			}
			if loads++; loads == 2 {
				time.Sleep(2 * time.Second) // the answer was made before the deferral and comes behind it
			}
		}
		r := started(t, config(t, store, rc.serve))
		r.HandOver(h)
		time.Sleep(500 * time.Millisecond)
		second := store.add(h, 1, "b@a.example")[0]
		r.HandOver(h) // reads the directory, and then the run
		pass(24 * time.Hour)
		if list := store.outcomes(first); len(list) != 2 || list[0].Outcome != Deferred || list[1].Outcome != Delivered {
			t.Errorf("outcomes of the first %v", list)
		}
		if list := store.outcomes(second); len(list) != 1 || list[0].Outcome != Delivered {
			t.Errorf("outcomes of the second %v", list)
		}
		stop(t, r)
	})
}

// Claims that the store refuses give their messages back, and take no room in the
// path's window for good.
func TestRefusedClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		h := bulk(1)
		var recipients []string
		for i := range 300 {
			recipients = append(recipients, fmt.Sprintf("u%d@a.example", i))
		}
		ids := store.add(h, 1, recipients...)
		paused := true
		store.refuse = func(*Message) bool { return paused }
		store.after = func(call string, _ any) {
			if call == "Write" {
				time.Sleep(5 * time.Millisecond) // a disk
			}
		}
		r := started(t, config(t, store, rc.serve))
		r.HandOver(h)
		pass(200 * time.Millisecond) // the delivery is paused, the relay will hear of it
		if err := r.Pause(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if rc.count() != 0 || store.claimed() != 0 {
			t.Errorf("%d MAIL, %d claims while paused", rc.count(), store.claimed())
		}
		if n := len(store.writes); n > 300 {
			t.Errorf("%d writes for a pause", n)
		}
		store.mu.Lock()
		paused = false
		store.mu.Unlock()
		if err := r.Unpause(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		for _, id := range ids {
			if list := store.outcomes(id); len(list) != 1 || list[0].Outcome != Delivered {
				t.Fatalf("%v: %v", id, list)
			}
		}
		if v, _, err := r.Destination(t.Context(), "a.example"); v.Ready+v.InFlight != 0 || err != nil {
			t.Errorf("the core holds %d messages and sends %d, %v", v.Ready, v.InFlight, err)
		}
		stop(t, r)
	})
}

// Behind Pause, Suspend and Cancel no attempt begins, not even of a message that a
// session holds already.
func TestNothingBeginsBehindAStop(t *testing.T) {
	stops := map[string]func(r *Relay) error{
		"pause":  func(r *Relay) error { return r.Pause(context.Background(), 1) },
		"cancel": func(r *Relay) error { return r.Cancel(context.Background(), 1) },
		"suspend": func(r *Relay) error {
			return r.Suspend(context.Background(), "s", dispatch.Selector{Kind: dispatch.Everything})
		},
		"stop": func(r *Relay) error { return r.Stop(context.Background()) },
	}
	for name, halt := range stops {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, rc := newMemory(), &receiver{}
				composing, gate := make(chan struct{}, 1), make(chan struct{})
				store.before = func(call string) error {
					if call == "Content" {
						composing <- struct{}{}
						<-gate
					}
					return nil
				}
				h := bulk(1)
				store.add(h, 1, "a@a.example")
				r := started(t, config(t, store, rc.serve))
				r.HandOver(h)
				<-composing
				halted := make(chan error, 1)
				go func() { halted <- halt(r) }()
				synctest.Wait()
				close(gate)
				if err := <-halted; err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				if n := rc.count(); n != 0 {
					t.Errorf("%d MAIL behind it", n)
				}
				if n := store.claimed(); n != 0 {
					t.Errorf("%d claims are left", n)
				}
				stop(t, r)
			})
		})
	}
}

// Stop waits for claims on their way to the disk and leaves none.
func TestStopWaitsForClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		claiming := make(chan struct{})
		var once sync.Once
		store.before = func(call string) error {
			if call == "Write" {
				once.Do(func() { close(claiming) })
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		}
		h := bulk(1)
		store.add(h, 1, "a@a.example", "b@a.example")
		r := started(t, config(t, store, rc.serve))
		r.HandOver(h)
		<-claiming
		stop(t, r)
		if n := store.claimed(); n != 0 {
			t.Errorf("%d claims are left", n)
		}
	})
}

// A transaction that outlives the grace period is broken off; what it may have
// left behind is told.
func TestStopBreaksOffAtTheEndOfGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		rc := &receiver{reply: func(line string) string {
			if line == "." {
				time.Sleep(time.Hour)
			}
			return ""
		}}
		h := bulk(1)
		id := store.add(h, 1, "a@a.example")[0]
		r := started(t, config(t, store, rc.serve))
		r.HandOver(h)
		pass(time.Second)
		began := time.Now()
		stop(t, r)
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("stopped after %v", took)
		}
		list := store.outcomes(id)
		if len(list) != 1 || list[0].Outcome != Deferred || !list[0].Attempt.Uncertain || list[0].Message.State.Charged != 0 {
			t.Errorf("outcomes %+v", list)
		}
		if text := list[0].Text; !strings.Contains(text, "the relay stops") {
			t.Errorf("text %q", text)
		}
		pass(time.Hour) // the receiver ends
	})
}

// A relay that is told to stop at once leaves what it cannot settle any more to the
// next one.
func TestStopAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		rc := &receiver{reply: func(line string) string {
			if line == "." {
				time.Sleep(time.Hour)
			}
			return ""
		}}
		h := bulk(1)
		id := store.add(h, 1, "a@a.example")[0]
		store.handovers = []*Handover{h}
		r := started(t, config(t, store, rc.serve))
		pass(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		rc.mu.Lock()
		rc.reply = nil
		rc.mu.Unlock()
		r = started(t, config(t, store, rc.serve))
		list := store.outcomes(id)
		told := len(list) == 1 && list[0].Outcome == Deferred && list[0].Attempt.Uncertain // the last write came through
		if lost := len(store.lost) == 1 && store.lost[0].ID == id; lost == told {
			t.Errorf("lost %v, outcomes %v", store.lost, list)
		}
		pass(10 * time.Minute)
		if list = store.outcomes(id); list[len(list)-1].Outcome != Delivered {
			t.Errorf("outcomes %v", list)
		}
		stop(t, r)
		pass(time.Hour) // the first receiver ends
	})
}

// Stop waits neither for dials nor for look-ups, nor for the expiry of a large run.
func TestStopDoesNotWaitForThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		h := bulk(1)
		store.add(h, 1, "a@a.example")
		cfg := config(t, store, (&receiver{}).serve)
		cfg.Dial = func(ctx context.Context, _ Target) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		r := started(t, cfg)
		r.HandOver(h)
		pass(time.Second)
		began := time.Now()
		stop(t, r)
		if took := time.Since(began); took != 0 {
			t.Errorf("stopped after %v", took)
		}
		if err := r.Stop(t.Context()); err != nil { // again
			t.Errorf("second stop: %v", err)
		}
		if err := r.Pause(t.Context(), 1); !errors.Is(err, ErrStopped) {
			t.Errorf("a call of a stopped relay: %v", err)
		}
		r.HandOver(h) // nobody is there to hear it
	})
}

// A store that fails is reported once, and Stop does not pretend.
func TestStoreFails(t *testing.T) {
	for _, call := range []string{"Write", "Load", "Runs"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemory()
				broken := errors.New("disk on fire")
				store.before = func(c string) error {
					if c == call {
						return broken
					}
					return nil
				}
				h := bulk(1)
				store.add(h, 1, "a@a.example", "b@a.example")
				cfg := config(t, store, (&receiver{}).serve)
				var fatal []error
				cfg.Fatal = func(err error) { fatal = append(fatal, err) }
				r := started(t, cfg)
				r.HandOver(h)
				r.HandOver(h)
				pass(time.Minute)
				err := r.Stop(t.Context())
				var failed *StoreError
				if len(fatal) != 1 || !errors.Is(fatal[0], broken) || !errors.As(fatal[0], &failed) {
					t.Errorf("told %v", fatal)
				}
				if call == "Write" && !errors.Is(err, broken) {
					t.Errorf("stop: %v", err)
				}
			})
		})
	}
}

// Another process took the store over: nothing of this one is written any more.
func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		h := bulk(1)
		store.add(h, 1, "a@a.example")
		cfg := config(t, store, rc.serve)
		var fatal error
		cfg.Fatal = func(err error) { fatal = err }
		r := started(t, cfg)
		store.epoch++
		r.HandOver(h)
		pass(time.Minute)
		if !errors.Is(fatal, ErrFenced) || rc.count() != 0 {
			t.Errorf("told %v, %d MAIL", fatal, rc.count())
		}
		_ = r.Stop(t.Context())
	})
}

// angry is a key that panics once it has had enough.
type angry struct {
	crypto.Signer
	enough *atomic.Bool
}

func (a angry) Public() crypto.PublicKey {
	if a.enough.Load() {
		panic("no more signatures")
	}
	return a.Signer.Public()
}

// A panic while a message is made ready is that message's failure.
func TestPanicWhileComposing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		cfg := config(t, store, rc.serve)
		key, err := dkim.GenerateRSA(2048)
		if err != nil {
			t.Fatal(err)
		}
		var enough atomic.Bool
		k, err := dkim.NewKey("angry.example", "s1", angry{key, &enough})
		if err != nil {
			t.Fatal(err)
		}
		good, _ := signer()
		if cfg.Settings.Keys, err = dkim.NewKeyring(append(good.Find("sender.example"), k)); err != nil {
			t.Fatal(err)
		}
		enough.Store(true)
		h, other := bulk(1), bulk(2)
		h.SenderDomain = "angry.example"
		bad, fine := store.add(h, 1, "a@a.example")[0], store.add(other, 1, "b@a.example")[0]
		r := started(t, cfg)
		r.HandOver(h)
		r.HandOver(other)
		pass(time.Minute)
		if list := store.outcomes(bad); len(list) != 1 || list[0].Outcome != Bounced || list[0].Verdict.Code != 25 || !strings.Contains(list[0].Text, "no more signatures") {
			t.Errorf("outcomes %+v", list)
		}
		if list := store.outcomes(fine); len(list) != 1 || list[0].Outcome != Delivered {
			t.Errorf("outcomes of the other %+v", list)
		}
		stop(t, r)
	})
}

// Of a host's addresses one that swallows packets leaves time for the next.
func TestDialShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		h := bulk(1)
		id := store.add(h, 1, "a@a.example")[0]
		cfg := config(t, store, rc.serve)
		dead, live := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.9")
		cfg.Resolver = hosts{addrs: []netip.Addr{dead, live}}
		cfg.Dial = func(ctx context.Context, target Target) (net.Conn, error) {
			if target.Addr == dead {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			client, server := memnet.Pipe(64 << 10)
			go rc.serve(server)
			return client, nil
		}
		r := started(t, cfg)
		r.HandOver(h)
		pass(9 * time.Second)
		if list := store.outcomes(id); len(list) != 1 || list[0].Outcome != Delivered {
			t.Errorf("outcomes %v", list)
		}
		stop(t, r)
	})
}

// Transactional mail that expires behind a dead host leaves no run behind, for which
// the host would be dialled again and again.
func TestExpiredRunsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		h := standing(1)
		store.handovers = []*Handover{h}
		ids := store.add(h, 1, "a@a.example", "b@a.example")
		for _, id := range ids {
			store.rows[id].msg.Expires = time.Now().Add(10 * time.Minute)
		}
		dials := 0
		cfg := config(t, store, nil)
		cfg.Dial = func(context.Context, Target) (net.Conn, error) {
			dials++
			return nil, errors.New("connection refused")
		}
		r := started(t, cfg)
		for _, id := range ids {
			r.Arrived(h, id, "a.example", store.rows[id].msg.Expires)
		}
		pass(15 * time.Minute)
		for _, id := range ids {
			if list := store.outcomes(id); len(list) != 1 || list[0].Outcome != Expired || !strings.Contains(list[0].Text, "connection refused") {
				t.Errorf("outcomes %+v", list)
			}
		}
		before := dials
		pass(48 * time.Hour)
		if dials != before {
			t.Errorf("%d dials for mail that is gone", dials-before)
		}
		if n := r.runs.Len(); n != 0 {
			t.Errorf("%d runs are left", n)
		}
		stop(t, r)
	})
}

// A hand-over to many domains ends at its instant, each message told what held it,
// and leaves nothing behind.
func TestLargeHandoverExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		h := bulk(1)
		h.Expires = time.Now().Add(time.Hour)
		store.handovers = []*Handover{h}
		const domains = 3000
		for i := range domains {
			domain := fmt.Sprintf("d%d.example", i)
			store.add(h, uint32(i+1), "a@"+domain, "b@"+domain)
		}
		r := started(t, config(t, store, nil))
		if err := r.Suspend(t.Context(), "maintenance", dispatch.Selector{Kind: dispatch.Everything}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Hour)
		for _, s := range store.settles {
			if s.Outcome != Expired || s.Time.Sub(h.Arrival) != time.Hour || !strings.Contains(s.Text, "suspended: maintenance") {
				t.Fatalf("settled as %+v", s)
			}
		}
		if n := len(store.settles); n != 2*domains {
			t.Errorf("%d messages expired", n)
		}
		for _, n := range store.writes {
			if n > sweepPage {
				t.Errorf("%d messages in one write", n)
			}
		}
		if r.runs.Len()+len(r.handovers) != 0 {
			t.Errorf("%d runs and %d hand-overs are left", r.runs.Len(), len(r.handovers))
		}
		stop(t, r)
	})
}

// Failures of domains are remembered while there is mail for them.
func TestDeadDomainsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		cfg := config(t, store, nil)
		fail := map[string]error{}
		cfg.Resolver = hosts{fail: fail}
		h := bulk(1)
		const domains = 3000
		for i := range domains {
			domain := fmt.Sprintf("typo%d.example", i)
			fail[domain] = &route.Error{Kind: route.NXDomain, Domain: domain, Expires: time.Now().Add(time.Hour)}
			store.add(h, uint32(i+1), "a@"+domain)
		}
		r := started(t, cfg)
		r.HandOver(h)
		pass(time.Hour)
		if len(store.settles) != domains {
			t.Errorf("%d outcomes", len(store.settles))
		}
		if n := len(r.dead); n > 1024 {
			t.Errorf("%d domains are remembered", n)
		}
		stop(t, r)
	})
}

// A standing hand-over that the relay first hears of while its delivery is paused
// waits; one whose resumption overtook it does not.
func TestArrivedWhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		r := started(t, config(t, store, rc.serve))
		arrive := func(number uint64) MessageID {
			h := standing(number)
			h.Paused = true
			id := store.add(h, 1, "a@a.example")[0]
			r.Arrived(h, id, "a.example", time.Now().Add(time.Hour))
			return id
		}
		waits := arrive(1)
		if err := r.Unpause(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		goes := arrive(2)
		pass(time.Minute)
		if n, m := len(store.outcomes(waits)), len(store.outcomes(goes)); n != 0 || m != 1 {
			t.Errorf("%d outcomes of the paused one, %d of the resumed one", n, m)
		}
		if err := r.Unpause(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if n := len(store.outcomes(waits)); n != 1 {
			t.Errorf("%d outcomes after its resumption", n)
		}
		stop(t, r)
	})
}

// A message that lost three claims to crashes is given up, and nobody is told that it
// was not delivered: each of them may have done that.
func TestGivenUpMayHaveBeenDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		h := bulk(1)
		id := store.add(h, 1, "a@a.example")[0]
		poison := store.rows[id]
		poison.retry, poison.msg.State.LostClaims, poison.msg.State.Due = true, 3, time.Now()
		r := started(t, config(t, store, rc.serve))
		r.HandOver(h)
		pass(time.Minute)
		list := store.outcomes(id)
		if len(list) != 1 || list[0].Outcome != Bounced || list[0].Verdict.Code != 25 || list[0].Attempt != nil || !list[0].Uncertain {
			t.Errorf("outcomes %+v", list)
		}
		if n := rc.count(); n != 0 {
			t.Errorf("%d MAIL", n)
		}
		stop(t, r)
	})
}
