package address

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine is the longest line of a file, in octets: an entry with every field at its limit takes a tenth of it.
const maxLine = 10 << 10

// fileBuffer holds several lines; it is all that reading a file keeps of it.
const fileBuffer = 64 << 10

// newFileBuffer reads a file without its byte order mark.
func newFileBuffer(in io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(&lasting{in: in}, fileBuffer)
	switch head, _ := b.Peek(3); {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		_, _ = b.Discard(3)
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return nil, broken(1, "is in UTF-16", "save the file in UTF-8")
	}
	return b, nil
}

// lasting repeats the error of a reader, since looking ahead may meet it first.
type lasting struct {
	in  io.Reader
	err error
}

// Read reads until the first error.
func (l *lasting) Read(p []byte) (n int, err error) {
	if l.err == nil {
		n, l.err = l.in.Read(p)
	}
	return n, l.err
}

// broken is a file that cannot be read further.
func broken(line int64, problem, remedy string) error {
	return invalid("data", fmt.Sprintf("line %d", line), problem, remedy)
}

// rows reads the records of a CSV file (RFC 4180) and is lenient with line ends, spaces
// around fields and quotes inside them. A record may span lines within quotes. Whatever is
// in the file, it holds one buffer.
type rows struct {
	in     *bufio.Reader
	comma  byte
	line   int64 // of the next record, from 1
	fields []string
}

func newRows(in *bufio.Reader) *rows { return &rows{in: in, comma: ',', line: 1} }

// row is a record of a CSV file, or what is wrong with it.
type row struct {
	line    int64
	fields  []string // until the next call
	problem string
}

// next reads a record that is not blank; io.EOF at the end.
func (r *rows) next() (row, error) {
	for {
		window, err := r.in.Peek(maxLine + 1)
		if len(window) == 0 || err != nil && !errors.Is(err, io.EOF) {
			return row{}, err
		}
		got := row{line: r.line}
		size, problem := r.measure(window)
		text := string(bytes.TrimRight(window[:size], "\r\n"))
		if err := r.skip(window, size); err != nil {
			return row{}, err
		}
		if got.problem = problem; problem == "" {
			if strings.Trim(text, " \t\r\n") == "" {
				continue
			}
			got.fields, got.problem = r.split(text)
		}
		return got, nil
	}
}

// measure finds the end of the record at the start of the window, which ends short
// only at the end of the file. A record whose quotes do not close ends with its first
// line, so that one stray quote costs one line.
func (r *rows) measure(window []byte) (size int, problem string) {
	first := bytes.IndexByte(window, '\n') + 1
	last := len(window) <= maxLine
	if first > 0 && bytes.IndexByte(window[:first], '"') < 0 {
		return first, ""
	}
	size, closed := r.recordEnd(window)
	switch {
	case size > 0:
		return size, ""
	case closed && last:
		return len(window), ""
	case !closed && first > 0:
		return first, "has a quotation mark without its partner; close it, or double those inside a field"
	case !closed && last:
		return len(window), "has a quotation mark without its partner; close it, or double those inside a field"
	}
	return len(window), fmt.Sprintf("is longer than %d octets; shorten it", maxLine)
}

// recordEnd is the length of the record up to its line end; 0 when it has none in the
// window, and closed tells whether the window ends outside of quotes.
func (r *rows) recordEnd(window []byte) (size int, closed bool) {
	quoted, start := false, true
	for i := 0; i < len(window); i++ {
		switch c := window[i]; {
		case quoted && c == '"' && i+1 < len(window) && window[i+1] == '"':
			i++
		case quoted && c == '"':
			quoted = false
		case quoted:
		case c == '\n':
			return i + 1, true
		case c == '"' && start:
			quoted, start = true, false
		case c == r.comma:
			start = true
		case c != ' ' && c != '\t':
			start = false
		}
	}
	return 0, !quoted
}

// skip moves behind the record, and behind the whole line of one that is too long.
func (r *rows) skip(window []byte, size int) error {
	r.line += int64(bytes.Count(window[:size], []byte{'\n'}))
	whole := window[size-1] == '\n'
	if _, err := r.in.Discard(size); err != nil || whole {
		return err
	}
	return r.skipLine()
}

// skipLine moves behind the next line end, or to the end of the file.
func (r *rows) skipLine() error {
	for {
		_, err := r.in.ReadSlice('\n')
		switch {
		case err == nil:
			r.line++
			return nil
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// split cuts a record into fields. A field in quotes may hold commas, line ends and doubled quotes.
func (r *rows) split(text string) (fields []string, problem string) {
	r.fields = r.fields[:0]
	for {
		field, rest, more := text, "", false
		if quoted := strings.TrimLeft(text, " \t"); strings.HasPrefix(quoted, `"`) && r.comma != '"' {
			field, rest = unquote(quoted[1:])
			rest = strings.TrimLeft(rest, " \t")
			if more = rest != ""; more && rest[0] != r.comma {
				return nil, "has text behind a closing quotation mark; double the quotation marks inside a field"
			}
			if more {
				rest = rest[1:]
			}
		} else {
			field, rest, more = strings.Cut(text, string(rune(r.comma)))
			field = strings.TrimSpace(field)
		}
		r.fields = append(r.fields, field)
		if !more {
			return r.fields, ""
		}
		text = rest
	}
}

// unquote reads a field behind its opening quote, and answers what follows the closing one.
func unquote(text string) (field, rest string) {
	end := strings.IndexByte(text, '"')
	if end < 0 {
		return text, ""
	}
	if !strings.HasPrefix(text[end:], `""`) {
		return strings.TrimSpace(text[:end]), text[end+1:]
	}
	var b strings.Builder
	for {
		end := strings.IndexByte(text, '"')
		if end < 0 {
			return strings.TrimSpace(b.String() + text), ""
		}
		b.WriteString(text[:end])
		if !strings.HasPrefix(text[end:], `""`) {
			return strings.TrimSpace(b.String()), text[end+1:]
		}
		b.WriteByte('"')
		text = text[end+2:]
	}
}

// guessComma chooses the separator by the first line: comma, semicolon (spreadsheets where
// the comma is decimal) or tab.
func (r *rows) guessComma() {
	window, _ := r.in.Peek(maxLine)
	if end := bytes.IndexByte(window, '\n'); end >= 0 {
		window = window[:end]
	}
	most := 0
	for _, c := range []byte(",;\t") {
		if n := bytes.Count(window, []byte{c}); n > most {
			r.comma, most = c, n
		}
	}
}
