package storagetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/learning"
	"github.com/veredus/veredus/server/suspend"
)

// model is what a store should hold.
type model struct {
	now         time.Time
	epoch       uint64
	created     int
	deliveries  []*delivery
	events      []event
	trimmed     int // of events, from the beginning
	suspensions []suspend.Suspension
	standing    map[string]*delivery // transactional, by tenant
	entries     map[address.Key]address.Entry
	texts       map[learning.ID]learning.Text
	removed     []address.Unsubscription // links in mail of deleted deliveries
}

type delivery struct {
	id            string
	tenant        string
	list          string // as the List-Id says it
	no            uint64
	handover      uint64
	transactional bool
	state         campaign.State
	started       time.Time
	expires       time.Time
	last          int64
	rejected      []int64
	purged        bool
	messages      []*message
}

// message is one recipient; its place is learned from the driver.
type message struct {
	delivery    *delivery
	id          mta.MessageID
	index       int64
	address     string
	domain      string
	recipientID string
	ignored     int32
	arrival     time.Time
	expires     time.Time

	claimed     bool
	messageID   string      // of its first claim that may have been sent
	outcome     mta.Outcome // of the last settlement; 0 before one
	waiting     bool        // settled or lost before: it goes by the retry list
	due         time.Time
	attempts    int
	lost        int
	firstClaim  time.Time
	destination string
	attemptedAt []string // destination of each attempt
	rejectedAt  []string // of each that failed authentication
	contentAt   []string // of each refused for its content
	purged      bool
	uncertain   bool // nobody knows how its last attempt ended
	reason      int32

	// What came back, and to which destination it counts.
	returned                     bool
	complained, unsubscribed     bool
	complainedAt, unsubscribedAt string
}

// event is what the model says of one feedback event.
type event struct {
	kind        veredusv1.FeedbackType
	delivery    string
	message     string
	recipient   string
	count       int64
	attempt     int32
	willRetry   bool
	destination string
	reason      int32
}

func (m *message) final() bool {
	return m.ignored != 0 || m.outcome != 0 && m.outcome != mta.Deferred
}

// truth is what the sending log should say.
func (m *message) truth() campaign.Truth {
	switch {
	case m.ignored != 0:
		return campaign.Ignored
	case m.outcome == mta.Delivered:
		return campaign.Sent
	case m.final():
		return campaign.Failed
	case m.delivery.state == campaign.Cancelled && !m.claimed:
		return campaign.CancelledMessage
	case m.delivery.state < campaign.Running:
		return campaign.Pending
	case m.waiting:
		return campaign.Deferred
	}
	return campaign.InRelay
}

func (d *delivery) active() bool {
	return d.state == campaign.Running || d.state == campaign.Paused
}

// unfinished are the messages that the relay still has to settle.
func (d *delivery) unfinished() (list []*message) {
	for _, m := range d.messages {
		if t := m.truth(); t == campaign.InRelay || t == campaign.Deferred {
			list = append(list, m)
		}
	}
	return list
}

// counters are found by counting.
func (d *delivery) counters() campaign.Counters {
	c := campaign.Counters{
		LastIndex: d.last, Rejected: int64(len(d.rejected)), Accepted: int64(len(d.messages)),
		Ignored: map[int32]int64{}, FailedBy: map[int32]int64{}, By: map[string]*campaign.DestinationCounters{},
	}
	for _, m := range d.messages {
		c.Attempts += int64(m.attempts)
		switch m.truth() {
		case campaign.Ignored:
			c.Ignored[m.ignored]++
		case campaign.Pending:
			c.Pending++
		case campaign.Sent:
			c.Sent++
		case campaign.Failed:
			c.Failed++
			c.FailedBy[m.reason]++
		case campaign.CancelledMessage:
			c.Cancelled++
		case campaign.InRelay, campaign.Deferred:
			c.InRelay++
			if m.claimed {
				c.Claimed++
			} else if m.waiting {
				c.Deferred++
			}
		}
		m.countDestination(&c)
	}
	return c
}

