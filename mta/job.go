package mta

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

// job is a message given to a session, from the core's word to its end or its return.
type job struct {
	h     *held
	s     *session
	stage atomic.Uint32
	mail  mail
	err   error // why it could not be prepared
	wire  smtpc.Mail
	began time.Time
}

// Stages of a job. Whoever takes it out of a stage decides what becomes of it, so that
// it is either carried or given back: the pool prepares it, the session begins it just
// before it says MAIL, and carries it from where the connection is its own. Until then
// the owner may have it back, also when its envelope is on the wire behind another's
// content: then the session ends with that one, as it cannot unsay an envelope.
const (
	jobGiven = iota
	jobPreparing
	jobPrepared
	jobBegun
	jobCarried
	jobRecalled
)

func (j *job) move(from, to uint32) bool { return j.stage.CompareAndSwap(from, to) }

// recall keeps a job from being carried. from is the stage it was in: jobCarried when it
// is too late, jobRecalled when it was recalled before; from jobPreparing the pool gives
// it back, else the caller does.
func (j *job) recall() (from uint32) {
	for {
		stage := j.stage.Load()
		if stage == jobCarried || stage == jobRecalled || j.move(stage, jobRecalled) {
			return stage
		}
	}
}

// maxReturns is how often in a row a message may be lost at its own MAIL, and go again
// at once, before that counts as an attempt: it may be what servers do not bear.
const maxReturns = 3

// mayReturn reports whether a message that was lost is not tried. One that another's
// failure took with it always is so.
func (j *job) mayReturn(res *smtpc.Result) bool {
	return res.Reply.Phase == smtpc.PhaseQuit || j.h.returns < maxReturns
}

// lane is what a session was given, in order: it begins each when it is prepared, and
// none before the one ahead of it. Its length is bounded by the credit.
type lane struct {
	mu     sync.Mutex
	jobs   []*job
	closed bool
	ready  chan struct{} // capacity 1: there may be something new
}

func newLane() *lane { return &lane{ready: make(chan struct{}, 1)} }

func (l *lane) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *lane) add(j *job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs = append(l.jobs, j)
}

// take answers the next job if it is prepared; nil with last when there will be none.
func (l *lane) take() (j *job, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.jobs) > 0 {
		j = l.jobs[0]
		stage := j.stage.Load()
		if stage < jobPrepared {
			return nil, false
		}
		n := copy(l.jobs, l.jobs[1:])
		l.jobs[n] = nil
		l.jobs = l.jobs[:n]
		if stage == jobPrepared {
			return j, false
		}
	}
	return nil, l.closed
}

func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
}
