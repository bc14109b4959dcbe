package pebblestore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/campaign"
)

// Recover begins a new epoch. It costs what was claimed when the process before
// ended, and the active deliveries; nothing that grows with the backlog.
func (s *Store) Recover(ctx context.Context, now time.Time) (r *mta.Recovery, err error) {
	err = s.submit(ctx, func(t *txn) error {
		t.epoch++
		r = &mta.Recovery{Epoch: t.epoch, Usage: s.usage}
		for _, id := range t.s.claimed() {
			lost, err := t.lose(id, now)
			if err != nil {
				return err
			}
			if lost != nil {
				r.Lost = append(r.Lost, *lost)
			}
		}
		if r.Handovers, err = t.handovers(); err != nil {
			return err
		}
		if r.WarmUps, err = s.readWarmUps(); err != nil || s.opts.Lost == nil {
			return err
		}
		return s.opts.Lost(r.Lost) // last: what follows is the commit
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// claimed are the claims under way, in the order of their keys.
func (s *Store) claimed() []mta.MessageID {
	list := make([]mta.MessageID, 0, len(s.claims))
	for id := range s.claims {
		list = append(list, id)
	}
	slices.SortFunc(list, compareIDs)
	return list
}

func compareIDs(a, b mta.MessageID) int {
	return cmp.Or(cmp.Compare(a.Handover, b.Handover), cmp.Compare(a.Domain, b.Domain),
		cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Order, b.Order))
}

// lose turns a claim of the process before into a retry due now; into Cancelled
// when its delivery was cancelled. nil when the message is gone.
func (t *txn) lose(id mta.MessageID, now time.Time) (*mta.LostClaim, error) {
	c := t.claimOf(id)
	t.endClaim(id)
	w, err := t.byHandover(id.Handover)
	if err != nil || w == nil {
		return nil, err
	}
	row, err := t.logOf(id)
	if err != nil {
		return nil, err
	}
	if row == nil {
		row = &logRow{status: logLost}
	}
	if row.status.final() {
		return nil, nil
	}
	row.updated, row.messageID = now, c.messageID
	row.state.FirstClaim, row.state.Due = c.first, now
	row.state.LostClaims++
	t.putLog(w, id, row)
	t.counters(w).Claimed--
	if err := t.waits(w, id, row); err != nil {
		return nil, err
	}
	return &mta.LostClaim{ID: id, Name: w.messageName(id), MessageID: c.messageID, Claims: row.state.LostClaims}, nil
}

// waits puts a message that is not claimed any more back into its run's retry
// list, or counts it Cancelled when its delivery was cancelled.
func (t *txn) waits(w *work, id mta.MessageID, row *logRow) error {
	if w.state.State == campaign.Cancelled {
		t.endCancelled(w, row.destination)
		return nil
	}
	r, err := t.runOf(w, keyOf(id))
	if err != nil || r == nil {
		return err
	}
	t.addRetry(r, retryAt(id, row.state.Due))
	t.counters(w).Deferred++
	if row.destination != "" {
		t.destination(w, row.destination).Deferred++
	}
	return nil
}

// endCancelled counts a message of a cancelled delivery whose claim ended.
func (t *txn) endCancelled(w *work, destination string) {
	c := t.counters(w)
	c.InRelay--
	c.Cancelled++
	if destination != "" {
		t.destination(w, destination).Cancelled++
	}
}

// handovers are those with unfinished mail.
func (t *txn) handovers() (list []*mta.Handover, err error) {
	prefix := []byte{tableActive}
	err = t.s.scan(nil, prefix, after(prefix), func(k, _ []byte) (bool, error) {
		w, err := t.load(be64(k[1:]))
		switch {
		case err != nil || w == nil || !w.state.active():
			return true, err
		case !w.state.Transactional:
			list = append(list, w.state.HandOver())
			return true, nil
		}
		standing, err := t.standingHandovers(w)
		list = append(list, standing...)
		return true, err
	})
	return list, err
}

// standingHandovers are those of a transactional delivery with unfinished mail.
func (t *txn) standingHandovers(w *work) (list []*mta.Handover, err error) {
	prefix := key8(tableStanding, w.state.No)
	err = t.s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		open := false
		mail := w.state.scope().handover(tableOpen, be64(v))
		err := t.s.scan(nil, mail, after(mail), func(_, _ []byte) (bool, error) {
			open = true
			return false, nil
		})
		for k := range t.runs { // runs of claims just lost
			open = open || k.handover == be64(v)
		}
		if open {
			list = append(list, w.state.standing(string(k[len(prefix):]), be64(v)))
		}
		return true, err
	})
	return list, err
}

