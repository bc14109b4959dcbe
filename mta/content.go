package mta

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/veredus/veredus/mta/compose"
)

// What is kept of compiled contents: so many, and about so many octets, but at least one.
const (
	maxContents    = 256
	maxContentSize = 64 << 20
)

// contents keeps compiled contents, the least recently used leaving first.
type contents struct {
	store Store
	mu    sync.Mutex
	clock uint64
	size  int // octets that those in by hold
	by    map[uint64]*content
}

// content is compiled once; ready is closed when tmpl or err is set.
type content struct {
	used  uint64
	size  int // octets, once it is compiled
	ready chan struct{}
	tmpl  *compose.Template
	err   error
}

func newContents(store Store) *contents {
	return &contents{store: store, by: map[uint64]*content{}}
}

// get answers a compiled content. A content that does not compile is a
// *compose.RenderError of each of its messages.
func (c *contents) get(ctx context.Context, id uint64) (*compose.Template, error) {
	entry, mine := c.entry(id)
	if mine {
		c.compile(ctx, id, entry)
	}
	select {
	case <-entry.ready:
		return entry.tmpl, entry.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// entry finds or makes the entry; mine says that the caller shall compile.
func (c *contents) entry(id uint64) (e *content, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	if e = c.by[id]; e != nil {
		e.used = c.clock
		return e, false
	}
	if len(c.by) >= maxContents {
		c.evict()
	}
	e = &content{used: c.clock, ready: make(chan struct{})}
	c.by[id] = e
	return e, true
}

func (c *contents) evict() {
	var oldest uint64
	least := c.clock + 1
	for id, e := range c.by {
		if e.used < least {
			oldest, least = id, e.used
		}
	}
	c.size -= c.by[oldest].size
	delete(c.by, oldest)
}

// weigh makes room for a content that was just compiled.
func (c *contents) weigh(id uint64, e *content) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[id] != e {
		return // others needed its place meanwhile
	}
	c.clock++
	e.used, e.size = c.clock, e.tmpl.Size()
	c.size += e.size
	for c.size > maxContentSize && len(c.by) > 1 {
		c.evict()
	}
}

func (c *contents) compile(ctx context.Context, id uint64, e *content) {
	defer close(e.ready)
	src, err := c.store.Content(ctx, id)
	if err == nil {
		e.tmpl, err = compile(src)
	}
	if err == nil {
		c.weigh(id, e)
		return
	}
	e.err = err
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[id] == e {
		delete(c.by, id) // the next message asks again
	}
}

func compile(src *compose.Source) (t *compose.Template, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, &compose.RenderError{Err: fmt.Errorf("panic: %v", p)}
		}
	}()
	if src == nil {
		return nil, &compose.RenderError{Err: errors.New("the content is gone")}
	}
	if t, err = compose.Compile(*src); err != nil {
		return nil, &compose.RenderError{Err: err}
	}
	return t, nil
}
