package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// recipientFile is a list of recipients as CSV or JSON lines, read in one pass
// without keeping it in memory.
type recipientFile struct {
	name      string    // "-" is standard input
	format    string    // csv or jsonl
	separator rune      // of CSV; 0 finds out
	stdin     io.Reader // read once
	started   bool      // stdin was read
}

// openRecipients finds out the format by the name where it is not given.
func openRecipients(name, format string, separator rune, stdin io.Reader) (*recipientFile, error) {
	if format == "" {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".jsonl", ".ndjson", ".json":
			format = "jsonl"
		case ".csv", ".tsv", ".txt":
			format = "csv"
		default:
			return nil, fmt.Errorf("%s: cannot tell the format from the name; give --format csv or --format jsonl", displayName(name))
		}
	}
	if format != "csv" && format != "jsonl" {
		return nil, fmt.Errorf("--format %q: use csv or jsonl", format)
	}
	return &recipientFile{name: name, format: format, separator: separator, stdin: stdin}, nil
}

func displayName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// source yields the recipients from index first on; see client.Source.
func (f *recipientFile) source(first int64) iter.Seq2[*veredusv1.Recipient, error] {
	return func(yield func(*veredusv1.Recipient, error) bool) {
		in, err := f.open()
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = in.Close() }()
		index := int64(0)
		for r, err := range f.read(in) {
			if index++; err == nil && index < first {
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func (f *recipientFile) open() (io.ReadCloser, error) {
	if f.name != "-" {
		return os.Open(f.name)
	}
	if f.started {
		return nil, errors.New("standard input cannot be read again from the beginning; give a file to go on after this")
	}
	f.started = true
	return io.NopCloser(f.stdin), nil
}

// count reads the whole file once, so that mistakes show before anything is sent.
func (f *recipientFile) count() (n int64, err error) {
	for _, err := range f.source(1) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (f *recipientFile) read(in io.Reader) iter.Seq2[*veredusv1.Recipient, error] {
	buffered := bufio.NewReaderSize(in, 64<<10)
	if mark, err := buffered.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3) // a byte order mark, as spreadsheets write
	}
	if f.format == "jsonl" {
		return f.readLines(buffered)
	}
	return f.readCSV(buffered)
}

// columns says what each column of a CSV file is.
type columns struct {
	names               []string
	address, recipient  int
	engaged             int // -1: none
	metadata, variables map[int]string
}

// addressColumns and idColumn are the names of columns with a meaning; the names
// are compared ignoring case. metadataPrefix marks columns of metadata.
const (
	idColumn       = "recipient_id"
	engagedColumn  = "engaged"
	metadataPrefix = "metadata."
)

func isAddressColumn(name string) bool {
	switch strings.ToLower(name) {
	case "address", "email", "e-mail":
		return true
	}
	return false
}

func readHeader(row []string) (*columns, error) {
	c := &columns{names: row, address: -1, recipient: -1, engaged: -1, metadata: map[int]string{}, variables: map[int]string{}}
	seen := map[string]bool{}
	for i, name := range row {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return nil, fmt.Errorf("column %d of the header row has no name; name every column", i+1)
		case seen[name]:
			return nil, fmt.Errorf("column %q occurs twice in the header row; give each its own name", name)
		case isAddressColumn(name) && c.address < 0:
			c.address = i
		case strings.EqualFold(name, idColumn):
			c.recipient = i
		case strings.EqualFold(name, engagedColumn):
			c.engaged = i
		case strings.HasPrefix(name, metadataPrefix):
			c.metadata[i] = strings.TrimPrefix(name, metadataPrefix)
		default:
			c.variables[i] = name
		}
		seen[name] = true
	}
	if c.address < 0 {
		return nil, fmt.Errorf("the header row has no column \"email\" or \"address\" but %s; the first line must name the columns", strings.Join(quoted(row), ", "))
	}
	return c, nil
}

func quoted(words []string) []string {
	out := make([]string, 0, len(words))
	for _, w := range words[:min(len(words), 8)] {
		out = append(out, fmt.Sprintf("%.30q", w))
	}
	return out
}

func (f *recipientFile) readCSV(in *bufio.Reader) iter.Seq2[*veredusv1.Recipient, error] {
	return func(yield func(*veredusv1.Recipient, error) bool) {
		reader := csv.NewReader(in)
		reader.Comma = f.comma(in)
		reader.ReuseRecord = true
		header, err := reader.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the file is empty; its first line must name the columns, for example: email,name")
			}
			yield(nil, f.at(0, err))
			return
		}
		cols, err := readHeader(append([]string(nil), header...))
		if err != nil {
			yield(nil, f.at(1, err))
			return
		}
		for {
			row, err := reader.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, f.at(0, err))
				return
			}
			r, err := cols.recipientOf(row)
			if err != nil {
				line, _ := reader.FieldPos(0)
				err = f.at(line, err)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// comma is the separator: the one given, or of comma, semicolon and tab the one
// that the first line has most of.
func (f *recipientFile) comma(in *bufio.Reader) rune {
	if f.separator != 0 {
		return f.separator
	}
	head, _ := in.Peek(4 << 10)
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		head = head[:i]
	}
	best := ','
	for _, c := range ";\t" {
		if bytes.Count(head, []byte(string(c))) > bytes.Count(head, []byte(string(best))) {
			best = c
		}
	}
	return best
}

