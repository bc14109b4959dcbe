package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/veredus/veredus/mta"
)

// sortedRetries is up to how many retries of a run are sorted in memory to list
// them by position; a run with more has its rows of the log walked instead.
const sortedRetries = 10_000

// Unfinished lists up to limit messages that are not final, behind a message.
func (s *Store) Unfinished(ctx context.Context, handover uint64, by time.Time, behind mta.MessageID, limit int) (msgs []*mta.Message, done bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if handover == 0 {
		return s.expiring(by, behind, limit)
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	d, err := s.viewHandover(handover)
	if err != nil || d == nil || !d.active() {
		return nil, true, err
	}
	err = s.eachRun(snapshot, d, runKey{handover, max(behind.Domain, 1)}, func(k runKey, r *run) (bool, error) {
		u := unfinishedRun{s: s, d: d, from: snapshot, run: *r, key: k, limit: limit - len(msgs)}
		if k.domain == behind.Domain {
			u.behind = mta.Position{Lane: behind.Lane, Order: behind.Order + 1}
		}
		found, err := u.messages()
		msgs = append(msgs, found...)
		return len(msgs) < limit, err
	})
	return msgs, len(msgs) < limit, err
}

// unfinishedRun lists what is not final of one run.
type unfinishedRun struct {
	s      *Store
	d      *deliveryState
	from   pebble.Reader
	run    run
	key    runKey
	behind mta.Position // the first place wanted
	limit  int
}

func (u *unfinishedRun) messages() ([]*mta.Message, error) {
	places, err := u.places()
	if err != nil {
		return nil, err
	}
	var msgs []*mta.Message
	for _, id := range places {
		m, err := u.s.message(u.from, u.d, id)
		if err != nil {
			return nil, err
		}
		if m != nil {
			msgs = append(msgs, m)
		}
	}
	return msgs, nil
}

// places are the first messages, in order: fresh ones, those in the retry list, and
// those claimed in a retry, which are in neither.
func (u *unfinishedRun) places() ([]mta.MessageID, error) {
	places := u.claimed()
	if u.run.fresh+u.run.deferred == 0 && len(places) == 0 {
		return nil, nil
	}
	start := u.behind
	if start.Less(u.run.mark) {
		start = u.run.mark
	}
	if u.run.fresh > 0 {
		fresh := 0
		err := u.s.unsettled(u.from, u.d, u.key, start, func(id mta.MessageID, row []byte) (bool, error) {
			if row != nil {
				places = append(places, id)
				fresh++
			}
			return fresh < u.limit, nil
		})
		if err != nil {
			return nil, err
		}
	}
	waiting, err := u.waiting()
	if err != nil {
		return nil, err
	}
	places = append(places, waiting...)
	slices.SortFunc(places, compareIDs)
	places = slices.Compact(places)
	return places[:min(len(places), u.limit)], nil
}

// claimed are claims of the run, from the first place wanted on.
func (u *unfinishedRun) claimed() (list []mta.MessageID) {
	u.s.mu.RLock()
	defer u.s.mu.RUnlock()
	for id := range u.s.claims {
		at := mta.Position{Lane: id.Lane, Order: id.Order}
		if keyOf(id) == u.key && !at.Less(u.behind) {
			list = append(list, id)
		}
	}
	return list
}

// waiting are the messages of the retry list, from the first place wanted on.
func (u *unfinishedRun) waiting() (list []mta.MessageID, err error) {
	if u.run.deferred > sortedRetries {
		return u.walkLog()
	}
	if u.run.deferred == 0 {
		return nil, nil
	}
	scope := u.d.scope()
	lower := scope.retry(u.key, retryRow{due: u.run.nextDue})
	err = u.s.scan(u.from, lower, after(scope.run(tableRetry, u.key)), func(k, _ []byte) (bool, error) {
		row, ok := parseRetry(k)
		if !ok {
			return false, corrupt(errors.New("retry key"))
		}
		if at := (mta.Position{Lane: row.lane, Order: row.order}); !at.Less(u.behind) {
			list = append(list, row.id(u.key))
		}
		return true, nil
	})
	return list, err
}

// walkLog finds messages that wait for a retry in the sending log.
func (u *unfinishedRun) walkLog() (list []mta.MessageID, err error) {
	scope := u.d.scope()
	start := mta.MessageID{Handover: u.key.handover, Domain: u.key.domain, Lane: u.behind.Lane, Order: u.behind.Order}
	err = u.s.scan(u.from, scope.message(tableLog, start), after(scope.run(tableLog, u.key)), func(k, v []byte) (bool, error) {
		row, err := decodeLog(v)
		if err != nil {
			return false, err
		}
		if id, ok := parsePlace(k); ok && !row.status.final() {
			list = append(list, id)
		}
		return len(list) < u.limit, nil
	})
	return list, err
}

// expiryFloor is a time before which no unfinished single message expires. Below it
// lie only the tombstones of those that were settled. Guarded by Store.mu.
type expiryFloor struct {
	floor int64  // nanoseconds since 1970
	sends uint64 // messages that came since the store was opened
}

// arrived makes room for a new message.
func (f *expiryFloor) arrived(expires int64) {
	f.floor = min(f.floor, expires)
	f.sends++
}

// expiring lists single messages whose own validity ends by a time, the earliest first.
func (s *Store) expiring(by time.Time, behind mta.MessageID, limit int) (msgs []*mta.Message, done bool, err error) {
	s.mu.RLock()
	known := s.expiry
	s.mu.RUnlock()
	snapshot := s.db.NewSnapshot() // behind the floor: what it lacks counts in sends
	defer snapshot.Close()
	fromStart := behind == (mta.MessageID{})
	lower := key8(tableExpiry, uint64(known.floor))
	if !fromStart {
		if lower, err = s.expiryPlace(snapshot, behind); err != nil {
			return nil, false, err
		}
	}
	upper := key8(tableExpiry, uint64(max(nanos(by), 0))+1)
	if bytes.Compare(lower, upper) >= 0 {
		return nil, true, nil
	}
	err = s.scan(snapshot, lower, upper, func(k, _ []byte) (bool, error) {
		m, err := s.expiringMessage(snapshot, k)
		if err == nil && m != nil {
			msgs = append(msgs, m)
		}
		return len(msgs) < limit, err
	})
	if err == nil && fromStart {
		s.raiseExpiryFloor(known, by, msgs)
	}
	return msgs, len(msgs) < limit, err
}

// expiringMessage is the message of an expiry row; nil when it is final or gone.
func (s *Store) expiringMessage(r pebble.Reader, k []byte) (*mta.Message, error) {
	id, ok := parseExpiryKey(k)
	if !ok {
		return nil, corrupt(errors.New("expiry key"))
	}
	d, err := s.viewHandover(id.Handover)
	if err != nil || d == nil || !d.active() {
		return nil, err
	}
	return s.message(r, d, id)
}

// raiseExpiryFloor remembers what a listing from the start found, unless a message came meanwhile.
func (s *Store) raiseExpiryFloor(known expiryFloor, by time.Time, found []*mta.Message) {
	floor := nanos(by)
	if len(found) > 0 {
		floor = nanos(found[0].Expires)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry.sends == known.sends {
		s.expiry.floor = max(s.expiry.floor, floor)
	}
}

// expiryPlace is the place right behind a message in the order of expiry.
func (s *Store) expiryPlace(r pebble.Reader, id mta.MessageID) ([]byte, error) {
	d, err := s.viewHandover(id.Handover)
	if err != nil || d == nil {
		return []byte{tableExpiry}, err
	}
	row, err := get(r, d.scope().message(tableRecipient, id))
	if err != nil || row == nil {
		return []byte{tableExpiry}, err
	}
	rec, err := decodeRecipient(row)
	return next(expiryKey(rec.expires, id)), err
}
