package config

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a file.
type Error struct {
	File string
	// Line is 0 when the whole file is meant.
	Line int
	// Text names the key, the value and the remedy.
	Text string
}

// Error is "file:line: text".
func (e Error) Error() string {
	switch {
	case e.File == "":
		return e.Text
	case e.Line == 0:
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// MaxErrors is how many errors are listed.
const MaxErrors = 50

// Errors is everything that is wrong with a configuration.
type Errors struct {
	// List has at most MaxErrors entries.
	List []Error
	// More counts those beyond.
	More int
}

// Error lists the errors, one a line.
func (e *Errors) Error() string {
	lines := make([]string, 0, len(e.List)+1)
	for _, one := range e.List {
		lines = append(lines, one.Error())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// Add appends an error.
func (e *Errors) Add(one Error) {
	if len(e.List) == MaxErrors {
		e.More++
		return
	}
	e.List = append(e.List, one)
}

// OrNil is e as an error, nil when nothing is wrong.
func (e *Errors) OrNil() error {
	if e.count() == 0 {
		return nil
	}
	return e
}

func (e *Errors) count() int { return len(e.List) + e.More }

func (e *Errors) sorted() *Errors {
	slices.SortStableFunc(e.List, func(a, b Error) int { return a.Line - b.Line })
	return e
}
