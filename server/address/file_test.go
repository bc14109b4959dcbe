package address

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	ownFile   = veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_CSV
	sesFile   = veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES
	sparkFile = veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SPARKPOST
)

// upload is the stream of an import.
type upload struct {
	grpc.ServerStream
	d        *desk
	requests []*veredusv1.ImportAddressEntriesRequest
	broken   error // instead of the end
	answer   *veredusv1.ImportAddressEntriesResponse
}

func (u *upload) Context() context.Context {
	return u.d.ctx
}

func (u *upload) Recv() (*veredusv1.ImportAddressEntriesRequest, error) {
	if len(u.requests) == 0 {
		if u.broken != nil {
			return nil, u.broken
		}
		return nil, io.EOF
	}
	req := u.requests[0]
	u.requests = u.requests[1:]
	return req, nil
}

func (u *upload) SendAndClose(answer *veredusv1.ImportAddressEntriesResponse) error {
	u.answer = answer
	return nil
}

// load imports a file, cut into pieces of some octets.
func (d *desk) load(format veredusv1.AddressFileFormat, scope *veredusv1.AddressScope, dry bool, data string, cut int) (*veredusv1.ImportAddressEntriesResponse, error) {
	u := &upload{d: d, requests: []*veredusv1.ImportAddressEntriesRequest{{Format: format, Scope: scope, DryRun: dry}}}
	for len(data) > 0 {
		n := min(cut, len(data))
		u.requests = append(u.requests, &veredusv1.ImportAddressEntriesRequest{Data: []byte(data[:n])})
		data = data[n:]
	}
	err := d.ImportAddressEntries(u)
	return u.answer, err
}

// download is the stream of an export.
type download struct {
	grpc.ServerStream
	d    *desk
	data bytes.Buffer
	most int
}

func (s *download) Context() context.Context {
	return s.d.ctx
}

func (s *download) Send(r *veredusv1.ExportAddressEntriesResponse) error {
	s.most = max(s.most, len(r.GetData()))
	s.data.Write(r.GetData())
	return nil
}

func (d *desk) save(format veredusv1.AddressFileFormat, f *veredusv1.AddressFilter) (string, error) {
	s := &download{d: d}
	err := d.ExportAddressEntries(&veredusv1.ExportAddressEntriesRequest{Filter: f, Format: format}, s)
	if s.most > maxExportData {
		return "", fmt.Errorf("a piece of %d octets", s.most)
	}
	return s.data.String(), err
}

// describe is an entry in a line: what a file can say of it.
func describe(e *Entry) string {
	text := fmt.Sprintf("%s %s %v/%s/%s", e.spelling(), story(e), e.Scope.Tenant, e.Scope.Class.word(), e.Scope.List)
	return fmt.Sprintf("%s from %s reason %d at %s %q", text, e.Origin.word(), e.Reason, e.Updated.Format(time.DateTime), e.Comment)
}

func (d *desk) lines() (list []string) {
	for _, e := range d.m.sorted() {
		list = append(list, describe(&e))
	}
	return list
}

