package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	// maxChunk is the most recipients in a chunk.
	maxChunk = 1000
	// maxChunkBytes ends a chunk early; a node takes 3 MiB.
	maxChunkBytes = 2 << 20
	// maxRecipientBytes is more than any recipient that a node could store.
	maxRecipientBytes = 1 << 20
	// maxWindowBytes bounds what is sent and not acknowledged.
	maxWindowBytes = 16 << 20
	// DefaultWindow is how many chunks go ahead of their acknowledgement.
	DefaultWindow = 8
	// DefaultPatience is how long an Uploader tries without progress.
	DefaultPatience = 5 * time.Minute
)

// Source yields the recipients of a delivery in their fixed order, beginning with
// the one of index first; the first recipient of a delivery has index 1. An
// Uploader asks once, and again only if the node is not where it was left; the
// recipients must then be the same. An error it yields ends the upload.
type Source func(first int64) iter.Seq2[*veredusv1.Recipient, error]

// Slice is a Source of recipients in memory.
func Slice(recipients []*veredusv1.Recipient) Source {
	return func(first int64) iter.Seq2[*veredusv1.Recipient, error] {
		return func(yield func(*veredusv1.Recipient, error) bool) {
			for i := first - 1; i < int64(len(recipients)); i++ {
				if !yield(recipients[i], nil) {
					return
				}
			}
		}
	}
}

// Uploader adds recipients to a delivery over a stream that may break: it connects
// again and goes on behind what is durable, so that every recipient is stored
// once. Memory is bounded by the window. One Uploader runs one Upload at a time.
type Uploader struct {
	// Client is the node.
	Client veredusv1.CampaignServiceClient
	// Delivery is `deliveries/{delivery}`, in state Draft.
	Delivery string
	// ChunkSize is how many recipients travel together, 1 to 1000; 0 means 1000.
	ChunkSize int
	// Window is how many chunks may wait for their acknowledgement; 0 means
	// DefaultWindow. At most 16 MiB wait in any case.
	Window int
	// Patience is how long to try without progress; 0 means DefaultPatience,
	// negative without end.
	Patience time.Duration
	// Progress, if set, is called after each acknowledgement, from one goroutine
	// at a time. While it runs, no acknowledgement is read.
	Progress func(Progress)
	// Rejected, if set, is called for each recipient that was refused as
	// malformed. A lost acknowledgement takes its items with it;
	// ListRejectedRecipients has them all.
	Rejected func(*veredusv1.RejectedRecipient)
	// Reconnect, if set, is called before each wait after a broken connection.
	Reconnect func(err error, wait time.Duration)
}

// Progress is how far an upload is.
type Progress struct {
	// Durable is the highest index that is stored for good.
	Durable int64
	// Resumed is the index that was durable before this upload.
	Resumed int64
}

// Totals are the counts of the whole delivery after an upload, as the node has
// them: also what earlier uploads added.
type Totals struct {
	// Durable is the highest index: accepted and rejected together.
	Durable int64
	// Accepted were taken in; Ignored of these are excluded (doubles, suppressed).
	Accepted, Ignored int64
	// Rejected were malformed.
	Rejected int64
}

// Upload sends every recipient of source that is not durable yet and returns once
// all are. It blocks meanwhile. When ctx ends it returns its cause; another Upload
// then goes on where this one ended. Errors of the node keep their gRPC status;
// one that another stream took over has the reason STREAM_SUPERSEDED.
func (u *Uploader) Upload(ctx context.Context, source Source) (Totals, error) {
	up := &upload{Uploader: u, source: source, resumed: -1, retry: retry{patience: u.Patience}}
	if u.Patience == 0 {
		up.retry.patience = DefaultPatience
	}
	defer up.closeSource()
	for {
		err := up.session(ctx)
		if err == nil {
			return up.totals(ctx)
		}
		if ctx.Err() != nil {
			return Totals{}, context.Cause(ctx)
		}
		var own *sourceError
		if errors.As(err, &own) {
			return Totals{}, own.error
		}
		if err := up.wait(ctx, err); err != nil {
			return Totals{}, err
		}
	}
}