// standing is a standing hand-over: name is its sender domain and pool.
func (d *deliveryState) standing(name string, handover uint64) *mta.Handover {
	h := d.HandOver()
	h.ID = handover
	h.SenderDomain, h.Pool, _ = strings.Cut(name, "\x00")
	return h
}

// standingName is the key of a standing hand-over within its delivery.
func standingName(h *mta.Handover) string { return h.SenderDomain + "\x00" + h.Pool }

// usageKey is where a path's meters are: the paths to a destination are together.
func usageKey(path string) []byte {
	_, to, _ := strings.Cut(path, ">")
	to, _, _ = strings.Cut(to, "/") // behind it: some of its domains alone
	return append(usageOf(to), path...)
}

// usageOf is what the keys of a destination's paths begin with.
func usageOf(destination string) []byte {
	return append(keyName(tableUsage, destination), 0)
}

// usage reads the quota meters of the paths to a destination.
func (s *Store) usage(ctx context.Context, destination string) (map[string]mxrules.Usage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	usage := map[string]mxrules.Usage{}
	prefix := usageOf(destination)
	err := s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		u, err := decodeUsage(v)
		usage[string(k[len(prefix):])] = u
		return true, err
	})
	return usage, err
}

// readWarmUps reads the warm-ups of sources.
func (s *Store) readWarmUps() (map[string]mxrules.WarmUpState, error) {
	all := map[string]mxrules.WarmUpState{}
	prefix := []byte{tableWarmUp}
	err := s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		var state mxrules.WarmUpState
		if err := state.UnmarshalBinary(v); err != nil {
			return false, corrupt(err)
		}
		all[string(k[1:])] = state
		return true, nil
	})
	return all, err
}

// Runs lists up to limit runs with unfinished mail of a hand-over behind a domain number.
func (s *Store) Runs(_ context.Context, handover uint64, behind uint32, limit int) (list []mta.RunState, err error) {
	d, err := s.viewHandover(handover)
	if err != nil || d == nil || limit <= 0 {
		return nil, err
	}
	err = s.eachRun(s.db, d, runKey{handover, behind + 1}, func(k runKey, r *run) (bool, error) {
		if r.fresh+r.deferred > 0 {
			list = append(list, mta.RunState{
				Domain: k.domain, DomainName: r.name, Mark: r.mark,
				Fresh: r.fresh, Deferred: r.deferred, NextDue: timeOf(r.nextDue), Pool: r.pool, Instead: r.instead,
			})
		}
		return len(list) < limit, nil
	})
	return list, err
}

// eachRun walks the runs of a hand-over from one on: all of a bulk delivery, those
// with unfinished mail of a standing one.
func (s *Store) eachRun(r pebble.Reader, d *deliveryState, from runKey, each func(runKey, *run) (bool, error)) error {
	table := byte(tableRun)
	if d.Transactional {
		table = tableOpen
	}
	scope := d.scope()
	return s.scan(r, scope.run(table, from), after(scope.handover(table, from.handover)), func(k, v []byte) (bool, error) {
		key := runKey{from.handover, be32(k[scopeSize+8:])}
		if d.Transactional {
			var err error
			if v, err = get(r, scope.run(tableRun, key)); err != nil {
				return false, err
			}
		}
		row, err := decodeRun(v)
		if err != nil {
			return false, err
		}
		return each(key, &row)
	})
}

// maxPassed is how many messages a Load passes over before it answers with less.
const maxPassed = 5000

