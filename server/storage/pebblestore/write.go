package pebblestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/campaign"
)

// Write makes one batch of the relay durable. A claim of a delivery that does not
// run is answered as gone; a settlement of a message that is final already, or
// with an attempt of a message that is not claimed, is passed over: it was settled before.
func (s *Store) Write(ctx context.Context, b *mta.Batch) (written mta.Written, err error) {
	err = s.submit(ctx, func(t *txn) error {
		if b.Epoch != t.epoch {
			return fmt.Errorf("pebblestore: epoch %d, now %d: %w", b.Epoch, t.epoch, mta.ErrFenced)
		}
		written, err = t.write(b)
		return err
	})
	return written, err
}

func (t *txn) write(b *mta.Batch) (written mta.Written, err error) {
	for i := range b.Settles {
		if err := t.settle(&b.Settles[i]); err != nil {
			return written, err
		}
	}
	for i := range b.Hurries {
		if err := t.hurry(&b.Hurries[i]); err != nil {
			return written, err
		}
	}
	for i := range b.Moves {
		if err := t.moveRun(&b.Moves[i]); err != nil {
			return written, err
		}
	}
	for _, id := range b.Releases {
		if err := t.release(id); err != nil {
			return written, err
		}
	}
	written.Finished = t.finished()
	for i := range b.Claims {
		made, err := t.claim(&b.Claims[i])
		if err != nil {
			return written, err
		}
		if !made {
			written.Gone = append(written.Gone, b.Claims[i].Message.ID)
		}
	}
	for _, m := range b.Marks {
		if err := t.mark(m); err != nil {
			return written, err
		}
	}
	for path, u := range b.Usage {
		if u == (mxrules.Usage{}) { // nothing is known of it any more
			t.delete(usageKey(path))
			continue
		}
		t.set(usageKey(path), encodeUsage(u))
	}
	for source, state := range b.WarmUps {
		row, err := state.MarshalBinary()
		if err != nil {
			return written, err
		}
		t.set(keyName(tableWarmUp, source), row)
	}
	for i := range b.Events {
		t.relayEvent(&b.Events[i])
	}
	return written, nil
}

// finished are the hand-overs in which settlements and releases left nothing in the relay.
func (t *txn) finished() (list []uint64) {
	for _, w := range slices.Clone(t.order) {
		cancelled := w.state.State == campaign.Cancelled && w.counted && w.state.Counters.InRelay == 0
		if cancelled && w.state.Finished.IsZero() { // its last claim settled behind the cancel
			w.state.Finished, w.record = w.latest, true
			t.touch(w)
		}
		if t.finishIfDone(w, w.latest) || cancelled {
			list = append(list, w.state.Handover)
		}
	}
	return list
}

// claim writes a claim; false when the message must not be sent.
func (t *txn) claim(c *mta.Claim) (made bool, err error) {
	id := c.Message.ID
	w, err := t.byHandover(id.Handover)
	if err != nil || w == nil || w.state.State != campaign.Running || id.Domain == ignoredDomain {
		return false, err
	}
	if t.claimOf(id) != nil {
		return true, nil
	}
	r, err := t.runOf(w, keyOf(id))
	if err != nil || r == nil {
		return false, err
	}
	row, err := t.logOfRun(r, id)
	if err != nil || row != nil && row.status.final() {
		return false, err
	}
	n := &claim{epoch: t.epoch, time: c.Time, first: c.Time, messageID: c.MessageID, logged: row != nil}
	if row != nil {
		if !row.state.FirstClaim.IsZero() {
			n.first = row.state.FirstClaim
		}
		t.leaveRetries(w, r, id, row)
	} else {
		r.fresh--
		r.changed = true
	}
	t.counters(w).Claimed++
	t.claims[id] = n
	t.row = n.encode(t.row[:0])
	t.set(claimKey(id), t.row)
	return true, nil
}

// leaveRetries takes a message out of the retry list.
func (t *txn) leaveRetries(w *work, r *runWork, id mta.MessageID, row *logRow) {
	t.removeRetry(r, retryAt(id, row.state.Due))
	t.counters(w).Deferred--
	if row.destination != "" {
		t.destination(w, row.destination).Deferred--
	}
}

