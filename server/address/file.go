package address

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// fileLine is what a line of a file says: an entry, or what is wrong with the line.
type fileLine struct {
	number  int64
	entry   Entry
	text    string // for the evidence
	problem string
}

// fileReader reads a file of some form. Entries whose line names no scope get that of
// defaults, what has no time that of now.
type fileReader struct {
	in       *bufio.Reader
	defaults Scope
	now      time.Time
	take     func(fileLine) error
}

// readFile calls take for each line of a file. Memory does not depend on the
// file. An *InvalidError says that the file as a whole cannot be read, or not from some line on.
func readFile(format veredusv1.AddressFileFormat, in io.Reader, defaults Scope, now time.Time, take func(fileLine) error) error {
	b, err := newFileBuffer(in)
	if err != nil {
		return err
	}
	r := &fileReader{in: b, defaults: defaults, now: now, take: take}
	switch format {
	case veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES:
		return r.readSES()
	case veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SPARKPOST:
		return r.readSparkPost()
	}
	return r.readCSV()
}

// isJSON reports whether the file begins as JSON does.
func (r *fileReader) isJSON() bool {
	head, _ := r.in.Peek(maxLine)
	head = bytes.TrimLeft(head, " \t\r\n")
	return len(head) > 0 && (head[0] == '{' || head[0] == '[')
}

// eachRow calls read for each row below the header. Without a header, which is where headless allows it by the first
// row, the columns are those it answers.
func (r *fileReader) eachRow(headless func(first []string) columns, read func(c columns, fields []string) (Entry, string, error)) error {
	rows := newRows(r.in)
	rows.guessComma()
	head, err := rows.next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if head.problem != "" {
		return broken(head.line, head.problem, "correct the first line")
	}
	c, again := newColumns(head.fields), false
	if _, found := c.address(); !found {
		if c, again = headless(head.fields), true; c == nil {
			return broken(head.line, "is no header: it names no column address", "begin with a line that names the columns, such as address,status,tenant,reason")
		}
	}
	for {
		if !again {
			if head, err = rows.next(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
		again = false
		line := fileLine{number: head.line, problem: head.problem}
		if line.problem == "" {
			line.entry, line.text, err = read(c, head.fields)
			if err != nil {
				line.problem = err.Error()
			}
		}
		if err := r.take(line); err != nil {
			return err
		}
	}
}

// problem is what is wrong with a line, in words.
type problem string

func (p problem) Error() string { return string(p) }

func problemf(format string, args ...any) error { return problem(fmt.Sprintf(format, args...)) }

// start makes an entry of an address and a scope.
func (r *fileReader) start(text string, scope Scope) (Entry, error) {
	to, err := address.Parse(text)
	var bad *address.Error
	if errors.As(err, &bad) {
		return Entry{}, problem(bad.Error())
	}
	if scope.List != "" && scope.Tenant == "" {
		return Entry{}, problemf("names the list %q but no tenant; give a tenant: lists belong to tenants", printable(scope.List))
	}
	return Entry{Key: Key{Folded: to.Folded(), Scope: scope}, Address: to.String(), Created: r.now, Updated: r.now, Origin: FromImport}, nil
}

// finish fills what follows from the rest.
func (e *Entry) finish() {
	if e.Created.After(e.Updated) {
		e.Created = e.Updated
	}
	if e.Status == Counting || e.Status == Quarantined {
		e.LastError = e.Updated
	}
}

// timeLayouts are how files write times.
var timeLayouts = [...]string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", time.DateTime, time.DateOnly}

// time reads a time, by itself or as seconds since 1970; empty is now, and so is what
// lies in the future: clocks differ.
func (r *fileReader) time(text string) (time.Time, error) {
	if text == "" {
		return r.now, nil
	}
	t, ok := parseTime(text)
	if !ok {
		return t, problemf("has the time %q; write it as 2006-01-02T15:04:05Z", printable(text))
	}
	if t.After(r.now) {
		t = r.now
	}
	return t, nil
}

func parseTime(text string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), t.Year() > 0
		}
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds >= 0 && seconds < 1e11) {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(seconds * 1000)).UTC(), true
}

// oneLine makes a file's text a comment or evidence: one line of n octets at most.
func oneLine(text string, n int) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	return clip(strings.TrimSpace(text), n)
}

// csvHeader is the header of our own files.
var csvHeader = []string{
	"address", "status", "tenant", "mail_class", "list_id", "reason", "origin", "comment",
	"error_count", "provisional", "create_time", "update_time",
}