func (c *columns) recipientOf(row []string) (*veredusv1.Recipient, error) {
	r := &veredusv1.Recipient{Address: strings.TrimSpace(row[c.address])}
	if c.recipient >= 0 {
		r.RecipientId = row[c.recipient]
	}
	if c.engaged >= 0 {
		var err error
		if r.Engaged, err = engaged(row[c.engaged]); err != nil {
			return nil, err
		}
	}
	for i, key := range c.metadata {
		if row[i] != "" {
			if r.Metadata == nil {
				r.Metadata = map[string]string{}
			}
			r.Metadata[key] = row[i]
		}
	}
	if len(c.variables) == 0 {
		return r, nil
	}
	variables := make(map[string]string, len(c.variables))
	for i, name := range c.variables {
		variables[name] = row[i]
	}
	var err error
	r.Variables, err = json.Marshal(variables)
	return r, err
}

// engaged reads whether a recipient opened or clicked lately; nothing is no.
func engaged(word string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "true", "yes", "1":
		return true, nil
	case "false", "no", "0", "":
		return false, nil
	}
	return false, fmt.Errorf("%s: %.40q is neither true nor false", engagedColumn, word)
}

// maxLine bounds a line of JSON: variables may have 100 KB, metadata 1 KB.
const maxLine = 1 << 20

func (f *recipientFile) readLines(in io.Reader) iter.Seq2[*veredusv1.Recipient, error] {
	return func(yield func(*veredusv1.Recipient, error) bool) {
		scanner := bufio.NewScanner(in)
		scanner.Buffer(make([]byte, 64<<10), maxLine)
		line := 0
		for scanner.Scan() {
			line++
			if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
				continue
			}
			r, err := parseLine(scanner.Bytes())
			if err != nil {
				err = f.at(line, err)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("the line is longer than %d bytes", maxLine)
			}
			yield(nil, f.at(line+1, err))
		}
	}
}

// parseLine reads one JSON object: address (or email), recipient_id, engaged, metadata and
// variables; every other key is a variable, too.
func parseLine(data []byte) (*veredusv1.Recipient, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	r := &veredusv1.Recipient{}
	var variables map[string]json.RawMessage
	addresses := 0
	for key, value := range fields {
		var err error
		switch {
		case isAddressColumn(key):
			addresses++
			err = json.Unmarshal(value, &r.Address)
		case key == idColumn:
			err = json.Unmarshal(value, &r.RecipientId)
		case key == engagedColumn:
			err = json.Unmarshal(value, &r.Engaged)
		case key == "metadata":
			err = json.Unmarshal(value, &r.Metadata)
		case key == "variables":
			err = json.Unmarshal(value, &variables)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
	}
	if addresses != 1 {
		return nil, fmt.Errorf(`%d addresses; give one as "address" or "email"`, addresses)
	}
	if variables == nil {
		variables = map[string]json.RawMessage{}
	}
	for key, value := range fields {
		if isAddressColumn(key) || key == idColumn || key == engagedColumn || key == "metadata" || key == "variables" {
			continue
		}
		if _, twice := variables[key]; twice {
			return nil, fmt.Errorf("%q is given beside \"variables\" and within; give it once", key)
		}
		variables[key] = value
	}
	var err error
	if len(variables) > 0 {
		r.Variables, err = json.Marshal(variables)
	}
	return r, err
}

// at names file and line in front of an error; csv's own errors have the line.
func (f *recipientFile) at(line int, err error) error {
	var parse *csv.ParseError
	switch {
	case errors.As(err, &parse):
		return fmt.Errorf("%s:%d: %w", displayName(f.name), parse.Line, parse.Err)
	case line == 0:
		return fmt.Errorf("%s: %w", displayName(f.name), err)
	}
	return fmt.Errorf("%s:%d: %w", displayName(f.name), line, err)
}
