package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/hostile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// book is what the feedback stream told, and every breach of a promise that was found.
type book struct {
	mu        sync.Mutex
	token     string // resumes behind the last event here; written by hear alone
	ids       []string
	seen      map[string]bool
	stories   map[string]*story // by delivery and recipient
	byID      map[string]*story // by Message-ID
	byName    map[string]*story // by resource name
	uncertain map[string]int    // attempts whose event says so, by Message-ID
	finished  map[string]bool   // deliveries
	changed   chan struct{}     // closed and renewed by hear

	breached int
	breaches []string
}

// story is one message's.
type story struct {
	recipient string
	delivery  string
	messageID string
	finals    int
	delivered bool
	uncertain bool // says the final event
	code      int32
	text      string
}

func newBook() *book {
	return &book{
		seen: map[string]bool{}, stories: map[string]*story{}, byID: map[string]*story{}, byName: map[string]*story{},
		uncertain: map[string]int{}, finished: map[string]bool{}, changed: make(chan struct{}),
	}
}

// maxBreaches is how many are described; all are counted.
const maxBreaches = 30

func (b *book) breach(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(format, args...)
}

func (b *book) note(format string, args ...any) {
	if b.breached++; len(b.breaches) < maxBreaches {
		b.breaches = append(b.breaches, fmt.Sprintf(format, args...))
	}
}

func (b *book) check(err error) {
	if err != nil {
		b.breach("%v", err)
	}
}

// verdict is nil when every promise was kept.
func (b *book) verdict() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.breached == 0 {
		return nil
	}
	errs := []error{fmt.Errorf("%d breaches", b.breached)}
	for _, text := range b.breaches {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// hear enters a batch.
func (b *book) hear(events []*veredusv1.FeedbackEvent, token string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.token = token
	for _, e := range events {
		if b.seen[e.GetId()] {
			b.note("the event %s of %s was told twice", e.GetId(), e.GetMessage())
		}
		b.seen[e.GetId()] = true
		b.ids = append(b.ids, e.GetId())
		b.tell(e)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) tell(e *veredusv1.FeedbackEvent) {
	if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED {
		b.finished[e.GetDelivery()] = true
	}
	if e.GetRecipient() == "" || e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_TAKEN_INTO_ACCOUNT {
		return
	}
	key := e.GetDelivery() + " " + e.GetRecipient()
	s := b.stories[key]
	if s == nil {
		s = &story{recipient: e.GetRecipient(), delivery: e.GetDelivery()}
		b.stories[key], b.byName[e.GetMessage()] = s, s
	}
	if id := e.GetMessageId(); id != "" {
		if s.messageID != "" && s.messageID != id {
			b.note("%s of %s has two Message-IDs, %s and %s", s.recipient, s.delivery, s.messageID, id)
		}
		s.messageID = id
		b.byID[id] = s
	}
	if e.GetDeliveryUncertain() && e.GetRemoteHost() != "" {
		b.uncertain[e.GetMessageId()]++
	}
	if e.GetWillRetry() {
		return
	}
	s.finals++
	s.code, s.text = e.GetBounceCode(), e.GetText()
	s.uncertain = e.GetDeliveryUncertain()
	s.delivered = e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED
}

func (b *book) length() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.ids)
}

// told waits until the ends of all deliveries were told.
func (b *book) told(open []*mailing, within time.Duration) bool {
	late := time.After(within)
	for {
		b.mu.Lock()
		all, changed := true, b.changed
		for _, m := range open {
			all = all && b.finished[m.name()]
		}
		b.mu.Unlock()
		if all {
			return true
		}
		select {
		case <-changed:
		case <-late:
			return false
		}
	}
}

// storyOf waits for a message's end and answers what was told of it then.
func (b *book) storyOf(name string, within time.Duration) (s story) {
	late := time.After(within)
	for {
		b.mu.Lock()
		changed := b.changed
		if told := b.byName[name]; told != nil {
			s = *told
		}
		b.mu.Unlock()
		if s.finals > 0 {
			return s
		}
		select {
		case <-changed:
		case <-late:
			return s
		}
	}
}