// Files as other products write them, and what becomes of each of their lines. The
// fixtures follow the examples in Amazon's and SparkPost's documentation.
func TestImportedFiles(t *testing.T) {
	tenant := &veredusv1.AddressScope{Tenant: "acme"}
	for _, name := range []string{
		"own.csv", "own_semicolon.csv", "own_list.csv", "ses_list.json", "ses_pages.json", "ses_job.jsonl", "ses_job.csv", "ses_header.csv",
		"sparkpost.csv", "sparkpost_flags.csv", "sparkpost.json", "sparkpost_pages.json",
	} {
		t.Run(name, func(t *testing.T) {
			data := string(must(os.ReadFile(filepath.Join("testdata", name))))
			format := ownFile
			switch name[:3] {
			case "ses":
				format = sesFile
			case "spa":
				format = sparkFile
			}
			var told []string
			for _, cut := range []int{1, 7, 1 << 20} {
				d := newDesk(t)
				answer := must(d.load(format, tenant, false, data, cut))
				got := d.lines()
				got = append(got, fmt.Sprintf("imported %d replaced %d kept %d malformed %d", answer.GetImported(), answer.GetReplaced(), answer.GetKept(), answer.GetMalformed()))
				for _, l := range answer.GetLines() {
					got = append(got, fmt.Sprintf("line %d %s", l.GetLine(), l.GetDescription()))
				}
				if told != nil && !reflect.DeepEqual(told, got) {
					t.Errorf("in pieces of %d: %q", cut, got)
				}
				told = got
				if again := must(d.load(format, tenant, false, data, cut)); again.GetReplaced()+again.GetKept() != answer.GetReplaced()+answer.GetKept() && answer.GetReplaced() == 0 {
					t.Errorf("imported again: %v", again)
				}
			}
			golden(t, filepath.Join("testdata", name+".want"), strings.Join(told, "\n")+"\n")
		})
	}
}

// golden compares with a file; VEREDUS_GOLDEN=1 writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("VEREDUS_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(must(os.ReadFile(file))); got != want {
		t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
	}
}

func TestWhatAFileMayNotChange(t *testing.T) {
	put := func(d *desk, to string, status veredusv1.AddressStatus) {
		must(d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: &veredusv1.AddressEntry{Address: to, Status: status}}))
	}
	d := newDesk(t)
	put(d, "allowed@a.example", veredusv1.AddressStatus_ADDRESS_STATUS_ALLOWLISTED)
	put(d, "denied@a.example", veredusv1.AddressStatus_ADDRESS_STATUS_DENYLISTED)
	put(d, "quarantined@a.example", veredusv1.AddressStatus_ADDRESS_STATUS_QUARANTINED)
	must(d.load(ownFile, nil, false, "address,origin\nleft@a.example,unsubscribe\n", 99))
	const file = `address,status,error_count
allowed@a.example,denylisted,
denied@a.example,quarantined,
denied@a.example,allowlisted,
quarantined@a.example,counting,3
quarantined@a.example,denylisted,
left@a.example,allowlisted,
new@a.example,counting,2
new@a.example,counting,1
new@a.example,quarantined,
New@A.Example,quarantined,
`
	for _, dry := range []bool{true, false} {
		audits := len(d.m.audits)
		answer := must(d.load(ownFile, nil, dry, file, 99))
		if answer.GetImported() != 5 || answer.GetReplaced() != 3 || answer.GetKept() != 5 || answer.GetMalformed() != 0 {
			t.Errorf("dry run %v: %v", dry, answer)
		}
		if dry != (len(d.m.audits) == audits) {
			t.Errorf("dry run %v: %q", dry, d.m.audits)
		}
	}
	want := map[string]string{
		"allowed@a.example": "allowlisted", "denied@a.example": "allowlisted", "quarantined@a.example": "denylisted",
		"left@a.example": "denylisted", "new@a.example": "quarantined",
	}
	for k, e := range d.m.entries {
		if story(&e) != want[k.Folded] {
			t.Errorf("%s is %s, want %s", k.Folded, story(&e), want[k.Folded])
		}
	}
	if len(d.m.entries) != len(want) {
		t.Errorf("%d entries", len(d.m.entries))
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	many := strings.Repeat(`{"EmailAddress":"a@b.example","Reason":"BOUNCE"},`, 3)
	for _, tc := range []struct {
		format     veredusv1.AddressFileFormat
		data, want string
	}{
		{ownFile, "name,status\nada@a.example,denylisted\n", "data: \"line 1\" is no header: it names no column address; begin with"},
		{ownFile, "\xff\xfea\x00", "data: \"line 1\" is in UTF-16; save the file in UTF-8"},
		{ownFile, `address,"status` + "\n", "quotation mark without its partner"},
		{sparkFile, "someone,transactional\n", "is no header"},
		{sesFile, `{"SuppressedDestinationSummaries": [` + "\n" + many + "\n{]}", "data: \"line 2\" is the last that can be read, the JSON breaks behind it: invalid character ']'"},
		{sesFile, `{"SuppressedDestinationSummaries": [` + "\n" + many, "data: \"line 2\" is the last though the JSON goes on; give the whole file"},
		{sesFile, `{"results": []}`, "no list called SuppressedDestinationSummaries"},
		{sesFile, `{"SuppressedDestinationSummaries": 7}`, "SuppressedDestinationSummaries is no list"},
		{sesFile, "[1] 7", "holds neither a document nor a list"},
		{sesFile, `{"SuppressedDestinationSummaries": ["` + strings.Repeat("x", 1<<20), "begins a value longer than 65536 octets"},
		{sparkFile, `{"links": "` + strings.Repeat("x", 1<<20), "begins a value longer than 65536 octets"},
	} {
		d := newDesk(t)
		var bad *InvalidError
		if _, err := d.load(tc.format, nil, false, tc.data, 1<<20); !errors.As(err, &bad) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.60q: %v\nwant %s", tc.data, err, tc.want)
		}
	}
}