// claimOf is the claim of a message under way; nil when there is none.
func (t *txn) claimOf(id mta.MessageID) *claim {
	if c, ok := t.claims[id]; ok {
		return c
	}
	return t.s.claims[id]
}

func (t *txn) endClaim(id mta.MessageID) {
	t.claims[id] = nil
	t.delete(claimKey(id))
}

// logOf is a message's row of the log; nil when it was never settled.
func (t *txn) logOf(id mta.MessageID) (*logRow, error) {
	if row, ok := t.logs[id]; ok {
		return row, nil
	}
	w, err := t.byHandover(id.Handover)
	if err != nil || w == nil {
		return nil, err
	}
	row, err := t.s.get(w.state.scope().message(tableLog, id))
	if err != nil || row == nil {
		return nil, err
	}
	return decodeLog(row)
}

// logOfRun is logOf for a message of a run. It does not look for rows behind the last
// one: mostly runs go out in order, so that a fresh message is one of those.
func (t *txn) logOfRun(r *runWork, id mta.MessageID) (*logRow, error) {
	if !r.loggedKnown {
		if err := t.findLogged(r); err != nil {
			return nil, err
		}
	}
	if !(mta.Position{Lane: id.Lane, Order: id.Order}).Less(r.logged) {
		return nil, nil
	}
	return t.logOf(id)
}

// findLogged sets where the run's rows of the log end.
func (t *txn) findLogged(r *runWork) error {
	prefix := r.scope.run(tableLog, r.key)
	it, err := t.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer it.Close()
	if it.Last() {
		id, ok := parsePlace(it.Key())
		if !ok {
			return corrupt(errors.New("key of the log"))
		}
		r.logs(id)
	}
	for id := range t.logs {
		if keyOf(id) == r.key {
			r.logs(id)
		}
	}
	r.loggedKnown = true
	return it.Error()
}

// logs notes that a message has a row of the log.
func (r *run) logs(id mta.MessageID) {
	if at := (mta.Position{Lane: id.Lane, Order: id.Order}); !at.Less(r.logged) {
		r.logged = mta.Position{Lane: id.Lane, Order: id.Order + 1}
	}
}

func (t *txn) putLog(w *work, id mta.MessageID, row *logRow) {
	t.logs[id] = row
	if r := t.knownRun(w, keyOf(id)); r != nil {
		r.logs(id)
	}
	t.key, t.row = appendPlace(w.state.scope().append(t.key[:0], tableLog), id), row.encode(t.row[:0])
	t.set(t.key, t.row)
}

// release gives a claim back untried: the message waits as before.
func (t *txn) release(id mta.MessageID) error {
	c := t.claimOf(id)
	w, err := t.byHandover(id.Handover)
	if err != nil || w == nil || c == nil {
		return err
	}
	t.endClaim(id)
	t.counters(w).Claimed--
	row, err := t.logOf(id)
	if err != nil {
		return err
	}
	if row != nil {
		return t.waits(w, id, row)
	}
	if w.state.State == campaign.Cancelled {
		t.endCancelled(w, "")
		return nil
	}
	r, err := t.runOf(w, keyOf(id))
	if err != nil || r == nil {
		return err
	}
	r.fresh++
	r.changed = true
	if at := (mta.Position{Lane: id.Lane, Order: id.Order}); at.Less(r.mark) {
		r.mark = at // a standing run's mark went past it
	}
	return nil
}

// settle ends an attempt, or the waiting, of one message.
func (t *txn) settle(s *mta.Settlement) error {
	id := s.Message.ID
	w, err := t.byHandover(id.Handover)
	if err != nil || w == nil {
		return err
	}
	c := t.claimOf(id)
	if c == nil && (s.Attempt != nil || !w.state.active()) {
		return nil
	}
	var row *logRow
	if c == nil || c.logged {
		if row, err = t.logOf(id); err != nil || row != nil && row.status.final() {
			return err
		}
	}
	if err := t.leave(w, c, id, row); err != nil {
		return err
	}
	if row == nil {
		row = &logRow{}
	}
	n := *s
	n.Destination = cmp.Or(s.Destination, row.destination, s.Message.Domain)
	t.countWork(s.Work)
	return t.outcome(w, &n, c, row)
}