// balance checks invariant 2 of the design.
func (b *book) balance(name string, l *veredusv1.Ledger) {
	if l.GetAccepted() != l.GetIgnored()+l.GetPending()+l.GetTakenIntoAccount()+l.GetSent()+l.GetFailed()+l.GetCancelled() {
		b.breach("%s: the ledger does not balance: %v", name, l)
	}
}

// compareMailing compares client, ledger, list and stream of a delivery that is over.
func (b *book) compareMailing(m *mailing, l *veredusv1.Ledger, statuses map[string]veredusv1.LogStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	size := int64(len(m.people))
	if l.GetAccepted() != size || l.GetSent()+l.GetFailed() != size || len(statuses) != len(m.people) {
		b.note("%s: %d recipients went in; the ledger says %v, the list has %d", m.name(), size, l, len(statuses))
	}
	sent := int64(0)
	for _, r := range m.people {
		s := b.stories[m.name()+" "+r.GetAddress()]
		status := statuses[r.GetAddress()]
		switch {
		case s == nil:
			b.note("%s: the stream never told of %s, which is listed as %v", m.name(), r.GetAddress(), status)
			continue
		case s.finals != 1:
			b.note("%s: %s has %d final events", m.name(), r.GetAddress(), s.finals)
		case s.delivered != (status == veredusv1.LogStatus_LOG_STATUS_SENT) || !s.delivered && status != veredusv1.LogStatus_LOG_STATUS_FAILED:
			b.note("%s: %s is listed as %v, and told as delivered: %t", m.name(), r.GetAddress(), status, s.delivered)
		}
		if s.delivered {
			sent++
		}
	}
	if sent != l.GetSent() {
		b.note("%s: %d delivered events, %d sent in the ledger", m.name(), sent, l.GetSent())
	}
}

// compareCopies compares the stream with the receivers. listed counts, by Message-ID, the
// restarts that announced a message as claimed and unsettled.
func (b *book) compareCopies(copies map[string]hostile.Copies, listed map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.byID {
		have := copies[id].Taken
		switch {
		case s.delivered && copies[id].Confirmed == 0:
			b.note("%s of %s is told as delivered; its receiver took %d copies and said so of none", s.recipient, s.delivery, have)
		case !s.delivered && s.finals > 0 && (s.code != 25 || listed[id] < 3):
			b.note("%s of %s failed with code %d after %d lost claims: %s", s.recipient, s.delivery, s.code, listed[id], s.text)
		case !s.delivered && s.finals > 0 && !s.uncertain:
			b.note("%s of %s is given up after %d lost claims, and no event calls it uncertain", s.recipient, s.delivery, listed[id])
		}
	}
	for id, c := range copies {
		switch s := b.byID[id]; {
		case s == nil:
			b.note("a receiver of %s has %q, of which no event tells", c.Domain, id)
		case c.Taken-1 > listed[id]+b.uncertain[id]:
			b.note("%s of %s was taken %d times; restarts announced it %d times, and %d events call it uncertain", s.recipient, s.delivery, c.Taken, listed[id], b.uncertain[id])
		case c.Differ:
			b.note("the copies of %s of %s differ", s.recipient, s.delivery)
		}
	}
}

// compareStream compares the whole stream, read at once, with what was followed.
func (b *book) compareStream(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(ids) != len(b.ids) {
		b.note("the stream has %d events, %d were followed", len(ids), len(b.ids))
	}
	for i := range min(len(ids), len(b.ids)) {
		if ids[i] != b.ids[i] {
			b.note("event %d of the stream is %s, and %s was followed", i, ids[i], b.ids[i])
			return
		}
	}
}

// sum counts for the report.
func (b *book) sum(r *report, copies map[string]hostile.Copies, listed map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.breaches, r.events = b.breached, len(b.ids)
	for _, s := range b.stories {
		r.messages++
		switch {
		case s.delivered && copies[s.messageID].Taken == 0:
			r.lost++
		case s.delivered:
			r.delivered++
		case s.finals > 0:
			r.givenUp++
		}
	}
	for id, c := range copies {
		if c.Taken > 1 {
			r.repeated++
			r.repeats += c.Taken - 1
		}
		if c.Taken > 1 && listed[id] > 0 {
			r.fromClaims++
		}
	}
	for _, n := range listed {
		r.claims += n
	}
	for _, n := range b.uncertain {
		r.uncertain += n
	}
}
