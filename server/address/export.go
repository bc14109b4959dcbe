package address

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// maxExportData is how much one piece of an export holds, in octets.
const maxExportData = 64 << 10

// ExportAddressEntries writes the entries that the filter keeps as a file. Other products know less
// of an entry than we do, so their files hold what they can say: see sesWriter and sparkWriter.
func (s *Service) ExportAddressEntries(req *veredusv1.ExportAddressEntriesRequest, stream grpc.ServerStreamingServer[veredusv1.ExportAddressEntriesResponse]) error {
	v := violations{}
	f := v.filter(req.GetFilter())
	v.format(req.GetFormat())
	foreign := req.GetFormat() == veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES || req.GetFormat() == veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SPARKPOST
	if foreign && (f.Status == Counting || f.Status == Allowlisted) {
		v.add("filter.status", req.GetFilter().GetStatus().String(), "cannot be said in this format", "choose ADDRESS_FILE_FORMAT_CSV, or quarantined or denylisted entries")
	}
	if err := v.err(); err != nil {
		return err
	}
	out := bufio.NewWriterSize(exportData{stream}, maxExportData)
	w := newFileWriter(req.GetFormat(), out)
	if err := w.begin(); err != nil {
		return err
	}
	if err := s.each(stream.Context(), f, w.write); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	return out.Flush()
}

// each calls take for every entry that the filter keeps.
func (s *Service) each(ctx context.Context, f Filter, take func(*Entry) error) error {
	var cursor []byte
	for {
		page, next, err := s.o.Store.ListAddressEntries(ctx, f, cursor, MaxWrite)
		if err != nil {
			return err
		}
		for i := range page {
			if err := take(&page[i]); err != nil {
				return err
			}
		}
		if cursor = next; len(cursor) == 0 {
			return nil
		}
	}
}

// exportData sends what is written.
type exportData struct {
	stream grpc.ServerStreamingServer[veredusv1.ExportAddressEntriesResponse]
}

// Write sends p in pieces.
func (d exportData) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(len(p)-sent, maxExportData)
		if err := d.stream.Send(&veredusv1.ExportAddressEntriesResponse{Data: p[sent : sent+n : sent+n]}); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// fileWriter writes a file of some form.
type fileWriter interface {
	begin() error
	write(e *Entry) error
	end() error
}

func newFileWriter(format veredusv1.AddressFileFormat, out io.Writer) fileWriter {
	switch format {
	case veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES:
		return &sesWriter{out: out, separator: "\n"}
	case veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SPARKPOST:
		return &sparkWriter{csv.NewWriter(out)}
	}
	return &csvWriter{csv.NewWriter(out)}
}

// fileTime writes a time; empty when there is none.
func fileTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// csvWriter writes our own form, with every entry but its evidence. All tenants are "*", so that a line
// names its scope whatever scope an import has. Cells that a spreadsheet would run are guarded.
type csvWriter struct{ out *csv.Writer }

func (w *csvWriter) begin() error { return w.out.Write(csvHeader) }

func (w *csvWriter) write(e *Entry) error {
	tenant := e.Scope.Tenant
	if tenant == "" {
		tenant = anyTenants
	}
	updated := e.Updated
	if e.Status == Counting || e.Provisional {
		updated = e.LastError // by which they end
	}
	return w.out.Write([]string{
		guarded(e.spelling()), e.Status.word(), tenant, e.Scope.Class.word(), guarded(e.Scope.List),
		reasonWord(e.Reason), e.Origin.word(), guarded(e.Comment), strconv.Itoa(e.Errors), strconv.FormatBool(e.Provisional),
		fileTime(e.Created), fileTime(updated),
	})
}

func (w *csvWriter) end() error {
	w.out.Flush()
	return w.out.Error()
}

// travels reports whether an entry goes into the files of other products: it excludes for
// certain, and not from one list only, since they know one list for all mail. What is
// provisional may be an error, and would last there.
func (e *Entry) travels() bool {
	return e.Scope.List == "" && (e.Status == Denylisted || e.Status == Quarantined && !e.Provisional)
}

// sesWriter writes what ListSuppressedDestinations answers, a record a line: quarantined
// is BOUNCE, denylisted COMPLAINT.
type sesWriter struct {
	out       io.Writer
	separator string
}

func (w *sesWriter) begin() error {
	_, err := io.WriteString(w.out, `{"SuppressedDestinationSummaries": [`)
	return err
}

func (w *sesWriter) write(e *Entry) error {
	if !e.travels() {
		return nil
	}
	reason := sesBounce
	if e.Status == Denylisted {
		reason = sesComplaint
	}
	record, err := json.Marshal(struct{ EmailAddress, Reason, LastUpdateTime string }{e.spelling(), reason, fileTime(e.Updated)})
	if err == nil {
		_, err = fmt.Fprintf(w.out, "%s%s", w.separator, record)
	}
	w.separator = ",\n"
	return err
}

func (w *sesWriter) end() error {
	_, err := io.WriteString(w.out, "\n]}\n")
	return err
}

// sparkWriter writes a CSV suppression list. What is excluded from everything has two lines, since SparkPost's type
// transactional does not cover other mail.
type sparkWriter struct{ out *csv.Writer }

func (w *sparkWriter) begin() error { return w.out.Write(sparkHeader) }

func (w *sparkWriter) write(e *Entry) error {
	if !e.travels() {
		return nil
	}
	types := []string{sparkTransactional, sparkNonTransactional}
	if e.Scope.Class == Marketing {
		types = types[1:]
	}
	for _, kind := range types {
		err := w.out.Write([]string{e.spelling(), kind, e.Comment, sparkSource(e), fileTime(e.Created), fileTime(e.Updated), e.Scope.List})
		if err != nil {
			return err
		}
	}
	return nil
}

func sparkSource(e *Entry) string {
	switch {
	case e.Status == Quarantined:
		return sparkBounce
	case e.Origin == FromComplaint:
		return sparkComplaint
	case e.Origin == FromUnsubscribe:
		return sparkListUnsubscribe
	}
	return sparkManual
}

func (w *sparkWriter) end() error {
	w.out.Flush()
	return w.out.Error()
}
