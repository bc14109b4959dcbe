package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/mta"
)

// maxWaitingPassed is how many rows a page of waiting mail passes over before it is answered.
const maxWaitingPassed = 5000

// Waiting reads messages of one run that wait.
func (s *Store) Waiting(ctx context.Context, req mta.WaitingRequest) (page mta.WaitingPage, err error) {
	page.Next = req.After
	if err := ctx.Err(); err != nil {
		return page, err
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	d, err := s.viewHandover(req.Handover)
	if err != nil || d == nil || !d.active() {
		page.Done = true
		return page, err
	}
	key := runKey{req.Handover, req.Domain}
	row, err := get(snapshot, d.scope().run(tableRun, key))
	if err != nil || row == nil {
		page.Done = true
		return page, err
	}
	r, err := decodeRun(row)
	if err != nil {
		return page, err
	}
	l := waitingRun{s: s, d: d, from: snapshot, key: key, run: r, req: &req, page: &page}
	return page, l.read()
}

// waitingRun is one page of a run's waiting mail under way.
type waitingRun struct {
	s      *Store
	d      *deliveryState
	from   pebble.Reader
	key    runKey
	run    run
	req    *mta.WaitingRequest
	page   *mta.WaitingPage
	passed int
}

func (l *waitingRun) read() error {
	next := &l.page.Next
	if !next.Retries && !l.req.Retries && l.req.Source == "" {
		if more, err := l.fresh(); err != nil || more {
			return err
		}
	}
	if !next.Retries {
		next.Retries, next.Due, next.Retry = true, l.req.Due, mta.Position{Lane: math.MaxUint8, Order: math.MaxUint64}
		if !l.req.Retries {
			next.Due, next.Retry = time.Time{}, mta.Position{}
		}
	}
	more, err := l.retries()
	l.page.Done = !more
	return err
}

// full reports whether the page is to be answered now.
func (l *waitingRun) full() bool {
	l.passed++
	return l.passed > maxWaitingPassed || !l.req.Count && len(l.page.Messages) >= l.req.Max
}

// fresh reads messages that were never settled and are not claimed; more says that some
// may be left.
func (l *waitingRun) fresh() (more bool, err error) {
	if l.run.fresh == 0 {
		return false, nil
	}
	from := l.page.Next.Fresh
	if from.Less(l.run.mark) {
		from = l.run.mark
	}
	err = l.s.unsettled(l.from, l.d, l.key, from, func(id mta.MessageID, row []byte) (bool, error) {
		if l.full() {
			more = true
			return false, nil
		}
		l.page.Next.Fresh = mta.Position{Lane: id.Lane, Order: id.Order + 1}
		if row == nil || l.s.isClaimed(id) {
			return true, nil
		}
		m, err := l.s.decodeMessage(l.d, id, bytes.Clone(row))
		if err == nil {
			l.take(m)
		}
		return true, err
	})
	return more, err
}

// isClaimed reports whether a claim of the message is under way.
func (s *Store) isClaimed(id mta.MessageID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.claims[id] != nil
}

// retries reads the retry list behind the place reached; more says that some may be left.
// Of those that are only counted, and wanted whatever they are, nothing but the key is read.
func (l *waitingRun) retries() (more bool, err error) {
	if l.run.deferred == 0 {
		return false, nil
	}
	scope, next := l.d.scope(), &l.page.Next
	from := retryRow{due: max(nanos(next.Due), l.run.nextDue), lane: next.Retry.Lane, order: next.Retry.Order}
	if nanos(next.Due) < l.run.nextDue {
		from.lane, from.order = 0, 0
	}
	behind := retryRow{due: nanos(next.Due), lane: next.Retry.Lane, order: next.Retry.Order}
	blind := l.req.Count && l.req.Source == "" && l.req.Settled.IsZero() && l.req.Arrived.IsZero()
	err = l.s.scan(l.from, scope.retry(l.key, from), after(scope.run(tableRetry, l.key)), func(k, _ []byte) (bool, error) {
		row, ok := parseRetry(k)
		switch {
		case !ok:
			return false, corrupt(errors.New("retry key"))
		case row == behind:
			return true, nil
		case blind:
			l.page.Count++
			return true, nil
		case l.full():
			more = true
			return false, nil
		}
		next.Due, next.Retry = timeOf(row.due), mta.Position{Lane: row.lane, Order: row.order}
		m, err := l.retry(row.id(l.key))
		if err == nil && m != nil {
			l.take(m)
		}
		return true, err
	})
	return more, err
}

// take adds a message, unless it came too late.
func (l *waitingRun) take(m *mta.Message) {
	if !l.req.Arrived.IsZero() && m.Arrival.After(l.req.Arrived) {
		return
	}
	l.page.Count++
	if !l.req.Count {
		l.page.Messages = append(l.page.Messages, m)
	}
}

// retry reads a message that waits for a retry; nil when it is not wanted.
func (l *waitingRun) retry(id mta.MessageID) (*mta.Message, error) {
	settled, err := get(l.from, l.d.scope().message(tableLog, id))
	if err != nil || settled == nil {
		return nil, err
	}
	log, err := decodeLog(settled)
	if err != nil || log.status.final() || !l.req.Settled.IsZero() && log.updated.After(l.req.Settled) {
		return nil, err
	}
	if l.req.Source != "" {
		source, err := lastSource(log)
		if err != nil || source != l.req.Source {
			return nil, err
		}
	}
	row, err := get(l.from, l.d.scope().message(tableRecipient, id))
	if err != nil || row == nil {
		return nil, err
	}
	m, err := l.s.decodeMessage(l.d, id, row)
	if err != nil {
		return nil, err
	}
	m.Retry, m.State, m.MessageID = true, log.state, log.messageID
	return m, nil
}

// fieldAttemptSource is the number of veredus.v1.Attempt.source.
const fieldAttemptSource = 3

// lastSource is the source of a message's last attempt; empty when there was none.
func lastSource(log *logRow) (source string, err error) {
	if len(log.attempts) == 0 {
		return "", nil
	}
	err = readRow(log.attempts[len(log.attempts)-1], func(field protowire.Number, v value) error {
		if field == fieldAttemptSource {
			source = v.string()
		}
		return nil
	})
	return source, err
}
