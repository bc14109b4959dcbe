package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"
)

// plainEvery is how often a bar is printed where there is no terminal.
const plainEvery = 2 * time.Second

// progress shows bars on a terminal, and lines now and then elsewhere.
type progress struct {
	out       io.Writer
	container *mpb.Progress // nil without a terminal
	mu        sync.Mutex    // of out, without a terminal
}

// newProgress shows progress on out. The caller ends it with close.
func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if f, ok := out.(*os.File); ok && cwriter.IsTerminal(int(f.Fd())) {
		p.container = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond))
	}
	return p
}

// close leaves the bars as they are. Every bar must have ended.
func (p *progress) close() {
	if p.container != nil {
		p.container.Wait()
	}
}

// bar is one line of progress. Its methods are safe for concurrent use.
type bar struct {
	p       *progress
	title   string
	total   int64 // 0 while unknown
	current atomic.Int64
	text    atomic.Pointer[string]
	shown   *mpb.Bar
	last    time.Time // of the last plain line; under p.mu
	line    string    // the last plain line; under p.mu
	quiet   bool      // not shown without a terminal
}

// bar adds a line. A total of 0 is not known yet. A detail is left out where there
// is no terminal.
func (p *progress) bar(title string, total int64, detail bool) *bar {
	b := &bar{p: p, title: title, total: total, quiet: detail, last: time.Now()}
	empty := ""
	b.text.Store(&empty)
	if p.container == nil {
		return b
	}
	// Without a total of its own the bar ends only when told to.
	b.shown = p.container.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░"),
		mpb.PrependDecorators(decor.Name(title, decor.WCSyncSpaceR), decor.Any(func(decor.Statistics) string { return b.count() }, decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *b.text.Load() })),
	)
	b.shown.SetTotal(max(total, 1), false)
	return b
}

// count is "12 of 40", or "12".
func (b *bar) count() string {
	if b.total == 0 {
		return thousands(b.current.Load())
	}
	return thousands(b.current.Load()) + " of " + thousands(b.total)
}

// set moves the bar; text stands behind it.
func (b *bar) set(current int64, text string) {
	b.current.Store(current)
	b.text.Store(&text)
	if b.shown != nil {
		b.shown.SetCurrent(current)
		return
	}
	b.plain(false)
}

// done ends the bar.
func (b *bar) done() {
	if b.shown == nil {
		b.plain(true)
		return
	}
	if b.total == 0 || b.current.Load() >= b.total {
		b.shown.SetTotal(-1, true)
		return
	}
	b.shown.Abort(false)
}

func (b *bar) plain(last bool) {
	if b.quiet {
		return
	}
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	now := time.Now()
	if !last && now.Sub(b.last) < plainEvery {
		return
	}
	line := b.title + " " + b.count()
	if text := *b.text.Load(); text != "" {
		line += "  " + text
	}
	if line == b.line {
		return // nothing happened
	}
	b.last, b.line = now, line
	fmt.Fprintln(b.p.out, line)
}
