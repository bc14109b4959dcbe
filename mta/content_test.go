package mta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/veredus/veredus/mta/compose"
)

// shelf is a store of which only contents are read.
type shelf struct {
	Store
	read func(id uint64) (*compose.Source, error)
	asks atomic.Int64
}

func (s *shelf) Content(_ context.Context, id uint64) (*compose.Source, error) {
	s.asks.Add(1)
	return s.read(id)
}

func says(subject string) *compose.Source {
	return &compose.Source{From: compose.Mailbox{Address: "news@sender.example"}, Subject: subject, Text: "text"}
}

// However many sessions want a content at once, it is read and compiled once.
func TestContentIsCompiledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &shelf{read: func(uint64) (*compose.Source, error) { <-gate; return says("hello"), nil }}
		c := newContents(s)
		got := make(chan *compose.Template, 50)
		for range cap(got) {
			go func() {
				tmpl, err := c.get(t.Context(), 1)
				if err != nil {
					t.Error(err)
				}
				got <- tmpl
			}()
		}
		synctest.Wait()
		close(gate)
		first := <-got
		for range cap(got) - 1 {
			if tmpl := <-got; tmpl == nil || tmpl != first {
				t.Error("another template")
			}
		}
		if n := s.asks.Load(); n != 1 {
			t.Errorf("read %d times", n)
		}
	})
}

// The cache keeps what was used last, and no more than it may.
func TestContentsAreBounded(t *testing.T) {
	s := &shelf{read: func(id uint64) (*compose.Source, error) { return says(fmt.Sprint(id)), nil }}
	c := newContents(s)
	for id := range uint64(3 * maxContents) {
		for _, want := range []uint64{0, id} { // 0 stays in use
			if _, err := c.get(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(c.by) > maxContents {
		t.Errorf("%d contents are kept, want at most %d", len(c.by), maxContents)
	}
	if n := s.asks.Load(); n != 3*maxContents {
		t.Errorf("%d reads for %d contents: one in use was dropped", n, 3*maxContents)
	}
}

// Large contents leave sooner than small ones would.
func TestContentsAreBoundedByTheirSize(t *testing.T) {
	large := says("hello")
	large.Text = strings.Repeat("one line of a very long text\n", 30_000)
	s := &shelf{read: func(uint64) (*compose.Source, error) { return large, nil }}
	c := newContents(s)
	for id := range uint64(maxContents) {
		if _, err := c.get(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	held := 0
	for _, e := range c.by {
		held += e.size
	}
	if held != c.size || held > maxContentSize || held < maxContentSize/2 {
		t.Errorf("%d contents hold %d octets, counted as %d, want at most %d", len(c.by), held, c.size, maxContentSize)
	}
	if _, kept := c.by[maxContents-1]; !kept {
		t.Error("the last content is not kept")
	}
}

// A failure is told to those who wait, and the next one asks again.
func TestContentFailuresAreNotKept(t *testing.T) {
	broken := errors.New("disk on fire")
	var now error
	source := says("hello")
	s := &shelf{read: func(uint64) (*compose.Source, error) { return source, now }}
	c := newContents(s)
	for name, c2 := range map[string]struct {
		err    error
		source *compose.Source
		render bool // it is each message's own failure
	}{
		"the store fails":             {err: broken},
		"the content does not parse":  {source: says("{{ unfinished"), render: true},
		"the content does not exist":  {render: true},
		"the reader was told to stop": {err: context.Canceled},
	} {
		now, source = c2.err, c2.source
		_, err := c.get(t.Context(), 1)
		var render *compose.RenderError
		if err == nil || errors.As(err, &render) != c2.render || c2.err != nil && !errors.Is(err, c2.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	now, source = nil, says("hello")
	if _, err := c.get(t.Context(), 1); err != nil {
		t.Errorf("after the failures: %v", err)
	}
}

// A session that is told to stop does not wait for another's compilation.
func TestContentWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &shelf{read: func(uint64) (*compose.Source, error) { <-gate; return says("hello"), nil }}
		c := newContents(s)
		go func() { _, _ = c.get(t.Context(), 1) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.get(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(gate)
	})
}
