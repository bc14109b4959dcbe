package address

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// records is how a form of JSON file names things.
type records struct {
	address string   // the key that every record has
	lists   []string // the keys of documents that hold records
}

// eachRecord calls read for each record of JSON lines, of one or several documents that hold a list,
// or of a bare list, whichever the file is.
func (r *fileReader) eachRecord(names records, read func(raw []byte) (Entry, string, error)) error {
	take := func(number int64, raw []byte) error {
		line := fileLine{number: number}
		var err error
		if line.entry, line.text, err = read(raw); err != nil {
			line.problem = err.Error()
		}
		return r.take(line)
	}
	if r.isLines(names.address) {
		return r.eachLine(take)
	}
	d := newDocuments(r.in, names.lists, take)
	return d.read()
}

// recordProblem says what is wrong with a record of JSON.
func recordProblem(err error, example string) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		if kind.Field == "" {
			return problemf("is a %s and no record; write %s", kind.Value, example)
		}
		return problemf("has a %s for %s; write %s", kind.Value, kind.Field, example)
	}
	return problemf("is no JSON (%v); write %s", err, example)
}

// isLines reports whether the first line is a record by itself.
func (r *fileReader) isLines(address string) bool {
	head, _ := r.in.Peek(maxLine)
	first, _, _ := bytes.Cut(bytes.TrimLeft(head, " \t\r\n"), []byte{'\n'})
	var keys map[string]json.RawMessage
	if json.Unmarshal(first, &keys) != nil {
		return false
	}
	for key := range keys {
		if strings.EqualFold(key, address) {
			return true
		}
	}
	return false
}

// eachLine reads JSON lines. One that is too long or no JSON is told like any other.
func (r *fileReader) eachLine(take func(number int64, raw []byte) error) error {
	lines := newRows(r.in)
	for {
		number := lines.line
		raw, err := r.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if err = lines.skipLine(); err == nil {
				err = r.take(fileLine{number: number, problem: fmt.Sprintf("is longer than %d octets; shorten it", fileBuffer)})
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		lines.line++
		if text := bytes.TrimSpace(raw); len(text) > 0 {
			if err := take(number, text); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// documents reads JSON documents piece by piece.
type documents struct {
	json  *json.Decoder
	meter *meter
	lists []string
	take  func(number int64, raw []byte) error
	found bool // a list
}

func newDocuments(in io.Reader, lists []string, take func(int64, []byte) error) *documents {
	m := &meter{in: in, left: fileBuffer, line: 1}
	return &documents{json: json.NewDecoder(m), meter: m, lists: lists, take: take}
}

func (d *documents) read() error {
	for {
		token, err := d.token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			switch token {
			case json.Delim('['):
				err = d.list()
			case json.Delim('{'):
				err = d.document()
			default:
				err = d.broken("holds neither a document nor a list", "give the JSON as it was exported")
			}
		}
		if err != nil {
			return d.explain(err)
		}
	}
	if !d.found {
		return d.broken("is the end and there was no list called "+strings.Join(d.lists, " or "), "give the JSON as it was exported, or choose another format")
	}
	return nil
}

// document reads the lists of an object and passes over everything else in it.
func (d *documents) document() error {
	for d.json.More() {
		key, err := d.token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if !slices.ContainsFunc(d.lists, func(list string) bool { return strings.EqualFold(list, name) }) {
			if _, err := d.value(); err != nil {
				return err
			}
			continue
		}
		open, err := d.token()
		if err != nil {
			return err
		}
		if open != json.Delim('[') {
			return d.broken(name+" is no list", "give the JSON as it was exported")
		}
		if err := d.list(); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// list reads the records of a list behind its opening bracket.
func (d *documents) list() error {
	d.found = true
	for d.json.More() {
		raw, err := d.value()
		if err != nil {
			return err
		}
		line := d.meter.at(d.json.InputOffset()) - int64(bytes.Count(raw, []byte{'\n'}))
		if err := d.take(line, raw); err != nil {
			return &takeError{err}
		}
	}
	_, err := d.token()
	return err
}

func (d *documents) token() (json.Token, error) {
	d.meter.left = fileBuffer
	return d.json.Token()
}

func (d *documents) value() (raw json.RawMessage, err error) {
	d.meter.left = fileBuffer
	err = d.json.Decode(&raw)
	return raw, err
}

// takeError is an error of whoever takes the lines, not of the JSON.
type takeError struct{ error }

func (e *takeError) Unwrap() error { return e.error }

// explain says where JSON that cannot be read breaks.
func (d *documents) explain(err error) error {
	var taken *takeError
	var known *InvalidError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &taken):
		return taken.error
	case errors.As(err, &known):
		return err
	case errors.As(err, &syntax):
		return d.broken("is the last that can be read, the JSON breaks behind it: "+syntax.Error(), "repair the file and import it again; what was read before is imported")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return d.broken("is the last though the JSON goes on", "give the whole file; what was read before is imported")
	case errors.Is(err, errTooLong):
		return d.broken(fmt.Sprintf("begins a value longer than %d octets", fileBuffer), "shorten it")
	}
	return err
}

func (d *documents) broken(problem, remedy string) error {
	return broken(d.meter.at(d.json.InputOffset()), problem, remedy)
}

var errTooLong = errors.New("address: a JSON value is too long")

// meter bounds what a decoder reads for one value, and counts lines.
type meter struct {
	in       io.Reader
	left     int // octets until the value is too long
	read     int64
	line     int64   // at the offset last asked for
	newlines []int64 // offsets of those read and not asked for yet
}

// Read reads what the value may still take.
func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errTooLong
	}
	n, err := m.in.Read(p[:min(len(p), m.left)])
	m.left -= n
	for i, c := range p[:n] {
		if c == '\n' {
			m.newlines = append(m.newlines, m.read+int64(i))
		}
	}
	m.read += int64(n)
	return n, err
}

// at is the line of an offset, which must not go back.
func (m *meter) at(offset int64) int64 {
	passed := 0
	for passed < len(m.newlines) && m.newlines[passed] < offset {
		passed++
	}
	m.line += int64(passed)
	m.newlines = m.newlines[:copy(m.newlines, m.newlines[passed:])]
	return m.line
}