// Load reads messages of one run.
func (s *Store) Load(ctx context.Context, req mta.LoadRequest) (res mta.LoadResult, err error) {
	if err := ctx.Err(); err != nil {
		return res, err
	}
	res.Next = req.From
	d, err := s.viewHandover(req.Handover)
	if err != nil || d == nil || !d.active() {
		return res, err
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	key := runKey{req.Handover, req.Domain}
	row, err := get(snapshot, d.scope().run(tableRun, key))
	if err != nil || row == nil {
		return res, err
	}
	r, err := decodeRun(row)
	if err != nil {
		return res, err
	}
	l := loader{s: s, d: d, from: snapshot, key: key, run: r, req: &req, res: &res}
	if err := l.due(); err != nil {
		return res, err
	}
	return res, l.fresh()
}

// loader is one Load under way.
type loader struct {
	s    *Store
	d    *deliveryState
	from pebble.Reader
	key  runKey
	run  run
	req  *mta.LoadRequest
	res  *mta.LoadResult
}

func (l *loader) skip(id mta.MessageID) bool { return l.req.Skip != nil && l.req.Skip(id) }

// due reads retries, the earliest first.
func (l *loader) due() error {
	if l.run.deferred == 0 {
		return nil
	}
	scope := l.d.scope()
	lower := scope.retry(l.key, retryRow{due: l.run.nextDue})
	now := nanos(l.req.Now)
	return l.s.scan(l.from, lower, after(scope.run(tableRetry, l.key)), func(k, _ []byte) (bool, error) {
		row, ok := parseRetry(k)
		if !ok {
			return false, corrupt(errors.New("retry key"))
		}
		id := row.id(l.key)
		if l.skip(id) {
			return true, nil
		}
		if row.due > now || len(l.res.Due) >= l.req.Due {
			l.res.NextDue = timeOf(row.due)
			return false, nil
		}
		m, err := l.s.message(l.from, l.d, id)
		if err == nil && m != nil {
			l.res.Due = append(l.res.Due, m)
		}
		return true, err
	})
}

// fresh reads messages that were never settled: those without a row of the log.
func (l *loader) fresh() error {
	from := l.req.From
	if from.Less(l.run.mark) {
		from = l.run.mark
	}
	l.res.Next = from
	if l.run.fresh == 0 {
		return nil
	}
	passed := 0
	return l.s.unsettled(l.from, l.d, l.key, from, func(id mta.MessageID, row []byte) (bool, error) {
		fresh := row != nil && !l.skip(id)
		if passed++; fresh && len(l.res.Fresh) >= l.req.Fresh || passed > maxPassed {
			l.res.More = true
			return false, nil
		}
		l.res.Next = mta.Position{Lane: id.Lane, Order: id.Order + 1}
		if !fresh {
			return true, nil
		}
		m, err := l.s.decodeMessage(l.d, id, bytes.Clone(row))
		l.res.Fresh = append(l.res.Fresh, m)
		return true, err
	})
}

// unsettled walks a run from a position on. It gives each the recipient row of
// messages that have no row of the log, and nil for those that have one.
func (s *Store) unsettled(r pebble.Reader, d *deliveryState, run runKey, from mta.Position, each func(mta.MessageID, []byte) (bool, error)) error {
	scope := d.scope()
	start := mta.MessageID{Handover: run.handover, Domain: run.domain, Lane: from.Lane, Order: from.Order}
	logs, err := r.NewIter(&pebble.IterOptions{
		LowerBound: scope.message(tableLog, start), UpperBound: after(scope.run(tableLog, run)),
	})
	if err != nil {
		return fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer logs.Close()
	logs.First()
	return s.scan(r, scope.message(tableRecipient, start), after(scope.run(tableRecipient, run)), func(k, v []byte) (bool, error) {
		for logs.Valid() && bytes.Compare(logs.Key()[1:], k[1:]) < 0 {
			logs.Next()
		}
		if err := logs.Error(); err != nil {
			return false, fmt.Errorf("pebblestore: reading: %w", err)
		}
		id, ok := parsePlace(k)
		if !ok {
			return false, corrupt(errors.New("recipient key"))
		}
		if logs.Valid() && bytes.Equal(logs.Key()[1:], k[1:]) {
			v = nil
		}
		return each(id, v)
	})
}

// message reads one message with its state; nil when it does not exist or is final.
func (s *Store) message(r pebble.Reader, d *deliveryState, id mta.MessageID) (*mta.Message, error) {
	row, err := get(r, d.scope().message(tableRecipient, id))
	if err != nil || row == nil {
		return nil, err
	}
	m, err := s.decodeMessage(d, id, row)
	if err != nil {
		return nil, err
	}
	settled, err := get(r, d.scope().message(tableLog, id))
	if err != nil || settled == nil {
		return m, err
	}
	log, err := decodeLog(settled)
	if err != nil || log.status.final() {
		return nil, err
	}
	m.Retry, m.State, m.MessageID = true, log.state, log.messageID
	return m, nil
}

// decodeMessage is the message of a recipient row, which it keeps.
func (s *Store) decodeMessage(d *deliveryState, id mta.MessageID, row []byte) (*mta.Message, error) {
	r, err := decodeRecipient(row)
	if err != nil {
		return nil, err
	}
	m := &mta.Message{
		ID: id, Name: "deliveries/" + d.ID + "/messages/" + id.String(),
		Recipient: r.address, Domain: r.domain, UTF8: r.utf8, Variables: r.variables,
		RecipientID: r.recipientID, Metadata: r.metadata, Content: r.content,
		Arrival: d.Started, Expires: d.Expires,
	}
	if d.Transactional {
		m.Arrival, m.Expires = r.arrival, r.expires
	}
	return m, nil
}

// be32 reads a number of a key; 0 when it is too short.
func be32(k []byte) uint32 {
	if len(k) < 4 {
		return 0
	}
	return uint32(be64(append(make([]byte, 4, 8), k[:4]...)))
}