func TestMalformedLinesCostOnlyThemselves(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	file := "address,comment\na@a.example,fine\n\"b@a.example,stray\nc@a.example,fine\nd@a.example," + long + "\ne@a.example,\"two\nlines\"\n" +
		"\"f@a.example\" x,y\n\n\ng@a.example\nnobody,,,,\nh@a.example,\"" + long + "\"\ni@a.example,end"
	d := newDesk(t)
	answer := must(d.load(ownFile, nil, false, file, 1000))
	var lines []string
	for _, l := range answer.GetLines() {
		lines = append(lines, fmt.Sprintf("%d %s", l.GetLine(), l.GetDescription()))
	}
	want := []string{
		"3 has a quotation mark without its partner; close it, or double those inside a field",
		"5 is longer than 10240 octets; shorten it",
		"8 has text behind a closing quotation mark; double the quotation marks inside a field",
		`12 address "nobody": has no @; write it as local@domain with exactly one @ outside quotes`,
		"13 is longer than 10240 octets; shorten it",
	}
	if !reflect.DeepEqual(lines, want) || answer.GetMalformed() != 5 || answer.GetImported() != 5 {
		t.Errorf("%d imported, %d malformed: %q", answer.GetImported(), answer.GetMalformed(), lines)
	}
	flood := "address\n" + strings.Repeat("nonsense\n", 5000)
	if answer := must(d.load(ownFile, nil, false, flood, 1000)); answer.GetMalformed() != 5000 || len(answer.GetLines()) != 100 {
		t.Errorf("%d malformed, %d shown", answer.GetMalformed(), len(answer.GetLines()))
	}
}

