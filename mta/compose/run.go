package compose

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/osteele/liquid/values"
)

// ErrLimit is what a message fails with, inside its RenderError, when a template
// exceeds a limit of this package.
var ErrLimit = errors.New("limit exceeded")

// RenderError says why one message cannot be made. Another message of the same
// delivery may well be.
type RenderError struct {
	Field string // the field of Source, in snake case, or variables, to, message_id
	Line  int    // of the template, from 1; 0 where no line is known
	Err   error
}

// Error is the text that the message's log shows.
func (e *RenderError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s: line %d: %v", e.Field, e.Line, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Field, e.Err)
}

// Unwrap returns the cause.
func (e *RenderError) Unwrap() error { return e.Err }

// run is the rendering of one message: what it has used up and what it missed.
// Its limits end a rendering by panic, since much of what counts is called by
// the library from places that return no error; fragment.render recovers.
type run struct {
	ctx     context.Context
	err     error // why the run was ended
	steps   int
	work    int
	out     int
	loud    bool // a value that is missing now is one the content needs
	html    bool
	missing []string
	buf     []byte // what the present fragment wrote
	marks   []int  // the length of buf where each of the fragment's static texts stands
}

// begin makes room for a fragment.
func (r *run) begin() { r.buf, r.marks = r.buf[:0], r.marks[:0] }

// wrote counts output; it ends the run at the message's limit.
func (r *run) wrote(n int) {
	if r.out += n; r.out > MaxOutput {
		r.limit("the message is too large", MaxOutput)
	}
}

// static notes that one of the fragment's static texts, of n octets, stands here.
func (r *run) static(n int) {
	r.wrote(n)
	r.marks = append(r.marks, len(r.buf))
}

// gap returns what was written before static text i.
func (r *run) gap(i int) []byte {
	from, to := 0, len(r.buf)
	if i > 0 {
		from = r.marks[i-1]
	}
	if i < len(r.marks) {
		to = r.marks[i]
	}
	return r.buf[from:to]
}

// fail ends the run.
func (r *run) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	panic(r.err)
}

func (r *run) limit(what string, limit int) {
	r.fail(fmt.Errorf("%w: %s (at most %d)", ErrLimit, what, limit))
}

// spend counts work and, every now and then, looks whether anybody still waits.
func (r *run) spend(n int) {
	before := r.work
	r.work += n
	if r.work > MaxWork {
		r.limit("the templates do too much work", MaxWork)
	}
	if before>>20 != r.work>>20 && r.ctx.Err() != nil {
		r.fail(r.ctx.Err())
	}
}

// step counts one iteration of a loop that holds the given number of tags.
func (r *run) step(tags int) {
	if r.steps++; r.steps > MaxSteps {
		r.limit("the loops take too many steps", MaxSteps)
	}
	if err := r.ctx.Err(); err != nil {
		r.fail(err)
	}
	r.spend(8 * tags)
}

// note records that a variable was needed and not given.
func (r *run) note(name string) {
	if !r.loud || len(r.missing) >= maxMissing {
		return
	}
	name = truncate(name, 200)
	for _, known := range r.missing {
		if known == name {
			return
		}
	}
	r.missing = append(r.missing, name)
}

// keep prepares a value to be held by a variable or passed to a filter: ranges
// become lists, and what is too large ends the run.
func (r *run) keep(v any) any {
	if span, ok := v.(values.Range); ok {
		n := span.Len()
		if n < 0 {
			n = 0
		}
		if n > MaxValue/(itemSize+8) {
			r.limit("a range is too long for a list", MaxValue/(itemSize+8))
		}
		all := make([]any, n)
		for i := range all {
			all[i] = span.Index(i)
		}
		v = r.newList(all)
	}
	r.fits(sizeOf(v))
	return v
}

// fits ends the run if a value of n octets may not be held.
func (r *run) fits(n int) {
	if n > MaxValue || n < 0 {
		r.limit("a value is too large", MaxValue)
	}
}

// outputWriter is where the library writes.
type outputWriter struct{ run *run }

func (w outputWriter) Write(p []byte) (int, error) {
	w.run.wrote(len(p))
	w.run.buf = append(w.run.buf, p...)
	return len(p), nil
}

// captureWriter is where a capture writes.
type captureWriter struct {
	run *run
	buf strings.Builder
}

func (w *captureWriter) Write(p []byte) (int, error) {
	w.run.fits(w.buf.Len() + len(p))
	w.run.spend(len(p))
	return w.buf.Write(p)
}
