package dkim

import (
	"bytes"
	"errors"
	"fmt"
)

// field is a header field that signatures cover.
type field struct {
	place int    // in covered
	value []byte // behind the colon, folds included, without the last CRLF
}

// fields is what a signature needs of a header block.
type fields struct {
	list   []field // the covered ones, from top to bottom
	counts [len(covered)]int
}

// read takes a header block: its fields, each ending in CRLF, up to the empty line.
// It returns what stands behind that line, and whether there is one.
func (f *fields) read(block []byte) (rest []byte, ended bool, err error) {
	f.list, f.counts = f.list[:0], [len(covered)]int{}
	last := -1 // the field that a folded line goes on with, -1 for none that is covered
	for number := 1; len(block) > 0; number++ {
		line, rest, ok := bytes.Cut(block, crlf)
		switch {
		case !ok:
			return nil, false, errors.New("dkim: the last line of the header has no end; end every line with CRLF")
		case len(line) == 0:
			return rest, true, nil
		case number > 1 && isBlank(line[0]):
			if last >= 0 {
				value := f.list[last].value
				f.list[last].value = value[:len(value)+len(crlf)+len(line)]
			}
		default:
			if last, err = f.add(line, number); err != nil {
				return nil, false, err
			}
		}
		block = rest
	}
	return nil, false, nil
}

// add takes the first line of a field. It returns its place in fields, or -1.
func (f *fields) add(line []byte, number int) (int, error) {
	colon := bytes.IndexByte(line, ':')
	name := line[:max(colon, 0)]
	for len(name) > 0 && isBlank(name[len(name)-1]) {
		name = name[:len(name)-1] // as in old mail, RFC 5322 section 4.5.8
	}
	if !isFieldName(name) {
		return -1, fmt.Errorf("dkim: line %d of the header is no header field (name: value)", number)
	}
	place := coverageOf(name)
	if place < 0 {
		return -1, nil
	}
	f.counts[place]++
	f.list = append(f.list, field{place, line[colon+1:]})
	return len(f.list) - 1, nil
}

// isFieldName reports whether a name is one by RFC 5322 section 3.6.8. Verifiers
// disagree about all others.
func isFieldName(name []byte) bool {
	for _, c := range name {
		if c < 33 || c > 126 {
			return false
		}
	}
	return len(name) > 0
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// appendNames appends the value of the h= tag, after checking that it can say what
// it must.
func (f *fields) appendNames(dst []byte) ([]byte, error) {
	if f.counts[0] != 1 {
		return nil, fmt.Errorf("dkim: the message has %d From fields; it must have one (RFC 5322 section 3.6)", f.counts[0])
	}
	octets := 0
	for i, c := range &covered {
		times := f.counts[i]
		if c.over {
			times++
		}
		if octets += times * (len(c.name) + 1); octets > maxHeaderList {
			return nil, fmt.Errorf("dkim: the message has %d %s fields; send each field once", f.counts[i], c.name)
		}
		for range times {
			dst = append(append(dst, c.name...), ':')
		}
	}
	return dst[:len(dst)-1], nil
}

// appendCanonical appends the fields in relaxed form, in the order of the h= tag. Of
// several of one name the lowest comes first (RFC 6376 section 5.4.2).
func (f *fields) appendCanonical(dst []byte) []byte {
	for place := range covered {
		left := f.counts[place]
		for i := len(f.list) - 1; left > 0; i-- {
			if one := &f.list[i]; one.place == place {
				dst = append(append(dst, covered[place].lower...), ':')
				dst = appendRelaxed(dst, one.value)
				dst = append(dst, "\r\n"...)
				left--
			}
		}
	}
	return dst
}

// appendRelaxed appends the value of a field in relaxed form (RFC 6376 section
// 3.4.2): unfolded, white space as one space, none at either end.
func appendRelaxed(dst, value []byte) []byte {
	begin, blank := len(dst), false
	for _, c := range value {
		if c == ' ' || breaks(c) {
			blank = true
			continue
		}
		if blank && len(dst) > begin {
			dst = append(dst, ' ')
		}
		dst, blank = append(dst, c), false
	}
	return dst
}

// coverageOf returns the place of a field in covered, or -1.
func coverageOf(name []byte) int {
	for i := range covered {
		if c := covered[i].name; len(c) == len(name) && equalFold(c, name) {
			return i
		}
	}
	return -1
}

// equalFold compares ASCII names of one length.
func equalFold(name string, other []byte) bool {
	for i := range other {
		if lower(name[i]) != lower(other[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

var crlf = []byte("\r\n")

// checkLineEnds refuses a CR or LF that is not part of a CRLF: a server on the
// way would have to refuse or mend it (RFC 5321 section 2.3.8).
func checkLineEnds(message []byte) error {
	pairs := bytes.Count(message, crlf)
	if bytes.Count(message, []byte{'\r'}) == pairs && bytes.Count(message, []byte{'\n'}) == pairs {
		return nil
	}
	return bareError(message)
}

func bareError(message []byte) error {
	return fmt.Errorf("dkim: the message has a bare CR or LF at octet %d; end every line with CRLF", bareAt(message))
}

func bareAt(message []byte) int {
	for i, c := range message {
		loneCR := c == '\r' && (i+1 == len(message) || message[i+1] != '\n')
		loneLF := c == '\n' && (i == 0 || message[i-1] != '\r')
		if loneCR || loneLF {
			return i
		}
	}
	return len(message)
}