func TestImportStreams(t *testing.T) {
	d := newDesk(t)
	run := func(broken error, requests ...*veredusv1.ImportAddressEntriesRequest) error {
		return d.ImportAddressEntries(&upload{d: d, requests: requests, broken: broken})
	}
	first := &veredusv1.ImportAddressEntriesRequest{Data: []byte("address\na@a.example\n")}
	for want, err := range map[string]error{
		"data: is missing":                          run(nil),
		`format: "9" is no format`:                  run(nil, &veredusv1.ImportAddressEntriesRequest{Format: 9}),
		"format: or scope or dry_run is in a later": run(nil, first, &veredusv1.ImportAddressEntriesRequest{DryRun: true}),
		`data: "1048577" octets are too many`:       run(nil, &veredusv1.ImportAddressEntriesRequest{Data: make([]byte, 1<<20+1)}),
		`scope.tenant: "A" is no tenant`:            run(nil, &veredusv1.ImportAddressEntriesRequest{Scope: &veredusv1.AddressScope{Tenant: "A"}}),
		iotest.ErrTimeout.Error():                   run(iotest.ErrTimeout, first),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if len(d.m.entries) != 0 {
		t.Error("a stream that broke off wrote its last batch")
	}
	if err := run(nil, first, &veredusv1.ImportAddressEntriesRequest{}, &veredusv1.ImportAddressEntriesRequest{Data: []byte("b@a.example")}); err != nil || len(d.m.entries) != 2 {
		t.Errorf("%d entries, %v", len(d.m.entries), err)
	}
}

// entryOf draws an entry as the store may hold it.
func entryOf(t *rapid.T) Entry {
	comment := rapid.StringOf(rapid.SampledFrom([]rune("=+-@'\",;\tab ü\U0001F600"))).Filter(func(s string) bool { return s == oneLine(s, MaxCommentLength) })
	to := rapid.SampledFrom([]string{"ada", "=cmd", "+49", "-x", "'=q", "''+q", "'plain", "Jörg", `"a,b"`, `"a@b"`, `"=1\"2"`, "a;b"[:1]}).Draw(t, "local") +
		rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "more")
	if strings.Contains(to, `"`) {
		to = strings.TrimRight(to, "abcdefghijklmnopqrstuvwxyz")
	}
	e := Entry{
		Key:     Key{Folded: strings.ToLower(to) + "@a.example", Scope: Scope{Class: rapid.SampledFrom([]Class{Everything, Marketing}).Draw(t, "class")}},
		Address: to + "@a.example",
		Status:  Status(rapid.IntRange(1, 4).Draw(t, "status")), Origin: Origin(rapid.IntRange(1, 6).Draw(t, "origin")),
		Reason: rapid.SampledFrom([]bounce.Reason{0, 1, 4, 5, 127}).Draw(t, "reason"), Comment: comment.Draw(t, "comment"),
		Created: start.Add(-99 * time.Hour), Updated: start.Add(-time.Duration(rapid.IntRange(0, 99).Draw(t, "age")) * time.Hour),
	}
	if e.Scope.Tenant = rapid.SampledFrom([]string{"", "acme", "beta-2"}).Draw(t, "tenant"); e.Scope.Tenant != "" {
		e.Scope.List = rapid.SampledFrom([]string{"", "news.example", "=list", "a,b \"c\""}).Draw(t, "list")
	}
	switch e.Status {
	case Counting:
		e.Errors, e.LastError = rapid.IntRange(1, 4).Draw(t, "errors"), e.Updated
	case Quarantined:
		e.Provisional, e.LastError = rapid.Bool().Draw(t, "provisional"), e.Updated
	}
	return e
}

// What is exported and imported elsewhere is the same, whatever scope the import has.
func TestExportAndImportAreInverse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from, to := newDesk(t), newDesk(t)
		for _, e := range rapid.SliceOfN(rapid.Custom(entryOf), 0, 30).Draw(rt, "entries") {
			from.m.entries[e.Key] = e
		}
		file := must(from.save(ownFile, nil))
		answer := must(to.load(ownFile, &veredusv1.AddressScope{Tenant: "gamma", ListId: "other", MailClass: 2}, false, file, rapid.IntRange(1, 4096).Draw(rt, "cut")))
		if answer.GetMalformed() != 0 || answer.GetImported() != int64(len(from.m.entries)) {
			rt.Fatalf("%v of\n%s", answer, file)
		}
		for k, want := range from.m.entries {
			got := to.m.entries[k]
			got.Evidence = nil
			if !reflect.DeepEqual(got, want) {
				rt.Fatalf("%+v\nwant %+v\nin %s", got, want, file)
			}
		}
		if again := must(to.save(ownFile, nil)); again != file {
			rt.Fatalf("exported again: %s\nwant %s", again, file)
		}
	})
}