func (m *message) countDestination(c *campaign.Counters) {
	at := func(name string) *campaign.DestinationCounters {
		if c.By[name] == nil {
			c.By[name] = &campaign.DestinationCounters{FailedBy: map[int32]int64{}}
		}
		return c.By[name]
	}
	for _, name := range m.attemptedAt {
		at(name).Attempts++
	}
	for _, name := range m.rejectedAt {
		at(name).AuthRejections++
	}
	for _, name := range m.contentAt {
		at(name).ContentRejections++
	}
	if m.complained {
		at(m.complainedAt).Complaints++
		c.Complaints++
	}
	if m.unsubscribed {
		at(m.unsubscribedAt).Unsubs++
		c.Unsubs++
	}
	if m.destination == "" {
		return
	}
	by := at(m.destination)
	switch m.truth() {
	case campaign.Sent:
		by.Sent++
	case campaign.Failed:
		by.Failed++
		by.FailedBy[m.reason]++
	case campaign.CancelledMessage:
		by.Cancelled++
	case campaign.Deferred:
		if !m.claimed {
			by.Deferred++
		}
	}
}

// run is a run by hand-over and domain.
type runID struct {
	handover uint64
	domain   uint32
}

// runs are the unfinished, unclaimed messages by run.
func (d *delivery) runs() map[runID][]*message {
	runs := map[runID][]*message{}
	for _, m := range d.unfinished() {
		if !m.claimed {
			k := runID{m.id.Handover, m.id.Domain}
			runs[k] = append(runs[k], m)
		}
	}
	return runs
}

// fresh and due split a run, each in the order in which it is to be loaded.
func split(run []*message) (fresh, waiting []*message) {
	for _, m := range run {
		if m.waiting {
			waiting = append(waiting, m)
		} else {
			fresh = append(fresh, m)
		}
	}
	slices.SortFunc(fresh, byPlace)
	slices.SortFunc(waiting, func(a, b *message) int {
		return cmp.Or(a.due.Compare(b.due), byPlace(a, b))
	})
	return fresh, waiting
}

func byPlace(a, b *message) int { return compareIDs(a.id, b.id) }

func compareIDs(a, b mta.MessageID) int {
	return cmp.Or(cmp.Compare(a.Handover, b.Handover), cmp.Compare(a.Domain, b.Domain),
		cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Order, b.Order))
}

// claimed are all messages under way, in the order of their places.
func (m *model) claimed() (list []*message) {
	for _, d := range m.deliveries {
		for _, msg := range d.messages {
			if msg.claimed {
				list = append(list, msg)
			}
		}
	}
	slices.SortFunc(list, byPlace)
	return list
}

// finishIfDone finishes a delivery that has nothing left, as every write does.
func (m *model) finishIfDone(d *delivery) bool {
	if d.transactional || !d.active() || len(d.unfinished()) > 0 {
		return false
	}
	d.state = campaign.Finished
	m.events = append(m.events, event{kind: veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED, delivery: d.name()})
	return true
}

func (d *delivery) name() string { return "deliveries/" + d.id }

func (m *message) name() string { return m.delivery.name() + "/messages/" + m.id.String() }

func (m *message) String() string {
	return fmt.Sprintf("%s <%s> %d", m.name(), m.address, m.truth())
}

// clone is a deep copy.
func (m *model) clone() *model {
	n := *m
	n.deliveries, n.standing = nil, map[string]*delivery{}
	n.events, n.suspensions = slices.Clone(m.events), slices.Clone(m.suspensions)
	n.entries, n.texts, n.removed = maps.Clone(m.entries), map[learning.ID]learning.Text{}, slices.Clone(m.removed)
	for id, text := range m.texts {
		text.Providers = maps.Clone(text.Providers)
		n.texts[id] = text
	}
	for _, d := range m.deliveries {
		c := *d
		c.rejected, c.messages = slices.Clone(d.rejected), nil
		for _, msg := range d.messages {
			cm := *msg
			cm.delivery, cm.attemptedAt, cm.rejectedAt = &c, slices.Clone(msg.attemptedAt), slices.Clone(msg.rejectedAt)
			cm.contentAt = slices.Clone(msg.contentAt)
			c.messages = append(c.messages, &cm)
		}
		n.deliveries = append(n.deliveries, &c)
		for tenant, s := range m.standing {
			if s == d {
				n.standing[tenant] = &c
			}
		}
	}
	return &n
}