// readCSV reads our own form, or a bare list of addresses, one a line. Columns that it does not know are left alone.
func (r *fileReader) readCSV() error {
	return r.eachRow(func(first []string) columns {
		if len(first) == 1 && strings.Contains(first[0], "@") {
			return columns{addressColumns[0]: 0}
		}
		return nil
	}, r.csvEntry)
}

func (r *fileReader) csvEntry(c columns, fields []string) (Entry, string, error) {
	column, _ := c.address()
	scope, err := r.csvScope(c, fields)
	if err != nil {
		return Entry{}, "", err
	}
	e, err := r.start(unguarded(cell(fields, column)), scope)
	if err != nil {
		return e, "", err
	}
	e.Comment = oneLine(unguarded(c.of(fields, "comment")), MaxCommentLength)
	var errs [7]error
	e.Status, errs[0] = csvStatus(c.of(fields, "status"))
	e.Reason, errs[1] = csvReason(c.of(fields, "reason"))
	e.Origin, errs[2] = csvOrigin(c.of(fields, "origin"))
	e.Provisional, errs[3] = csvBool("provisional", c.of(fields, "provisional"))
	e.Created, errs[4] = r.time(c.of(fields, "createtime"))
	e.Updated, errs[5] = r.time(c.of(fields, "updatetime"))
	e.Errors, errs[6] = csvErrors(e.Status, c.of(fields, "errorcount"))
	for _, err := range errs {
		if err != nil {
			return e, "", err
		}
	}
	if e.Provisional && e.Status != Quarantined {
		return e, "", problemf("is provisional though %s; only quarantined entries are provisional", e.Status.word())
	}
	e.finish()
	return e, e.Comment, nil
}

// csvScope reads the scope; each cell that is empty says what the defaults say.
func (r *fileReader) csvScope(c columns, fields []string) (Scope, error) {
	tenant, list := c.of(fields, "tenant"), strings.ToLower(c.of(fields, "listid"))
	class, known := valueOf(veredusv1.MailClass_value, classPrefix, c.of(fields, "mailclass"))
	s := Scope{Tenant: tenant, Class: Class(class), List: unguarded(list)}
	switch {
	case !known:
		return s, problemf("has the mail_class %q; use everything or marketing", printable(c.of(fields, "mailclass")))
	case tenant != "" && tenant != anyTenants && !slug(tenant):
		return s, problemf("has the tenant %q; use 1 to %d of a-z, 0-9 and hyphen, or %s for all tenants", printable(tenant), maxTenant, anyTenants)
	case len(s.List) > maxListID || s.List != oneLine(s.List, maxListID):
		return s, problemf("has the list_id %q; use one line of at most %d octets", printable(list), maxListID)
	}
	if tenant == "" {
		s.Tenant = r.defaults.Tenant
		if s.List == "" {
			s.List = r.defaults.List
		}
	}
	if tenant == anyTenants {
		s.Tenant = ""
	}
	if class == 0 {
		s.Class = r.defaults.Class
	}
	return s, nil
}

func csvStatus(word string) (Status, error) {
	value, known := valueOf(veredusv1.AddressStatus_value, statusPrefix, word)
	switch {
	case !known:
		return 0, problemf("has the status %q; use denylisted, quarantined, allowlisted or counting", printable(word))
	case value == 0:
		return Denylisted, nil
	}
	return Status(value), nil
}

func csvReason(word string) (bounce.Reason, error) {
	value, known := valueOf(veredusv1.FailureReason_value, reasonPrefix, word)
	if !known {
		return 0, problemf("has the reason %q; use a reason such as user_unknown or mailbox_full, or leave it empty", printable(word))
	}
	return bounce.Reason(value), nil
}

func csvOrigin(word string) (Origin, error) {
	value, known := valueOf(veredusv1.AddressOrigin_value, originPrefix, word)
	switch {
	case !known:
		return 0, problemf("has the origin %q; use bounce, out_of_band_bounce, complaint, unsubscribe, operator or import, or leave it empty", printable(word))
	case value == 0:
		return FromImport, nil
	}
	return Origin(value), nil
}

func csvBool(name, word string) (bool, error) {
	switch strings.ToLower(word) {
	case "true", "1", "yes":
		return true, nil
	case "false", "0", "no", "":
		return false, nil
	}
	return false, problemf("has %q for %s; use true or false", printable(word), name)
}

// csvErrors reads error_count; an entry that counts has counted at least one.
func csvErrors(status Status, word string) (int, error) {
	n := 0
	if word != "" {
		var err error
		if n, err = strconv.Atoi(word); err != nil || n < 0 || n > MaxThreshold {
			return 0, problemf("has the error_count %q; use 0 to %d", printable(word), MaxThreshold)
		}
	}
	if status == Counting {
		n = max(n, 1)
	}
	return n, nil
}