// Other products keep whom they may not mail, for which mail, and whether it bounced.
func TestForeignExportsAreInverse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from, ses, spark := newDesk(t), newDesk(t), newDesk(t)
		for _, e := range rapid.SliceOfN(rapid.Custom(entryOf), 0, 30).Draw(rt, "entries") {
			if e.Scope.Tenant = "acme"; e.Scope.List != "=list" {
				e.Scope.List = ""
			}
			from.m.entries[e.Key] = e
		}
		scope := &veredusv1.AddressScope{Tenant: "acme"}
		if a := must(ses.load(sesFile, scope, false, must(from.save(sesFile, nil)), 100)); a.GetMalformed() != 0 {
			rt.Fatalf("SES: %v", a)
		}
		if a := must(spark.load(sparkFile, scope, false, must(from.save(sparkFile, nil)), 100)); a.GetMalformed() != 0 {
			rt.Fatalf("SparkPost: %v", a)
		}
		foreign := 0
		for k, want := range from.m.entries {
			if !want.travels() {
				continue
			}
			foreign++
			if got := spark.m.entries[k]; got.Status != want.Status || got.Comment != want.Comment || !got.Updated.Equal(want.Updated) {
				rt.Fatalf("SparkPost: %s, want %s", describe(&got), describe(&want))
			}
			everything := Key{k.Folded, Scope{"acme", Everything, ""}}
			if got := ses.m.entries[everything]; k.Scope.List == "" && got.Status < want.Status && got.Status != Denylisted {
				rt.Fatalf("SES: %s, want %s", describe(&got), describe(&want))
			}
		}
		if len(spark.m.entries) != foreign {
			rt.Fatalf("%d entries of SparkPost, want %d", len(spark.m.entries), foreign)
		}
	})
}

func TestExportedFiles(t *testing.T) {
	d := newDesk(t)
	d.hard(t, "gone@a.example", "550 5.1.1", false)
	d.hard(t, "maybe@a.example", "550 5.1.1", true)
	must(d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: deny("=Calc@a.example", "acme", "")}))
	must(d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: deny("left@a.example", "acme", "news")}))
	for format, want := range map[veredusv1.AddressFileFormat]string{
		ownFile: `address,status,tenant,mail_class,list_id,reason,origin,comment,error_count,provisional,create_time,update_time
'=Calc@a.example,denylisted,acme,marketing,,,operator,asked us by phone,0,false,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z
gone@a.example,quarantined,acme,everything,,user_unknown,bounce,,0,false,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z
left@a.example,denylisted,acme,marketing,news,,operator,asked us by phone,0,false,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z
maybe@a.example,quarantined,acme,everything,,user_unknown,bounce,,0,true,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z
`,
		sesFile: `{"SuppressedDestinationSummaries": [
{"EmailAddress":"=Calc@a.example","Reason":"COMPLAINT","LastUpdateTime":"2026-03-02T09:00:00Z"},
{"EmailAddress":"gone@a.example","Reason":"BOUNCE","LastUpdateTime":"2026-03-02T09:00:00Z"}
]}
`,
		sparkFile: `recipient,type,description,source,created,updated,list_id
=Calc@a.example,non_transactional,asked us by phone,Manually Added,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z,
gone@a.example,transactional,,Bounce Rule,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z,
gone@a.example,non_transactional,,Bounce Rule,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z,
`,
	} {
		if got := sorted(must(d.save(format, nil))); got != sorted(want) {
			t.Errorf("%v:\n%s\nwant\n%s", format, got, want)
		}
	}
	if _, err := d.save(sesFile, &veredusv1.AddressFilter{Status: veredusv1.AddressStatus_ADDRESS_STATUS_ALLOWLISTED}); err == nil || !strings.Contains(err.Error(), "filter.status") {
		t.Errorf("allowlist for SES: %v", err)
	}
}

