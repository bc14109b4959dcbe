package simulate

// event is something that happens at an instant. It is small and holds no pointer,
// so that the queue is quick and costs the collector nothing.
type event struct {
	at   int64  // Unix nanoseconds
	seq  uint64 // order among equal instants: first planned, first to happen
	kind eventKind
	a    uint32 // the session, run, hand-over or domain it is about
	b    uint32 // more of it
}

type eventKind uint8

const (
	evArrival  eventKind = iota + 1 // mail of a hand-over arrives
	evExpire                        // a hand-over's validity ends
	evResolved                      // a look-up ends
	evLoaded                        // a load ends
	evWritten                       // a durable write ends
	evCalled                        // a connection reaches the receiver
	evOpened                        // a session is ready, or has failed
	evEnvelope                      // an envelope reaches the receiver
	evContent                       // a final dot reaches the receiver
	evReplied                       // a transaction's reply arrives
	evClosed                        // a session has ended
)

// queue is a heap of events with four children to a node: half as deep as a binary
// one, and its children share a cache line or two.
type queue struct {
	items []event
	seq   uint64
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

func (q *queue) add(at int64, kind eventKind, a, b uint32) {
	q.seq++
	e := event{at: at, seq: q.seq, kind: kind, a: a, b: b}
	q.items = append(q.items, e)
	i := len(q.items) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&q.items[parent]) {
			break
		}
		q.items[i] = q.items[parent]
		i = parent
	}
	q.items[i] = e
}

// next is the earliest event's instant, or never.
func (q *queue) next() int64 {
	if len(q.items) == 0 {
		return never
	}
	return q.items[0].at
}

// pop takes the earliest event out; there must be one.
func (q *queue) pop() event {
	first := q.items[0]
	last := len(q.items) - 1
	e := q.items[last]
	q.items = q.items[:last]
	if last > 0 {
		q.sink(e)
	}
	return first
}

// sink puts e in the place of the root and lets it find its own.
func (q *queue) sink(e event) {
	i, n := 0, len(q.items)
	for {
		child := 4*i + 1
		if child >= n {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, n); c++ {
			if q.items[c].before(&q.items[least]) {
				least = c
			}
		}
		if !q.items[least].before(&e) {
			break
		}
		q.items[i] = q.items[least]
		i = least
	}
	q.items[i] = e
}
