package address

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	maxImportData = 1 << 20 // octets in one request
	maxMalformed  = 100     // lines that are shown
)

// formatNames are the formats in words.
var formatNames = map[veredusv1.AddressFileFormat]string{
	veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_UNSPECIFIED: "CSV",
	veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_CSV:         "CSV",
	veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES:         "Amazon SES",
	veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SPARKPOST:   "SparkPost",
}

// format checks a file's format.
func (v *violations) format(f veredusv1.AddressFileFormat) {
	if formatNames[f] == "" {
		v.add("format", fmt.Sprint(int32(f)), "is no format", "use ADDRESS_FILE_FORMAT_CSV, ADDRESS_FILE_FORMAT_SES or ADDRESS_FILE_FORMAT_SPARKPOST")
	}
}

// ImportAddressEntries reads a file and answers once all of it is durable. It holds a thousand
// entries at a time. A file that breaks off or cannot be read further leaves what came
// before it; importing it again changes only what is not there yet.
func (s *Service) ImportAddressEntries(stream grpc.ClientStreamingServer[veredusv1.ImportAddressEntriesRequest, veredusv1.ImportAddressEntriesResponse]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return invalid("data", "", "is missing", "send the file in one or more requests")
	}
	if err != nil {
		return err
	}
	v := violations{}
	v.format(first.GetFormat())
	scope := v.scope("scope", first.GetScope())
	if err := v.err(); err != nil {
		return err
	}
	i := &importer{
		ctx: stream.Context(), s: s, now: s.now(), dry: first.GetDryRun(), batch: map[Key][]Entry{},
		audit:  fmt.Sprintf("imported from a %s file", formatNames[first.GetFormat()]),
		answer: &veredusv1.ImportAddressEntriesResponse{},
	}
	err = readFile(first.GetFormat(), &importData{stream: stream, head: first}, scope, i.now, i.take)
	if err == nil {
		err = i.flush()
	}
	if err != nil {
		return err
	}
	return stream.SendAndClose(i.answer)
}

// importData is the content of a stream of requests.
type importData struct {
	stream interface {
		Recv() (*veredusv1.ImportAddressEntriesRequest, error)
	}
	head *veredusv1.ImportAddressEntriesRequest // not read yet
	rest []byte
}

// Read reads what the next requests hold.
func (d *importData) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		req := d.head
		if d.head = nil; req == nil {
			var err error
			if req, err = d.stream.Recv(); err != nil {
				return 0, err
			}
			if req.GetFormat() != 0 || req.GetScope() != nil || req.GetDryRun() {
				return 0, invalid("format", "", "or scope or dry_run is in a later request", "set them in the first request only")
			}
		}
		if n := len(req.GetData()); n > maxImportData {
			return 0, invalid("data", fmt.Sprint(n), "octets are too many for one request", fmt.Sprintf("send at most %d at a time", maxImportData))
		}
		d.rest = req.GetData()
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// importer writes the entries of a file in batches.
type importer struct {
	ctx    context.Context
	s      *Service
	now    time.Time
	dry    bool
	audit  string
	answer *veredusv1.ImportAddressEntriesResponse

	keys  []Key           // of the batch, in the order of the file
	batch map[Key][]Entry // each address and scope with its lines
	lines int             // in the batch
}

// take puts a line into the batch.
func (i *importer) take(line fileLine) error {
	if line.problem != "" {
		i.answer.Malformed++
		if len(i.answer.Lines) < maxMalformed {
			i.answer.Lines = append(i.answer.Lines, &veredusv1.MalformedLine{Line: line.number, Description: line.problem})
		}
		return nil
	}
	e := line.entry
	text := line.text
	if text == "" {
		text = i.audit
	}
	e.Evidence = []Evidence{{Time: i.now, Change: e.Status.change(), Text: clip(text, MaxEvidenceText)}}
	if e.Provisional {
		e.Evidence[0].Change = WasProvisional
	}
	if _, there := i.batch[e.Key]; !there {
		i.keys = append(i.keys, e.Key)
	}
	i.batch[e.Key] = append(i.batch[e.Key], e)
	if i.lines++; i.lines < MaxWrite {
		return nil
	}
	return i.flush()
}

// outcome is what became of the lines of one address and scope.
type outcome struct{ taken, replaced, kept int64 }

// flush writes the batch, or finds out what writing it would do.
func (i *importer) flush() error {
	if i.lines == 0 {
		return nil
	}
	did := make(map[Key]outcome, len(i.keys)) // by key, since the function may be called again
	change := func(e Entry) Entry {
		var o outcome
		for n := range i.batch[e.Key] {
			e = o.merge(e, &i.batch[e.Key][n])
		}
		did[e.Key] = o
		return e
	}
	if err := i.apply(change); err != nil {
		return err // did may still be written to
	}
	for _, o := range did {
		i.answer.Imported += o.taken
		i.answer.Replaced += o.replaced
		i.answer.Kept += o.kept
	}
	i.keys, i.lines = i.keys[:0], 0
	clear(i.batch)
	return nil
}

func (i *importer) apply(change func(Entry) Entry) error {
	if !i.dry {
		_, err := i.s.o.Store.ChangeAddressEntries(i.ctx, slices.Clone(i.keys), Request{}, i.audit, change)
		return err
	}
	for _, k := range i.keys {
		e, err := i.s.entry(i.ctx, k)
		if errors.Is(err, ErrNotFound) {
			e, err = &Entry{Key: k}, nil
		}
		if err != nil {
			return err
		}
		change(*e)
	}
	return nil
}

// merge is an entry after a line of a file about it.
func (o *outcome) merge(e Entry, line *Entry) Entry {
	switch {
	case e.Status == 0:
		o.taken++
		return *line
	case e.outranks(line):
		o.kept++
		return e
	case e.says(line):
		o.taken++
		return e
	}
	o.taken++
	o.replaced++
	n := *line
	n.Address, n.Created, n.Updated = e.Address, e.Created, e.Updated
	if n.Reason == 0 {
		n.Reason, n.Code, n.Tag = e.Reason, e.Code, e.Tag
	}
	if n.LastError.Before(e.LastError) {
		n.LastError = e.LastError
	}
	n.Evidence = e.Evidence
	return n.note(Cause{Evidence: line.Evidence[0]}, line.Evidence[0].Change)
}

// outranks reports whether an entry stays whatever a file says: an allowlist entry; a
// denylist entry against a quarantine; a person's unsubscribe against an allowlist; and
// what is quarantined or counted against less of the same.
func (e *Entry) outranks(line *Entry) bool {
	switch line.Status {
	case Allowlisted:
		return e.Status == Denylisted && e.Origin == FromUnsubscribe
	case Denylisted:
		return e.Status == Allowlisted
	case Quarantined:
		return e.Status > Quarantined || e.Status == Quarantined && line.Provisional && !e.Provisional
	}
	return e.Status > Counting || e.Errors > line.Errors
}

// says reports whether an entry says already what a line does.
func (e *Entry) says(line *Entry) bool {
	return e.Status == line.Status && e.Provisional == line.Provisional && e.Origin == line.Origin &&
		(line.Reason == 0 || e.Reason == line.Reason) && e.Comment == line.Comment && e.Errors == line.Errors
}