// sorted puts the lines of a file in order, since a store lists in an order of its own.
func sorted(file string) string {
	lines := strings.Split(strings.ReplaceAll(file, "},\n", "}\n"), "\n")
	for i := range lines {
		for j := range i {
			if lines[i] < lines[j] {
				lines[i], lines[j] = lines[j], lines[i]
			}
		}
	}
	return strings.Join(lines, "\n")
}

func FuzzReadFile(f *testing.F) {
	files, err := filepath.Glob("testdata/*.[cj]s*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".want") {
			continue
		}
		for format := range int32(4) {
			f.Add(must(os.ReadFile(name)), format)
		}
	}
	f.Add([]byte("address\n\"\"\"\n\",\"\"a\"\"\"\"\n"), int32(0))
	f.Add([]byte("[{},[],null,{\"EmailAddress\":1}]{\"SuppressedDestinationSummaries\":[]}"), int32(2))
	f.Fuzz(func(t *testing.T, data []byte, format int32) {
		read := func(in io.Reader) (said []string) {
			last := int64(0)
			err := readFile(veredusv1.AddressFileFormat(format), in, Scope{"acme", Everything, ""}, start, func(l fileLine) error {
				if said = append(said, fmt.Sprint(l)); l.number < 1 || l.number < last && format == int32(ownFile) {
					t.Errorf("line %d behind %d", l.number, last)
				}
				last = l.number
				if l.problem == "" && (l.entry.Status == 0 || l.entry.Folded == "" || !l.entry.Key.plausible() || l.entry.Updated.After(start) || len(l.entry.Comment) > MaxCommentLength) {
					t.Errorf("%+v", l.entry)
				}
				return nil
			})
			var bad *InvalidError
			if err != nil && !errors.As(err, &bad) {
				t.Errorf("%v", err)
			}
			return append(said, fmt.Sprint(err))
		}
		if whole, pieces := read(bytes.NewReader(data)), read(iotest.OneByteReader(bytes.NewReader(data))); !reflect.DeepEqual(whole, pieces) {
			t.Errorf("in pieces %q\nwhole %q", pieces, whole)
		}
	})
}

// BenchmarkImport reads a file of 100,000 lines; divide by them for the cost of one.
func BenchmarkImport(b *testing.B) {
	const lines = 100_000
	var own, ses, spark strings.Builder
	own.WriteString(strings.Join(csvHeader, ",") + "\n")
	spark.WriteString("recipient,type,description\n")
	for i := range lines {
		fmt.Fprintf(&own, "user%d@example.com,quarantined,acme,everything,,user_unknown,bounce,550 5.1.1 unknown,0,false,2026-03-01T09:00:00Z,2026-03-01T09:00:00Z\n", i)
		fmt.Fprintf(&ses, "{\"EmailAddress\":\"user%d@example.com\",\"Reason\":\"BOUNCE\",\"LastUpdateTime\":\"2026-03-01T09:00:00.123000+00:00\"}\n", i)
		fmt.Fprintf(&spark, "user%d@example.com,non_transactional,\"550, unknown\"\n", i)
	}
	document := `{"SuppressedDestinationSummaries":[` + strings.ReplaceAll(strings.TrimSuffix(ses.String(), "\n"), "\n", ",\n") + "]}"
	for _, tc := range []struct {
		name   string
		format veredusv1.AddressFileFormat
		data   string
	}{{"csv", ownFile, own.String()}, {"ses-lines", sesFile, ses.String()}, {"ses-document", sesFile, document}, {"sparkpost", sparkFile, spark.String()}} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				i := &importer{ctx: b.Context(), now: start, dry: false, batch: map[Key][]Entry{}, answer: &veredusv1.ImportAddressEntriesResponse{}, s: NewService(Options{Store: nowhere{}})}
				if err := readFile(tc.format, strings.NewReader(tc.data), Scope{"acme", Everything, ""}, start, i.take); err != nil || i.flush() != nil || i.answer.GetImported() != lines {
					b.Fatal(err, i.answer)
				}
			}
			b.ReportMetric(float64(b.N)*lines/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