// upload is one call of Upload.
type upload struct {
	*Uploader
	source Source
	retry  retry

	// The source, open behind index read; next is nil while it is closed.
	next func() (*veredusv1.Recipient, error, bool)
	stop func()
	read int64
	held *veredusv1.Recipient // of index read+1, which did not fit into the last chunk
	end  bool                 // the source has no more

	window []chunk // sent, and not known to be durable
	bytes  int     // of window

	durable atomic.Int64
	failed  int64 // what was durable at the last failure
	resumed int64 // what was durable at first; -1 before the first answer
}

// chunk is a frame with its last index and size.
type chunk struct {
	frame *veredusv1.AddRecipientsRequest
	last  int64
	bytes int
}

// sourceError is an error of the caller's source, not of the line.
type sourceError struct{ error }

// errEndedEarly is a stream that the node ended before all was durable.
var errEndedEarly = status.Error(codes.Unavailable, "the node ended the stream before every recipient was durable")

// wait sleeps before the next try, or says why there is none.
func (u *upload) wait(ctx context.Context, cause error) error {
	asked, ok := mayPass(cause)
	if !ok {
		return fmt.Errorf("adding recipients to %s: %w", u.Delivery, cause)
	}
	if durable := u.durable.Load(); durable > u.failed {
		u.failed = durable
		u.retry.worked()
	}
	wait, ok := u.retry.next(time.Now(), asked)
	if !ok {
		return fmt.Errorf("adding recipients to %s: no progress for %v: %w", u.Delivery, u.retry.patience, cause)
	}
	if u.Reconnect != nil {
		u.Reconnect(cause, wait)
	}
	return sleep(ctx, wait)
}

// stream is one connection of an upload. Its receiver is the only one to read from it.
type stream struct {
	veredusv1.CampaignService_AddRecipientsClient
	acked chan struct{} // has a value after an acknowledgement
	done  chan struct{} // closed after the last one
	err   error         // why it ended, nil for an orderly end; read after done
}

// session opens one stream and uses it until everything is durable (nil) or it breaks.
func (u *upload) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := u.open(ctx)
	if err != nil {
		return err
	}
	go u.receive(s)
	err = u.send(s)
	if err != nil {
		cancel()
	}
	<-s.done
	switch {
	case err != nil:
		return err
	case s.err != nil:
		return s.err
	case u.durable.Load() < u.read:
		return errEndedEarly
	}
	return nil
}

