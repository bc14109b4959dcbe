package mta

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// newsEvery is how often a path is news: what happens to it within a minute of an event
// comes together in the next one.
const newsEvery = time.Minute

// pathNews coalesces what happens to paths: one event of each path a minute, with the
// latest state and how many changes it stands for. It is pure: the owner asks it what
// is to be written.
type pathNews struct {
	every time.Duration
	paths map[pathName]*pathReport
	turns []*pathReport // by when they are due: each waits equally long
}

type pathName struct{ source, destination string }

// pathReport is a path that was news less than a minute ago.
type pathReport struct {
	name  pathName
	due   time.Time
	since time.Time  // of the first change that waits
	last  RelayEvent // the latest of them
	cut   RelayEvent // the latest that slowed the path
	kinds [PathRaisedEvent + 1]int
	count int // 0: nothing waits
}

// add takes a change and answers what is to be written at once: the change, unless
// its path was news a moment ago.
func (n *pathNews) add(now time.Time, e RelayEvent) []RelayEvent {
	events := n.due(now)
	name := pathName{e.Source, e.Destination}
	e.Time = now
	r := n.paths[name]
	if r == nil {
		n.wait(&pathReport{name: name}, now)
		return append(events, e)
	}
	if r.count == 0 {
		r.since = now
	}
	r.count++
	r.kinds[e.Kind]++
	r.last = e
	if e.Kind == PathThrottledEvent {
		r.cut = e
	}
	return events
}

// wait begins a path's minute.
func (n *pathNews) wait(r *pathReport, now time.Time) {
	if n.paths == nil {
		n.paths = map[pathName]*pathReport{}
	}
	r.due = now.Add(n.every)
	n.paths[r.name] = r
	n.turns = append(n.turns, r)
}

// next is when due has something to say; zero when nothing waits.
func (n *pathNews) next() time.Time {
	if len(n.turns) == 0 {
		return time.Time{}
	}
	return n.turns[0].due
}

// due answers the events of paths whose minute is over. A clock that stepped back makes
// none wait longer than a minute.
func (n *pathNews) due(now time.Time) (events []RelayEvent) {
	for len(n.turns) > 0 {
		r := n.turns[0]
		if now.Before(r.due) && r.due.Sub(now) <= n.every {
			return events
		}
		n.turns[0] = nil
		n.turns = n.turns[1:]
		delete(n.paths, r.name)
		if r.count > 0 {
			events = append(events, r.event(now))
			n.wait(&pathReport{name: r.name}, now)
		}
	}
	n.turns = nil
	return events
}

// all answers what waits, whether its minute is over or not.
func (n *pathNews) all() (events []RelayEvent) {
	for _, r := range n.turns {
		if r.count > 0 {
			events = append(events, r.event(r.last.Time))
		}
	}
	n.turns, n.paths = nil, nil
	return events
}

// event is the latest state, with what it stands for. Growth does not hide a cut of the
// same minute: who watches for cuts alone sees that one, with the reply that caused it.
func (r *pathReport) event(now time.Time) RelayEvent {
	e := r.last
	e.Time = now
	if r.count == 1 {
		return e
	}
	var kinds []string
	for kind, n := range r.kinds {
		if n > 0 {
			word := strings.TrimPrefix(RelayEventKind(kind).String(), "path_")
			kinds = append(kinds, fmt.Sprintf("%d %s", n, word))
		}
	}
	slices.Sort(kinds)
	text := fmt.Sprintf("%d changes since %s (%s)", r.count, r.since.UTC().Format("15:04:05"), strings.Join(kinds, ", "))
	if e.Text != "" {
		text += "; last: " + e.Text
	}
	if e.Kind == PathRaisedEvent && r.cut.Kind == PathThrottledEvent {
		e.Kind = PathThrottledEvent
		text += "; last cut: " + r.cut.Text
	}
	e.Text = text
	return e
}
