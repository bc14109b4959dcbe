package rulefile

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Error is one thing that is wrong with a file.
type Error struct {
	File string
	// Line is 0 when the whole file is meant.
	Line int
	// Text names the field, the value and the remedy.
	Text string
}

// Error is "file:line: text".
func (e Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// Errors is everything that is wrong with a file, by line.
type Errors struct {
	// List has at most MaxErrors entries.
	List []Error
	// More counts those beyond.
	More int
}

// MaxErrors is how many errors of one file are listed.
const MaxErrors = 20

// Error lists the errors, one a line.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, one := range e.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// Unwrap gives each Error to errors.As.
func (e *Errors) Unwrap() []error {
	list := make([]error, len(e.List))
	for i, one := range e.List {
		list[i] = one
	}
	return list
}

func (e *Errors) count() int { return len(e.List) + e.More }

func (p *parser) err() error {
	slices.SortStableFunc(p.errs.List, func(a, b Error) int { return a.Line - b.Line })
	return &p.errs
}

func (p *parser) add(line int, text string) {
	if len(p.errs.List) == MaxErrors {
		p.errs.More++
		return
	}
	p.errs.List = append(p.errs.List, Error{File: p.file, Line: line, Text: text})
}

func (p *parser) addf(node *yaml.Node, format string, args ...any) {
	p.add(node.Line, fmt.Sprintf(format, args...))
}
