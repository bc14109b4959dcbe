package mta

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/smtpc"
)

// The schedules, retry by retry.
func TestDelays(t *testing.T) {
	const m, h = time.Minute, time.Hour
	for name, c := range map[string]struct {
		class dispatch.Class
		want  []time.Duration
	}{
		"bulk, Momentum's": {dispatch.Bulk, []time.Duration{
			20 * m, 40 * m, 80 * m, 160 * m, 320 * m, 640 * m, 12 * h, 12 * h, 12 * h,
		}},
		"transactional": {dispatch.Transactional, []time.Duration{
			1 * m, 2 * m, 5 * m, 10 * m, 20 * m, 40 * m, 80 * m, 160 * m, 320 * m, 640 * m, 12 * h, 12 * h,
		}},
	} {
		for i, want := range c.want {
			if got := (Schedule{}).Delay(c.class, i+1); got != want {
				t.Errorf("%s: retry %d comes after %v, want %v", name, i+1, got, want)
			}
			if got := (Schedule{Scale: 1200}).Delay(c.class, i+1); got != want/1200 {
				t.Errorf("%s: retry %d comes after %v on a clock 1200 times as fast, want %v", name, i+1, got, want/1200)
			}
		}
		if got := (Schedule{}).Delay(c.class, 1<<30); got != 12*h {
			t.Errorf("%s: far out the delay is %v", name, got)
		}
		if got, first := (Schedule{}).Delay(c.class, 0), c.want[0]; got != first {
			t.Errorf("%s: before any charged attempt the delay is %v", name, got)
		}
	}
}

// attempts replays replies that come one after the other, and tells of each what
// became of the message.
type attempts struct {
	class   dispatch.Class
	scale   float64
	expires time.Duration // of the message, from its arrival; 84 h if zero
	replies []string      // "phase code enhanced text"; "-" for no code
	want    []span        // of the deferrals
	end     Outcome       // of the last reply
}

// span is a wait, of at least from and less than to; exact when to is zero.
type span struct{ from, to time.Duration }

func jittered(d time.Duration) span { return span{d, d + d/10} }

func exactly(d time.Duration) span { return span{d, 0} }

func (s span) holds(d time.Duration) bool {
	return d == s.from || s.to != 0 && d > s.from && d < s.to
}

