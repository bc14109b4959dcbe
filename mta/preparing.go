package mta

import (
	"runtime"
	"sync"

	"github.com/veredus/veredus/mta/dispatch"
)

// preparing renders and signs what sessions were given, on as many goroutines as
// there are cores: a session finds its next message ready, and a thousand sessions do
// not run a thousand signatures at once. Its queue is as long as the sessions' credit.
type preparing struct {
	relay   *Relay
	running sync.WaitGroup

	mu     sync.Mutex
	some   *sync.Cond
	queues [2][]*job // by class
	closed bool
}

func newPreparing(r *Relay) *preparing {
	p := &preparing{relay: r}
	p.some = sync.NewCond(&p.mu)
	return p
}

func (p *preparing) start() {
	for range runtime.GOMAXPROCS(0) {
		p.running.Go(p.run)
	}
}

// add takes a job. It never blocks.
func (p *preparing) add(j *job) {
	class := j.h.run.ho.Class
	p.mu.Lock()
	p.queues[class] = append(p.queues[class], j)
	p.mu.Unlock()
	p.some.Signal()
}

// close ends the pool behind what it has, and waits for that.
func (p *preparing) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.some.Broadcast()
	p.running.Wait()
}

// next waits for a job, transactional ones first; nil when the pool ends.
func (p *preparing) next() *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for _, class := range [...]dispatch.Class{dispatch.Transactional, dispatch.Bulk} {
			if q := p.queues[class]; len(q) > 0 {
				j := q[0]
				q[0] = nil
				p.queues[class] = q[1:]
				return j
			}
		}
		if p.closed {
			return nil
		}
		p.some.Wait()
	}
}

func (p *preparing) run() {
	for j := p.next(); j != nil; j = p.next() {
		if !j.move(jobGiven, jobPreparing) {
			continue // the owner has it back
		}
		j.mail, j.err = p.relay.prepare(j.h)
		j.wire.Envelope, j.wire.Content = j.mail.envelope, j.mail.bytes
		if !j.move(jobPreparing, jobPrepared) {
			p.relay.untried(j, true)
		}
		j.s.lane.signal()
	}
}