// leave takes a message from where it is: claimed, in the retry list, or fresh.
func (t *txn) leave(w *work, c *claim, id mta.MessageID, row *logRow) error {
	if c != nil {
		t.endClaim(id)
		t.counters(w).Claimed--
		return nil
	}
	r, err := t.runOf(w, keyOf(id))
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("pebblestore: message %s: no such run", id)
	}
	if row != nil {
		t.leaveRetries(w, r, id, row)
		return nil
	}
	r.fresh--
	r.changed = true
	return nil
}

// outcome writes the settlement: log, counters, retry and event.
func (t *txn) outcome(w *work, s *mta.Settlement, c *claim, row *logRow) error {
	if s.Attempt != nil {
		attempt, err := attemptRow(s)
		if err != nil {
			return err
		}
		row.attempts = append(row.attempts, attempt)
		row.attempts = row.attempts[max(0, len(row.attempts)-maxAttempts):]
		t.attempted(w, s)
	}
	if err := t.affect(w, s); err != nil {
		return err
	}
	row.status, row.updated, row.destination = logStatus(s.Outcome), s.Time, s.Destination
	row.text, row.verdict, row.state = capText(s.Text), s.Verdict, s.Message.State
	if c != nil {
		row.state.FirstClaim, row.messageID = c.first, c.messageID
	}
	row.messageID = cmp.Or(s.MessageID, row.messageID)
	row.state.Due = s.Next
	if s.Outcome == mta.Deferred && s.Next.IsZero() {
		row.state.Due = s.Time
	}
	w.latest = latest(w.latest, s.Time)
	willRetry := s.Outcome == mta.Deferred && w.state.State != campaign.Cancelled
	if err := t.count(w, s, row); err != nil {
		return err
	}
	t.putLog(w, s.Message.ID, row)
	return t.settled(w, s, willRetry)
}

func (t *txn) attempted(w *work, s *mta.Settlement) {
	t.counters(w).Attempts++
	d := t.destination(w, s.Destination)
	d.Attempts++
	switch s.Verdict.Hold {
	case bounce.HoldAuthentication:
		d.AuthRejections++
	case bounce.HoldContent:
		d.ContentRejections++
	}
}

// count moves the counters to where the outcome puts the message.
func (t *txn) count(w *work, s *mta.Settlement, row *logRow) error {
	if s.Outcome == mta.Deferred {
		return t.waits(w, s.Message.ID, row)
	}
	c, d := t.counters(w), t.destination(w, s.Destination)
	c.InRelay--
	if w.state.Transactional {
		t.delete(expiryKey(s.Message.Expires, s.Message.ID))
	}
	if s.Outcome == mta.Delivered {
		c.Sent++
		d.Sent++
		c.DeliveredBy.Add(s.Time, 1)
		d.DeliveredBy.Add(s.Time, 1)
		return nil
	}
	reason := int32(s.Verdict.Reason)
	c.Failed++
	d.Failed++
	c.FailedBy[reason]++
	d.FailedBy[reason]++
	return nil
}

// mark advances a run's settled-below mark.
func (t *txn) mark(m mta.Mark) error {
	w, err := t.byHandover(m.Handover)
	if err != nil || w == nil {
		return err
	}
	r, err := t.runOf(w, runKey{m.Handover, m.Domain})
	if err != nil || r == nil || !r.mark.Less(m.Mark) {
		return err
	}
	r.mark, r.changed = m.Mark, true
	return nil
}

func encodeUsage(u mxrules.Usage) []byte {
	b := putInt(nil, 1, u.Hour)
	b = putInt(b, 2, u.HourBulk)
	b = putInt(b, 3, u.Day)
	b = putInt(b, 4, int64(u.PerHour))
	b = putInt(b, 5, int64(u.PerDay))
	if u.Learned.IsZero() {
		return b
	}
	learned, _ := u.Learned.MarshalBinary() // never fails
	return putBytes(b, 6, learned)
}

func decodeUsage(row []byte) (u mxrules.Usage, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			u.Hour = v.int()
		case 2:
			u.HourBulk = v.int()
		case 3:
			u.Day = v.int()
		case 4:
			u.PerHour = int(v.int())
		case 5:
			u.PerDay = int(v.int())
		case 6:
			// What another version wrote is learned anew.
			if u.Learned.UnmarshalBinary(v.bytes) != nil {
				u.Learned = mxrules.Memory{}
			}
		}
		return nil
	})
	return u, err
}
