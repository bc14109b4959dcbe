package pebblestore

import (
	"strings"

	"github.com/veredus/veredus/server/campaign"
)

// maxDraftRuns is how many runs of deliveries that are still being filled are
// remembered, about 70 B each.
const maxDraftRuns = 1_000_000

// drafts holds the directories of hand-overs that are being filled. A list of
// recipients comes in any order, so that with half a million domains nearly every
// recipient is the next of a run used long ago: reading its row would cost more
// than all else. Of the applier alone.
type drafts struct {
	by   map[uint64]*directory // by hand-over
	runs int
}

// directory is that of one hand-over. A run of it has nothing but a name and fresh mail.
type directory struct {
	whole bool // no domain is missing
	runs  map[string]draftRun
}

type draftRun struct {
	domain uint32
	fresh  uint32
}

// draft reports whether the delivery may still get recipients in bulk.
func (w *work) draft() bool {
	return !w.state.Transactional && !w.deleted && w.state.State <= campaign.Prepared
}

// find looks a run up; known says that its absence is certain too.
func (d *drafts) find(n runName) (r draftRun, known bool) {
	of := d.by[n.handover]
	if of == nil {
		return draftRun{}, false
	}
	r, ok := of.runs[n.name]
	return r, ok || of.whole
}

// begin is called before the first domain of a hand-over.
func (d *drafts) begin(handover uint64) {
	d.drop(handover)
	d.by[handover] = &directory{whole: true, runs: map[string]draftRun{}}
}

// put remembers a run as it is now.
func (d *drafts) put(k runKey, r *run) {
	if r.deferred != 0 || r.mark.Order != 0 || r.mark.Lane != 0 || r.fresh > 1<<31 {
		d.drop(k.handover)
		return
	}
	of := d.by[k.handover]
	if of == nil {
		of = &directory{runs: map[string]draftRun{}}
		d.by[k.handover] = of
	}
	before := len(of.runs)
	name := r.name
	if _, ok := of.runs[name]; !ok {
		name = strings.Clone(name) // it may be a part of something large
	}
	of.runs[name] = draftRun{k.domain, uint32(r.fresh)}
	if d.runs += len(of.runs) - before; d.runs > maxDraftRuns {
		d.drop(k.handover)
	}
}

// installDrafts makes the directories of deliveries being filled those of the batch.
func (t *txn) installDrafts() {
	d := &t.s.drafts
	for _, handover := range t.begun {
		d.begin(handover)
	}
	for k, r := range t.runs {
		if r.draft {
			d.put(k, &r.run)
		}
	}
	for handover := range t.gone {
		d.drop(handover)
	}
	for _, handover := range t.emptied {
		d.drop(handover)
	}
	for _, w := range t.order {
		if !w.draft() {
			d.drop(w.state.Handover)
		}
	}
}

// drop forgets a hand-over.
func (d *drafts) drop(handover uint64) {
	if of := d.by[handover]; of != nil {
		d.runs -= len(of.runs)
		delete(d.by, handover)
	}
}
