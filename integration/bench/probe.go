//go:build linux

package main

import (
	"context"
	"time"
)

// probeEvery is how often a single message is sent while the load is on: what it waits
// is the latency of mail in a hurry.
const probeEvery = 200 * time.Millisecond

// probes are messages behind those of the load.
type probes struct {
	acked []int64 // when each was accepted for sending, Unix nanoseconds
	err   error
	quit  chan struct{}
	done  chan struct{}
}

// startProbes has message first, first+1 and so on sent, one at a time, until stop.
func startProbes(ctx context.Context, first int, send func(ctx context.Context, i int) error) *probes {
	p := &probes{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		ticker := time.NewTicker(probeEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-p.quit:
				return
			}
			if p.err = send(ctx, first+len(p.acked)); p.err != nil {
				return
			}
			p.acked = append(p.acked, time.Now().UnixNano())
		}
	}()
	return p
}

// stop ends the probing. Only then may acked be read.
func (p *probes) stop() error {
	close(p.quit)
	<-p.done
	return p.err
}
