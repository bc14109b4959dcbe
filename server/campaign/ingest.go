package campaign

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
)

// How recipients come in.
//
// Each stream has two goroutines. The reader takes frames, checks every recipient and
// queues chunks, as far as the window allows. The handler takes what waits in the
// queue, stores it in one write, and acknowledges chunk by chunk. While one
// write is on its way to the disk the next chunks gather, so a stream keeps up with a
// slow disk though its writes follow each other, which keeps the order.
//
// A stream holds its delivery's gate during each write. A second stream closes the
// first one's superseded channel and then passes the gate once, so that no write of
// the first can follow the durable index that the second one is told.

const (
	maxChunk       = 1000     // recipients in a frame
	maxChunkBytes  = 3 << 20  // octets of a frame's recipients
	windowChunks   = 8        // chunks queued for a stream
	maxStreamBytes = 8 << 20  // octets of a stream's recipients that are not durable
	maxIngestBytes = 64 << 20 // the same of all streams, unless Options say otherwise
	maxMerged      = 4        // chunks in one write
	overloadedFor  = 5 * time.Second

	// ackPatience is how long a client may leave an acknowledgement unread: its stream holds
	// room that others wait for. roomPatience is how long they wait, a little more.
	ackPatience  = 10 * time.Second
	roomPatience = 15 * time.Second
)

// ingest is one stream of recipients.
type ingest struct {
	s        *Service
	delivery string
	mail     address.Query // about the delivery's mail, for any address
	stream   veredusv1.CampaignService_AddRecipientsServer

	superseded chan struct{} // closed when another stream begins

	chunks chan *chunk         // from the reader; closed at its end
	room   *semaphore.Weighted // of this stream
	next   int64               // index expected next; the reader's
	err    error               // why the reader ended; nil at the client's end; set before chunks is closed
}

// chunk is one frame, checked.
type chunk struct {
	items    []Item
	rejected []*veredusv1.RejectedRecipient
	bytes    int64
}

// AddRecipients adds recipients.
func (s *Service) AddRecipients(stream veredusv1.CampaignService_AddRecipientsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return unlessEOF(err)
	}
	d, err := s.opening(stream.Context(), first)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	id := d.ID
	in := &ingest{
		s: s, delivery: id, mail: d.query(), stream: stream,
		superseded: make(chan struct{}),
		chunks:     make(chan *chunk, windowChunks), room: semaphore.NewWeighted(maxStreamBytes),
	}
	if err := s.begin(ctx, in); err != nil {
		return err
	}
	defer s.end(in)
	durable, err := s.o.Recipients.DurableIndex(ctx, id)
	if err != nil {
		return named(err, deliveryName(id))
	}
	if err := stream.Send(&veredusv1.AddRecipientsResponse{DurableIndex: durable}); err != nil {
		return err
	}
	in.next = durable + 1
	go in.read(ctx)
	err = in.write(ctx, durable)
	go in.discard()
	return err
}

func unlessEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// opening checks a stream's first frame and the delivery that it names.
func (s *Service) opening(ctx context.Context, first *veredusv1.AddRecipientsRequest) (*Delivery, error) {
	v := violations{}
	id := v.delivery("delivery", first.GetDelivery())
	if len(first.GetRecipients()) > 0 {
		v.add("recipients", "", "stand in the first frame", "send a first frame with only the delivery, and wait for the durable index")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	select {
	case <-s.o.Stopping:
		return nil, ErrStopping
	default:
	}
	d, err := s.get(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := d.after(CallEdit); err != nil {
		return nil, &StateError{Delivery: id, State: d.State, Call: "add recipients"}
	}
	return d, nil
}

// begin makes the stream the delivery's only one: it ends the one before and waits until
// that has no write under way.
func (s *Service) begin(ctx context.Context, in *ingest) error {
	s.mu.Lock()
	before := s.streams[in.delivery]
	s.streams[in.delivery] = in
	if before != nil {
		close(before.superseded)
	}
	s.mu.Unlock()
	pass, err := s.gates.take(ctx, in.delivery)
	if err != nil {
		s.end(in)
		return err
	}
	pass()
	return nil
}

// end forgets the stream, unless another took its place.
func (s *Service) end(in *ingest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[in.delivery] == in {
		delete(s.streams, in.delivery)
	}
}

// read takes frames until the client, a fault or the handler ends it.
func (in *ingest) read(ctx context.Context) {
	defer close(in.chunks)
	for {
		frame, err := in.stream.Recv()
		if err != nil {
			in.err = unlessEOF(err)
			return
		}
		c, err := in.check(frame)
		if err != nil {
			in.err = err
			return
		}
		if in.err = in.admit(ctx, c); in.err != nil {
			return
		}
		select {
		case in.chunks <- c:
		case <-ctx.Done():
			in.release(c)
			in.err = ctx.Err()
			return
		}
	}
}

// admit waits until the chunk fits what this stream may hold, as long as that takes, and
// then what all may, for a time: the client is slowed down first, and refused when that does not help.
func (in *ingest) admit(ctx context.Context, c *chunk) error {
	if err := in.room.Acquire(ctx, c.bytes); err != nil {
		return err
	}
	most := in.s.o.IngestBytes
	patient, cancel := context.WithTimeoutCause(ctx, roomPatience, &OverloadedError{
		What: "octets of recipients that are not durable yet", Limit: fmt.Sprint(most), Field: "grpc.max_ingest_bytes",
		Remedy: "upload less at a time, or give the node a faster disk", RetryAfter: overloadedFor,
	})
	defer cancel()
	if in.s.room.Acquire(patient, c.bytes) != nil {
		in.room.Release(c.bytes)
		return context.Cause(patient)
	}
	return nil
}

func (in *ingest) release(c *chunk) {
	in.room.Release(c.bytes)
	in.s.room.Release(c.bytes)
}

// discard gives back the room of chunks that are not written any more. It ends with
// the reader, which waits for a frame until the handler has returned.
func (in *ingest) discard() {
	for c := range in.chunks {
		in.release(c)
	}
}

// write stores chunks in their order and acknowledges them.
func (in *ingest) write(ctx context.Context, durable int64) error {
	for {
		select {
		case c, open := <-in.chunks:
			if !open {
				return in.err
			}
			var err error
			if durable, err = in.store(ctx, durable, in.gather(c)); err != nil {
				return err
			}
		case <-in.superseded:
			return ErrSuperseded
		case <-in.s.o.Stopping:
			return ErrStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gather adds to a chunk what else waits.
func (in *ingest) gather(c *chunk) []*chunk {
	list := []*chunk{c}
	for len(list) < maxMerged {
		select {
		case next, open := <-in.chunks:
			if !open {
				return list // the next receive finds it closed too
			}
			list = append(list, next)
		default:
			return list
		}
	}
	return list
}

// store writes chunks and acknowledges each. Unless err is set all of them are durable.
func (in *ingest) store(ctx context.Context, durable int64, list []*chunk) (int64, error) {
	added, err := in.add(ctx, durable, list)
	for _, c := range list {
		in.release(c)
	}
	if err != nil {
		return durable, err
	}
	for i, ack := range acks(list, durable, added) {
		if in.s.o.Ingested != nil && len(list[i].items) > 0 {
			in.s.o.Ingested(Ingested{Accepted: ack.Accepted, Ignored: ack.Ignored, Rejected: int64(len(ack.Rejected))})
		}
		if err := in.send(ack); err != nil {
			return added.DurableIndex, err
		}
	}
	return added.DurableIndex, nil
}

// send acknowledges. A client that leaves acknowledgements unread has its stream ended, and may
// begin another: what is durable stays.
func (in *ingest) send(ack *veredusv1.AddRecipientsResponse) error {
	sent := make(chan error, 1)
	go func() { sent <- in.stream.Send(ack) }() // ends at the latest with the stream
	patience := time.NewTimer(ackPatience)
	defer patience.Stop()
	select {
	case err := <-sent:
		return err
	case <-patience.C:
		return &OverloadedError{
			What:   fmt.Sprintf("acknowledgements left unread for %v", ackPatience),
			Remedy: "and read them while you send", RetryAfter: overloadedFor,
		}
	case <-in.superseded:
		return ErrSuperseded
	}
}

// add makes one write of the chunks' items, unless the stream was superseded.
func (in *ingest) add(ctx context.Context, durable int64, list []*chunk) (Added, error) {
	items := list[0].items
	if len(list) > 1 {
		n := 0
		for _, c := range list {
			n += len(c.items)
		}
		items = make([]Item, 0, n)
		for _, c := range list {
			items = append(items, c.items...)
		}
	}
	if len(items) == 0 {
		return Added{DurableIndex: durable}, nil
	}
	if err := in.s.exclude(ctx, in.mail, items); err != nil {
		return Added{}, err
	}
	pass, err := in.s.gates.take(ctx, in.delivery)
	if err != nil {
		return Added{}, err
	}
	defer pass()
	select {
	case <-in.superseded:
		return Added{}, ErrSuperseded
	default:
	}
	added, err := in.s.o.Recipients.Add(ctx, in.delivery, items)
	return added, named(err, deliveryName(in.delivery))
}

// acks are the answers to chunks that became durable together.
func acks(list []*chunk, durable int64, added Added) []*veredusv1.AddRecipientsResponse {
	answers := make([]*veredusv1.AddRecipientsResponse, len(list))
	ignored := slices.Clone(added.IgnoredIndexes)
	left := added.Ignored
	for i, c := range list {
		if n := len(c.items); n > 0 {
			durable = c.items[n-1].Index
		}
		a := &veredusv1.AddRecipientsResponse{DurableIndex: durable, Rejected: c.rejected, Accepted: int64(len(c.items) - len(c.rejected))}
		for len(ignored) > 0 && ignored[0] <= durable {
			a.Ignored, ignored = a.Ignored+1, ignored[1:]
		}
		left -= a.Ignored
		answers[i] = a
	}
	answers[len(answers)-1].Ignored += left // a driver that does not tell which
	return answers
}

// check makes a chunk of a frame: items that were sent before are left out, malformed
// ones marked, and a gap is an error.
func (in *ingest) check(frame *veredusv1.AddRecipientsRequest) (*chunk, error) {
	c := &chunk{}
	list := frame.GetRecipients()
	for _, r := range list {
		c.bytes += size(r)
	}
	v := violations{}
	first := frame.GetFirstIndex()
	switch {
	case frame.GetDelivery() != "" && frame.GetDelivery() != deliveryName(in.delivery):
		v.add("delivery", frame.GetDelivery(), "is not this stream's", "open a stream for each delivery")
	case len(list) > maxChunk:
		v.add("recipients", "", fmt.Sprintf("has %d entries", len(list)), fmt.Sprintf("send at most %d in a frame", maxChunk))
	case c.bytes > maxChunkBytes:
		v.add("recipients", "", fmt.Sprintf("is %d octets together", c.bytes), fmt.Sprintf("send at most %d in a frame", maxChunkBytes))
	case first < 1 && len(list) > 0:
		v.add("first_index", fmt.Sprint(first), "is out of range", "number recipients from 1, without gaps")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return c, nil
	}
	if first > in.next {
		return nil, &IndexGapError{Expected: in.next, Got: first}
	}
	list = list[min(in.next-first, int64(len(list))):]
	c.items = make([]Item, len(list))
	for i, r := range list {
		item := &c.items[i]
		recipient(item, r)
		item.Index = in.next
		in.next++
		if item.Reject != nil {
			item.Reject.Index = item.Index
			c.rejected = append(c.rejected, item.Reject)
		}
	}
	return c, nil
}