func said(line string) smtpc.Reply {
	replies := map[string]smtpc.Reply{
		"full":         {Phase: smtpc.PhaseRCPT, Code: 452, Enhanced: "4.2.2", Text: "mailbox full"},
		"full for bad": {Phase: smtpc.PhaseRCPT, Code: 552, Enhanced: "5.2.2", Text: "mailbox full"},
		"later":        {Phase: smtpc.PhaseEndOfData, Code: 451, Enhanced: "4.3.0", Text: "try again later"},
		"in 10 min":    {Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.2.1", Text: "please try again in 10 minutes"},
		"in 5 s":       {Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.2.1", Text: "please try again in 5 seconds"},
		"in 3 days":    {Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.2.1", Text: "please try again in 72 hours"},
		"grey":         {Phase: smtpc.PhaseRCPT, Code: 451, Enhanced: "4.7.1", Text: "Greylisted, please try again later"},
		"grey 7 min":   {Phase: smtpc.PhaseRCPT, Code: 451, Enhanced: "4.7.1", Text: "Greylisted, please try again in 7 minutes"},
		"rate":         {Phase: smtpc.PhaseRCPT, Code: 451, Enhanced: "4.7.0", Text: "rate limited, slow down"},
		"busy MAIL":    {Phase: smtpc.PhaseMAIL, Code: 421, Enhanced: "4.7.0", Text: "too many connections from your IP"},
		"block 4":      {Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.7.1", Text: "your IP is blocked by spamhaus"},
		"block 5":      {Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.7.1", Text: "your IP is blocked by spamhaus"},
		"unknown":      {Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.1.1", Text: "user unknown"},
		"unknown 4":    {Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.1.1", Text: "user unknown"},
		"large":        {Phase: smtpc.PhaseMAIL, Code: 552, Enhanced: "5.3.4", Text: "message too large"},
		"spam":         {Phase: smtpc.PhaseEndOfData, Code: 554, Enhanced: "5.7.1", Text: "message content rejected as spam"},
		"attachment":   {Phase: smtpc.PhaseEndOfData, Code: 552, Enhanced: "5.7.0", Text: "prohibited attachment type"},
		"relaying":     {Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.7.1", Text: "relaying denied"},
		"moon":         {Phase: smtpc.PhaseRCPT, Code: 550, Text: "the moon is in the wrong house"},
		"silence":      {Phase: smtpc.PhaseEndOfData, Text: "no reply within 10m0s"},
		"ok":           {Phase: smtpc.PhaseEndOfData, Code: 250, Text: "queued"},
	}
	reply, ok := replies[line]
	if !ok {
		panic("no reply is called " + line)
	}
	return reply
}

const (
	minutes = time.Minute
	hours   = time.Hour
)

var stories = map[string]attempts{
	// "every 4xx, every missing reply" are retried while valid, on the schedule.
	"a full mailbox follows the bulk schedule": {
		replies: []string{"full", "full", "full"},
		want:    []span{jittered(20 * minutes), jittered(40 * minutes), jittered(80 * minutes)},
	},
	"transactional mail has a schedule of its own": {
		class:   dispatch.Transactional,
		replies: []string{"full", "later", "full", "full", "full", "full"},
		want: []span{
			jittered(1 * minutes), jittered(2 * minutes), jittered(5 * minutes),
			jittered(10 * minutes), jittered(20 * minutes), jittered(40 * minutes),
		},
	},
	"a missing reply is retried": {
		replies: []string{"silence", "silence", "ok"},
		want:    []span{jittered(20 * minutes), jittered(40 * minutes)}, end: Delivered,
	},
	"a 4xx never ends a message": {
		replies: []string{"unknown 4", "unknown 4"},
		want:    []span{jittered(20 * minutes), jittered(40 * minutes)},
	},
	// "22 and 70 whatever the reply class".
	"a full mailbox said with 5xx is retried": {
		replies: []string{"full for bad", "full for bad", "ok"},
		want:    []span{jittered(20 * minutes), jittered(40 * minutes)}, end: Delivered,
	},
	// "Final at once: 10, 23, 25, 30, 52, 53, 54 said with 5xx".
	"an unknown user is final":          {replies: []string{"unknown"}, end: Bounced},
	"a message too large is final":      {replies: []string{"large"}, end: Bounced},
	"spam content is final":             {replies: []string{"spam"}, end: Bounced},
	"a prohibited attachment is final":  {replies: []string{"attachment"}, end: Bounced},
	"denied relaying is final":          {replies: []string{"relaying"}, end: Bounced},
	"final also after many other tries": {replies: []string{"full", "rate", "unknown"}, want: []span{jittered(20 * minutes), jittered(1 * minutes)}, end: Bounced},
	// "50/51 said with 5xx: at most 3 attempts, with the path at rest".
	"a block said with 5xx ends at the third": {
		replies: []string{"block 5", "block 5", "block 5"},
		want:    []span{jittered(1 * minutes), jittered(2 * minutes)}, end: Bounced,
	},
	"blocks with 4xx do not count": {
		replies: []string{"block 4", "block 4", "block 4", "block 5", "block 4", "block 5", "block 5"},
		want: []span{
			jittered(1 * minutes), jittered(2 * minutes), jittered(4 * minutes),
			jittered(8 * minutes), jittered(16 * minutes), jittered(32 * minutes),
		}, end: Bounced,
	},
	// "A 5xx that no rule matches: one more attempt after 20 min, then final".
	"an unexplained 5xx gets a second chance": {
		replies: []string{"moon", "moon"}, want: []span{exactly(20 * minutes)}, end: Bounced,
	},
	"an unexplained 5xx counts also with others between": {
		replies: []string{"moon", "full", "moon"},
		want:    []span{exactly(20 * minutes), jittered(40 * minutes)}, end: Bounced,
	},
	// "throttle or block replies at any phase ... without advancing its retry schedule".
	"throttling is not charged": {
		replies: []string{"rate", "full", "busy MAIL", "full"},
		want:    []span{jittered(1 * minutes), jittered(20 * minutes), jittered(2 * minutes), jittered(40 * minutes)},
	},
	"a throttled message tries ever less often": {
		replies: []string{"rate", "rate", "rate", "rate", "rate", "rate", "rate", "rate", "rate"},
		want: []span{
			jittered(1 * minutes), jittered(2 * minutes), jittered(4 * minutes), jittered(8 * minutes),
			jittered(16 * minutes), jittered(32 * minutes), jittered(1 * hours), jittered(1 * hours), jittered(1 * hours),
		},
	},
	// "A delay named in the reply is honoured between 1 min and 12 h."
	"a named delay is honoured":       {replies: []string{"in 10 min", "in 10 min"}, want: []span{exactly(10 * minutes), exactly(10 * minutes)}},
	"a short one becomes a minute":    {replies: []string{"in 5 s"}, want: []span{exactly(1 * minutes)}},
	"a long one becomes twelve hours": {replies: []string{"in 3 days"}, want: []span{exactly(12 * hours)}},
	// "Greylisting: once soon, after 5-15 min".
	"greylisting is tried once soon": {
		replies: []string{"grey", "grey", "grey", "ok"},
		want:    []span{{5 * minutes, 15 * minutes}, jittered(40 * minutes), jittered(80 * minutes)}, end: Delivered,
	},
	"a greylister names its delay":     {replies: []string{"grey 7 min", "ok"}, want: []span{exactly(7 * minutes)}, end: Delivered},
	"transactional mail is greylisted": {class: dispatch.Transactional, replies: []string{"grey"}, want: []span{{5 * minutes, 15 * minutes}}},
	// The end of validity.
	"no retry is later than the end of validity": {
		expires: 30 * minutes, replies: []string{"full"}, want: []span{jittered(20 * minutes)},
	},
	"the last one comes at the end": {
		expires: 10 * minutes, replies: []string{"full", "full"}, want: []span{exactly(10 * minutes)}, end: Expired,
	},
	"a transaction at the end keeps its outcome": {
		expires: 10 * minutes, replies: []string{"full", "ok"}, want: []span{exactly(10 * minutes)}, end: Delivered,
	},
	"also a refusal": {
		expires: 10 * minutes, replies: []string{"full", "unknown"}, want: []span{exactly(10 * minutes)}, end: Bounced,
	},
	// sandbox.time_scale divides all of it.
	"a faster clock": {
		scale: 60, replies: []string{"full", "rate", "in 10 min", "grey", "moon"},
		want: []span{
			jittered(20 * time.Second), jittered(1 * time.Second), exactly(10 * time.Second),
			{5 * time.Second, 15 * time.Second},
			exactly(20 * time.Second),
		},
	},
}

func TestDecide(t *testing.T) {
	for name, story := range stories {
		t.Run(name, func(t *testing.T) { story.tell(t) })
	}
}

func (a attempts) tell(t *testing.T) {
	arrival := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if a.expires == 0 {
		a.expires = MaxValidity
	}
	m := &Message{ID: MessageID{Handover: 7, Domain: 3, Order: 41}, Arrival: arrival, Expires: arrival.Add(a.expires)}
	now := arrival
	for i, line := range a.replies {
		reply := said(line)
		v := bounce.Default().Qualify(bounce.Input{Reply: reply, Domain: "a.example"})
		d := Schedule{Scale: a.scale}.Decide(m, a.class, v, reply, "s1", now)
		if d.State.Attempts != i+1 || d.State.LastReply != reply {
			t.Errorf("reply %d leaves %d attempts and %v", i+1, d.State.Attempts, d.State.LastReply)
		}
		if i >= len(a.want) {
			if d.Outcome != a.end || !d.Next.IsZero() {
				t.Errorf("the end is %v, next %v, want %v", d.Outcome, d.Next, a.end)
			}
			return
		}
		if wait := d.Next.Sub(now); d.Outcome != Deferred || !a.want[i].holds(wait) {
			t.Fatalf("reply %d, %s: outcome %v after %v, want %v", i+1, line, d.Outcome, wait, a.want[i])
		}
		if pinned := d.State.Source == "s1"; pinned != (v.Disposition == bounce.RetrySoon || v.Code == bounce.CodeMailBlock || v.Code == bounce.CodeSpamBlock) {
			t.Errorf("reply %d, %s: the next attempt is bound to source %q", i+1, line, d.State.Source)
		}
		m.State, now = d.State, d.Next
	}
	if a.end != 0 {
		t.Errorf("deferred, want %v", a.end)
	}
}

// The jitter spreads messages evenly, and is the same when asked again.
func TestJitterSpreads(t *testing.T) {
	var tenths [10]int
	const n = 10000
	for i := range n {
		id := MessageID{Handover: 1, Domain: 1, Order: uint64(i)}
		h := jitter(id, 1)
		if h != jitter(id, 1) {
			t.Fatal("another jitter for the same attempt")
		}
		if h < 0 || h >= 1 {
			t.Fatalf("jitter %v", h)
		}
		tenths[int(h*10)]++
	}
	for i, count := range tenths {
		if count < n/10*8/10 || count > n/10*12/10 {
			t.Errorf("%d of %d lie in tenth %d", count, n, i)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	b.ReportAllocs()
	now := time.Now()
	m := &Message{ID: MessageID{Handover: 1, Domain: 2, Order: 3}, Expires: now.Add(MaxValidity)}
	reply := said("full")
	v := bounce.Default().Qualify(bounce.Input{Reply: reply})
	for b.Loop() {
		Schedule{}.Decide(m, dispatch.Bulk, v, reply, "s1", now)
	}
}
