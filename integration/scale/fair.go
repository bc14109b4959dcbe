package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// fairness sends transactional mail to a destination of its own and to those of the
// bulk mail, and a later delivery of 1000; the answer waits for all and takes the times.
func (r *rig) fairness(ctx context.Context) func() error {
	if !r.sc.Fair {
		return func() error { return nil }
	}
	var group sync.WaitGroup
	var mails []time.Duration
	var errs [2]error
	group.Go(func() { mails, errs[0] = r.transactional(ctx) })
	group.Go(func() { r.res.Later, errs[1] = r.later(ctx) })
	return func() error {
		group.Wait()
		r.res.Transactional = latenciesOf(mails)
		if errs[0] != nil {
			return errs[0]
		}
		return errs[1]
	}
}

// transactional sends a message every 100 ms; each is for one of ten destinations of
// its own.
func (r *rig) transactional(ctx context.Context) (took []time.Duration, err error) {
	const every = 100 * time.Millisecond
	sent := map[string]time.Time{}
	for i := range int(r.sc.For / every) {
		local := fmt.Sprintf("t%d", i)
		sent[local] = time.Now()
		_, err := r.campaigns().SendMessage(ctx, &veredusv1.SendMessageRequest{
			Sender: &veredusv1.Sender{From: "shop@brand.example"}, Content: &veredusv1.Content{Subject: "Your order", Text: "Thank you."},
			Recipient: &veredusv1.Recipient{Address: fmt.Sprintf("%s@t%d.test", local, i%10)}, RequestId: local,
		})
		if err != nil {
			return nil, err
		}
		pause(ctx, every)
	}
	pause(ctx, 5*time.Second)
	for local, at := range sent {
		taken, ok := r.sink.at(local)
		if !ok {
			taken = time.Now()
			logf("%s has not arrived", local)
		}
		took = append(took, taken.Sub(at))
	}
	return took, nil
}

// later starts a delivery of 1000 to the domains of the first destinations and waits
// for its end.
func (r *rig) later(ctx context.Context) (float64, error) {
	const n = 1000
	err := r.upload(ctx, "later", n, func(i int) string { return fmt.Sprintf("l%d@r%d.test", i, i%max(1, min(r.sc.Domains, n))) })
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := r.startDelivery(ctx, "later"); err != nil {
		return 0, err
	}
	for time.Since(begin) < 5*time.Minute && ctx.Err() == nil {
		arrived := 0
		for i := range n {
			if _, ok := r.sink.at(fmt.Sprintf("l%d", i)); ok {
				arrived++
			}
		}
		if arrived == n {
			logf("the later delivery took %.1f s", time.Since(begin).Seconds())
			return time.Since(begin).Seconds(), nil
		}
		pause(ctx, 50*time.Millisecond)
	}
	return time.Since(begin).Seconds(), fmt.Errorf("the later delivery did not end")
}
