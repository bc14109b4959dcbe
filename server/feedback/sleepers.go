package feedback

import (
	"context"
	"sync"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// sleepers are the streams with a filter that have seen all there is. One goroutine looks
// through what is new for all of them and wakes those that have something to read, so
// that a stream costs nothing while nothing happens that it waits for.
type sleepers struct {
	log Log

	mu     sync.Mutex
	passed Positions // all before was looked through
	stop   func()    // ends the goroutine; nil when there is none
	open   int

	// Each stream is found by the values of one field of its filter.
	byRecipientID, byDelivery, byDestination, byTenant index[string]
	byType                                             index[veredusv1.FeedbackType]
}

// sleeper is one stream.
type sleeper struct {
	filter filter
	woken  chan struct{} // capacity 1
	// Of sleepers.mu:
	asleep bool
	at     Positions // nothing before matches that the stream has not seen
}

// index finds streams by a value.
type index[K comparable] map[K]map[*sleeper]struct{}

func (x index[K]) add(values map[K]bool, z *sleeper) {
	for v := range values {
		if x[v] == nil {
			x[v] = map[*sleeper]struct{}{}
		}
		x[v][z] = struct{}{}
	}
}

func (x index[K]) remove(values map[K]bool, z *sleeper) {
	for v := range values {
		if delete(x[v], z); len(x[v]) == 0 {
			delete(x, v)
		}
	}
}

func newSleepers(log Log) *sleepers {
	return &sleepers{
		log: log, byRecipientID: index[string]{}, byDelivery: index[string]{}, byDestination: index[string]{},
		byTenant: index[string]{}, byType: index[veredusv1.FeedbackType]{},
	}
}

// enter takes a stream in; leave must follow.
func (s *sleepers) enter(f filter) *sleeper {
	z := &sleeper{filter: f, woken: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file(z, true)
	if s.open++; s.open == 1 {
		var ctx context.Context
		ctx, s.stop = context.WithCancel(context.Background())
		_, s.passed = s.log.Ends()
		go s.look(ctx, s.passed)
	}
	return z
}

func (s *sleepers) leave(z *sleeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file(z, false)
	if s.open--; s.open == 0 {
		s.stop()
	}
}

// file adds a stream to the index of the field that tells most, or removes it.
func (s *sleepers) file(z *sleeper, add bool) {
	f := z.filter
	switch {
	case f.recipientIDs != nil:
		s.byRecipientID.file(f.recipientIDs, z, add)
	case f.deliveries != nil:
		s.byDelivery.file(f.deliveries, z, add)
	case f.destinations != nil:
		s.byDestination.file(f.destinations, z, add)
	case f.tenants != nil && (f.types == nil || f.types[veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED]): // most events are of that type
		s.byTenant.file(f.tenants, z, add)
	default:
		s.byType.file(f.types, z, add)
	}
}

func (x index[K]) file(values map[K]bool, z *sleeper, add bool) {
	if add {
		x.add(values, z)
		return
	}
	x.remove(values, z)
}

// sleep returns a channel that is readable once there may be something to read for a
// stream that has seen all before at.
func (s *sleepers) sleep(z *sleeper, at Positions) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	z.at, z.asleep = at, true
	if at.behind(s.passed) {
		z.rouse(at)
	}
	return z.woken
}

// rise ends the sleep and answers from where to read.
func (s *sleepers) rise(z *sleeper) Positions {
	s.mu.Lock()
	defer s.mu.Unlock()
	if z.asleep {
		z.at, z.asleep = furthest(z.at, s.passed), false
	}
	select {
	case <-z.woken:
	default:
	}
	return z.at
}

// rouse wakes a stream for what lies behind from.
func (z *sleeper) rouse(from Positions) {
	if z.asleep {
		z.at, z.asleep = furthest(z.at, from), false
		select {
		case z.woken <- struct{}{}:
		default: // told already
		}
	}
}

// look looks through the log from a position on until ctx ends.
func (s *sleepers) look(ctx context.Context, at Positions) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.log.Grown(at):
		}
		records, next, err := s.log.Records(ctx, at, answerSize)
		if err != nil { // whoever reads for himself will see the same, or go on
			_, next = s.log.Ends()
		}
		if !s.pass(ctx, at, next, records, err) {
			return
		}
		at = next
	}
}

// pass wakes the streams that records of [from, next) match, or all if they could not be
// read; false when ctx has ended.
func (s *sleepers) pass(ctx context.Context, from, next Positions, records []Record, failed error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	for i := range records {
		s.wake(&records[i], from)
	}
	if failed != nil {
		s.wakeAll()
	}
	s.passed = next
	return true
}

// wake wakes the streams that a record matches.
func (s *sleepers) wake(r *Record, from Positions) {
	for _, found := range [...]map[*sleeper]struct{}{
		s.byRecipientID[r.RecipientID], s.byDelivery[r.Delivery], s.byDestination[r.Destination], s.byTenant[r.Tenant], s.byType[r.Type],
	} {
		for z := range found {
			if z.asleep && z.filter.matches(r) {
				z.rouse(from)
			}
		}
	}
}

// wakeAll wakes every stream where it is.
func (s *sleepers) wakeAll() {
	for _, x := range [...]index[string]{s.byRecipientID, s.byDelivery, s.byDestination, s.byTenant} {
		x.wakeAll()
	}
	s.byType.wakeAll()
}

func (x index[K]) wakeAll() {
	for _, found := range x {
		for z := range found {
			z.rouse(z.at)
		}
	}
}
