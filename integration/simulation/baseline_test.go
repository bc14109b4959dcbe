package simulation

import (
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// The baselines are other products' ways of following what receivers answer, as far
// as their documents publish them. They start from the same rules and keep the same
// bounds as ours: a Governor enforces both. What is theirs is what they do at a reply.

// baseline is one of them.
type baseline struct {
	name string
	make func(mxrules.Timings) mxrules.Learner
}

var baselines = []baseline{
	{"fixed table", func(mxrules.Timings) mxrules.Learner { return newUnmoved() }},
	{"threshold rules", func(mxrules.Timings) mxrules.Learner { return &penalties{unmoved: *newUnmoved()} }},
	{"hourly steps", hourlySteps},
	{"concurrency", func(mxrules.Timings) mxrules.Learner { return newConcurrency() }},
}

// unmoved is a fixed provider table: it does what its rule says, whatever is
// answered. It is the ground that the others stand on.
type unmoved struct{ pace mxrules.Pace }

const baselineNever = time.Duration(1 << 60)

func newUnmoved() *unmoved { return &unmoved{mxrules.Pace{Next: baselineNever}} }

func (u *unmoved) Note(time.Duration, mxrules.Event)       {}
func (u *unmoved) Refused(time.Duration, mxrules.Evidence) {}
func (u *unmoved) Advance(time.Duration)                   {}
func (u *unmoved) Pace() *mxrules.Pace                     { return &u.pace }
func (u *unmoved) Bound(time.Duration, mxrules.Limits)     {}
func (u *unmoved) Memory(time.Duration) (m mxrules.Memory) { return m }
func (u *unmoved) Recall(time.Duration, mxrules.Memory)    {}
func (u *unmoved) set(change func(p *mxrules.Pace))        { change(&u.pace); u.pace.Changes++ }

// hourlySteps is Momentum's adaptive delivery. Its adjustments are at least 60 s
// apart (adaptive_adjustment_interval) and go up one step in 3600 s
// (adaptive_positive_adjustment_interval); its rules suspend for 15 to 30 minutes on
// soft signs and for hours on named ones (adaptive_default_suspension: 4 hours).
// https://support.sparkpost.com/momentum/4/modules/4-adaptive
func hourlySteps(t mxrules.Timings) mxrules.Learner {
	t.Adjust, t.Recover, t.RestFirst, t.RestMax = time.Minute, time.Hour, 30*time.Minute, 4*time.Hour
	return mxrules.NewStatic(t)
}

// penalties are KumoMTA's traffic shaping automation with the rules that it ships:
// five phrases lead to one connection and one message a minute for 90 minutes, the
// TSS04 and TS04 codes of Yahoo suspend for two hours, and 100 connections that fail
// in a row delay the queue by its retry interval of 20 minutes.
// https://github.com/KumoCorp/kumomta/blob/main/assets/policy-extras/shaping.toml
// https://docs.kumomta.com/reference/kumo/make_egress_path/consecutive_connection_failures_before_delay
type penalties struct {
	unmoved
	until  time.Duration // of the throttle
	failed int
}

const (
	throttleFor    = 90 * time.Minute
	suspendFor     = 2 * time.Hour
	failuresInARow = 100
	delayAfterThem = 20 * time.Minute
)

var throttlePhrases = []string{
	"temporarily deferred", "will be permanently deferred", "has been temporarily rate limited due to IP reputation",
	"weren't sent", "Server busy. Please try again later from",
}

func (p *penalties) Note(_ time.Duration, e mxrules.Event) {
	if e.Kind == mxrules.EventReady {
		p.failed = 0
	}
}

func (p *penalties) Refused(at time.Duration, e mxrules.Evidence) {
	if e.Connection {
		if p.failed++; p.failed >= failuresInARow {
			p.failed = 0
			p.suspend(at, delayAfterThem)
		}
	}
	switch {
	case strings.Contains(e.Text, "[TSS04]"), strings.Contains(e.Text, "[TS04]"):
		p.suspend(at, suspendFor)
	case containsAny(e.Text, throttlePhrases):
		p.until = at + throttleFor
		p.set(func(pace *mxrules.Pace) {
			pace.Connections, pace.MessageRate, pace.Next = 1, mxrules.Rate{Count: 1, Per: time.Minute}, p.until
		})
	}
}

func (p *penalties) suspend(at, length time.Duration) {
	p.set(func(pace *mxrules.Pace) {
		if at >= pace.RestUntil {
			pace.RestSince = at
		}
		pace.RestUntil = max(pace.RestUntil, at+length)
	})
}

func (p *penalties) Advance(at time.Duration) {
	if at >= p.until {
		p.set(func(pace *mxrules.Pace) {
			pace.Connections, pace.MessageRate, pace.Next = 0, mxrules.Rate{}, baselineNever
		})
	}
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// concurrency is Postfix's scheduler: a window of concurrent deliveries that begins
// with 5, grows by 1 with each delivery and shrinks by 1 with each failure of a
// connection or handshake; a cohort of failures makes the destination dead for the
// minimal back-off of 300 s. Replies to MAIL and later are the message's own.
// https://www.postfix.org/SCHEDULER_README.html, https://www.postfix.org/postconf.5.html
// (default_initial_destination_concurrency, default_destination_concurrency_limit,
// ..._positive_feedback, ..._negative_feedback, ..._failed_cohort_limit,
// minimal_backoff_time)
type concurrency struct {
	unmoved
	window, cohorts float64
}

const (
	initialWindow  = 5
	largestWindow  = 20
	minimalBackoff = 300 * time.Second
)

func newConcurrency() *concurrency {
	c := &concurrency{unmoved: *newUnmoved(), window: initialWindow}
	c.pace.Connections = initialWindow
	return c
}

func (c *concurrency) Note(_ time.Duration, e mxrules.Event) {
	if e.Kind != mxrules.EventServed {
		return
	}
	c.cohorts = 0
	c.resize(1)
}

func (c *concurrency) resize(by float64) {
	c.window = min(max(c.window+by, 1), largestWindow)
	if n := int(c.window); n != c.pace.Connections {
		c.set(func(p *mxrules.Pace) { p.Connections = n })
	}
}

func (c *concurrency) Refused(at time.Duration, e mxrules.Evidence) {
	if !e.Connection {
		return
	}
	c.cohorts += 1 / c.window
	c.resize(-1)
	if c.cohorts >= 1 {
		c.cohorts = 0
		c.window = initialWindow
		c.set(func(p *mxrules.Pace) { p.RestSince, p.RestUntil = at, at+minimalBackoff })
	}
}