// open connects, names the delivery and hears what is durable.
func (u *upload) open(ctx context.Context) (*stream, error) {
	opened, err := u.Client.AddRecipients(ctx)
	if err != nil {
		return nil, err
	}
	// A failed Send says only io.EOF; Recv has the reason.
	if err := opened.Send(&veredusv1.AddRecipientsRequest{Delivery: u.Delivery}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	first, err := opened.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errEndedEarly
	case err != nil:
		return nil, err
	}
	u.begin(first.GetDurableIndex())
	return &stream{CampaignService_AddRecipientsClient: opened, acked: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

// begin takes the node's word on what is durable and arranges what is sent next.
func (u *upload) begin(durable int64) {
	u.durable.Store(durable)
	if u.resumed < 0 {
		u.resumed, u.failed, u.read = durable, durable, durable
	}
	u.drop()
	// What was read follows on what is durable, unless the node got recipients
	// from somebody else or was set back; then the source is asked anew.
	follows := u.read == durable
	if len(u.window) > 0 {
		follows = u.window[0].frame.GetFirstIndex() <= durable+1
	}
	if !follows {
		u.closeSource()
		u.window, u.bytes, u.read, u.end = nil, 0, durable, false
	}
	if u.Progress != nil {
		u.Progress(Progress{Durable: durable, Resumed: u.resumed})
	}
}

// drop forgets chunks that are durable.
func (u *upload) drop() {
	durable, n := u.durable.Load(), 0
	for n < len(u.window) && u.window[n].last <= durable {
		u.bytes -= u.window[n].bytes
		n++
	}
	if n > 0 {
		u.window = append([]chunk(nil), u.window[n:]...)
	}
}

// send writes the window again, then new chunks as acknowledgements make room.
func (u *upload) send(s *stream) error {
	for _, c := range u.window {
		if err := s.write(c.frame); err != nil {
			return err
		}
	}
	for {
		if err := u.room(s); err != nil {
			return err
		}
		c, err := u.fill()
		if err != nil {
			return err
		}
		if len(c.frame.GetRecipients()) == 0 {
			return s.CloseSend()
		}
		u.window = append(u.window, c)
		u.bytes += c.bytes
		if err := s.write(c.frame); err != nil {
			return err
		}
	}
}

// write sends a frame; if the stream has ended it returns why.
func (s *stream) write(frame *veredusv1.AddRecipientsRequest) error {
	err := s.Send(frame)
	if !errors.Is(err, io.EOF) {
		return err
	}
	return s.ended()
}

// ended waits for the receiver and returns why the stream ended.
func (s *stream) ended() error {
	<-s.done
	if s.err == nil {
		return errEndedEarly
	}
	return s.err
}

// room waits until the window has some.
func (u *upload) room(s *stream) error {
	window := u.Window
	if window <= 0 {
		window = DefaultWindow
	}
	for {
		u.drop()
		if len(u.window) < window && u.bytes < maxWindowBytes {
			return nil
		}
		select {
		case <-s.done:
			return s.ended()
		case <-s.acked:
		}
	}
}

// receive reads acknowledgements until the stream ends.
func (u *upload) receive(s *stream) {
	defer close(s.done)
	for {
		ack, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.err = err
			return
		}
		durable := max(u.durable.Load(), ack.GetDurableIndex())
		u.durable.Store(durable)
		select {
		case s.acked <- struct{}{}:
		default:
		}
		if u.Rejected != nil {
			for _, r := range ack.GetRejected() {
				u.Rejected(r)
			}
		}
		if u.Progress != nil {
			u.Progress(Progress{Durable: durable, Resumed: u.resumed})
		}
	}
}

// fill reads the next chunk from the source; an empty one is the end.
func (u *upload) fill() (chunk, error) {
	size := u.ChunkSize
	if size <= 0 || size > maxChunk {
		size = maxChunk
	}
	c := chunk{frame: &veredusv1.AddRecipientsRequest{FirstIndex: u.read + 1}}
	for len(c.frame.GetRecipients()) < size {
		r, err := u.take()
		if err != nil {
			return c, &sourceError{err}
		}
		if r == nil {
			break
		}
		n := proto.Size(r) + frameOverhead
		if n > maxRecipientBytes {
			return c, &sourceError{fmt.Errorf("recipient %d (%.80s) has %d bytes; its variables may have 100 KB", u.read+1, r.GetAddress(), n)}
		}
		if c.bytes > 0 && c.bytes+n > maxChunkBytes {
			u.held = r
			break
		}
		c.frame.Recipients = append(c.frame.Recipients, r)
		c.bytes += n
		u.read++
	}
	c.last = u.read
	return c, nil
}

// frameOverhead is what the frame adds to a recipient: tag and length.
const frameOverhead = 6

// take returns the recipient behind index read, nil at the end.
func (u *upload) take() (*veredusv1.Recipient, error) {
	if r := u.held; r != nil {
		u.held = nil
		return r, nil
	}
	if u.end {
		return nil, nil
	}
	if u.next == nil {
		u.next, u.stop = iter.Pull2(u.source(u.read + 1))
	}
	r, err, ok := u.next()
	if !ok {
		u.end = true
		return nil, nil
	}
	if err == nil && r == nil {
		err = fmt.Errorf("the source gave no recipient for index %d", u.read+1)
	}
	return r, err
}

func (u *upload) closeSource() {
	if u.stop != nil {
		u.stop()
	}
	u.next, u.stop, u.held = nil, nil, nil
}

// totals asks the node, which alone knows them: acknowledgements may have been lost.
func (u *upload) totals(ctx context.Context) (Totals, error) {
	for {
		d, err := u.Client.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: u.Delivery})
		if err == nil {
			k := d.GetKpis()
			return Totals{
				Durable: u.durable.Load(), Accepted: k.GetLedger().GetAccepted(),
				Ignored: k.GetLedger().GetIgnored(), Rejected: k.GetRejected(),
			}, nil
		}
		if ctx.Err() != nil {
			return Totals{}, context.Cause(ctx)
		}
		if err := u.wait(ctx, err); err != nil {
			return Totals{}, err
		}
	}
}
