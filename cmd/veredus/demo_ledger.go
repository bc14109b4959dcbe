package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// tally is our ledger: what the feedback stream told, in a few octets for each
// recipient.
type tally struct {
	mu        sync.Mutex
	started   time.Time
	byDomain  map[string]int // recipient domain to provider
	providers []provider
	seed      maphash.Seed
	delivered []uint64            // hashes of Message-IDs
	uncertain map[uint64]struct{} // hashes of those that may have been delivered
	firsts    firstAttempts

	changed chan struct{} // something was added
	ended   chan struct{} // closed at the end of the delivery
	end     time.Time
}

// provider is one receiver's part of our ledger.
type provider struct {
	name       string
	recipients int64
	sent       int64
	failed     int64
	cancelled  int64
	deferrals  int64 // attempts that were deferred
	attempts   int64
	byReason   map[veredusv1.FailureReason]int64 // of failed
	returned
}

// returned is what came back.
type returned struct {
	lateBounces, complaints, unsubscribes int64
}

// covers reports whether r has at least what other has.
func (r returned) covers(other returned) bool {
	return r.lateBounces >= other.lateBounces && r.complaints >= other.complaints && r.unsubscribes >= other.unsubscribes
}

func (r *returned) plus(other returned) {
	r.lateBounces += other.lateBounces
	r.complaints += other.complaints
	r.unsubscribes += other.unsubscribes
}

// returnedTo is what the receivers sent back and the node accepted.
func returnedTo(s *serve.Snapshot) returned {
	return returned{
		lateBounces: s.Returns[world.FateOOBUnknown].Accepted + s.Returns[world.FateOOBFull].Accepted,
		complaints:  s.Returns[world.FateComplaint].Accepted, unsubscribes: s.Returns[world.FateUnsubscribe].Accepted,
	}
}

func (p *provider) text() string {
	return fmt.Sprintf("sent %s  failed %s  deferrals %s", thousands(p.sent), thousands(p.failed), thousands(p.deferrals))
}

// newTally knows the receivers by their data and counts who writes to whom.
func newTally(w *world.World, recipients int) *tally {
	t := &tally{
		byDomain: map[string]int{}, seed: maphash.MakeSeed(), uncertain: map[uint64]struct{}{},
		delivered: make([]uint64, 0, recipients), changed: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	for _, r := range w.Receivers {
		for _, domain := range r.Domains {
			t.byDomain[domain.Name] = len(t.providers)
		}
		t.providers = append(t.providers, provider{name: r.Name, byReason: map[veredusv1.FailureReason]int64{}})
	}
	return t
}

// expect counts the recipients of each provider.
func (t *tally) expect(people iter.Seq[world.Recipient]) {
	for r := range people {
		t.providers[t.of(r.Address)].recipients++
	}
}

func (t *tally) of(address string) int {
	return t.byDomain[address[strings.LastIndexByte(address, '@')+1:]]
}

// add takes a batch of events.
func (t *tally) add(events []*veredusv1.FeedbackEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		switch {
		case ended(e) && t.end.IsZero():
			t.end = time.Now()
			close(t.ended)
		case e.GetMessage() != "":
			t.message(e)
		}
	}
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// took is how long the delivery took; zero before its end.
func (t *tally) took() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end.IsZero() {
		return 0
	}
	return t.end.Sub(t.started)
}

// returned is what the feedback told of what came back.
func (t *tally) returned() returned {
	_, total := t.snapshot()
	return total.returned
}

func (t *tally) message(e *veredusv1.FeedbackEvent) {
	p := &t.providers[t.of(e.GetRecipient())]
	id := maphash.String(t.seed, e.GetMessageId())
	if e.GetDeliveryUncertain() {
		t.uncertain[id] = struct{}{}
	}
	switch e.GetType() {
	case veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED:
		p.sent++
		p.attempts++
		t.delivered = append(t.delivered, id)
	case veredusv1.FeedbackType_FEEDBACK_TYPE_BOUNCED:
		p.fail(e)
		if e.GetAttempt() > 0 {
			p.attempts++
		}
	case veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED:
		p.deferrals++
		p.attempts++
	case veredusv1.FeedbackType_FEEDBACK_TYPE_EXPIRED, veredusv1.FeedbackType_FEEDBACK_TYPE_SUPPRESSED:
		p.fail(e)
		return
	case veredusv1.FeedbackType_FEEDBACK_TYPE_OUT_OF_BAND_BOUNCE:
		p.sent--
		p.fail(e)
		p.lateBounces++
		return
	case veredusv1.FeedbackType_FEEDBACK_TYPE_COMPLAINT:
		p.complaints++
		return
	case veredusv1.FeedbackType_FEEDBACK_TYPE_UNSUBSCRIBED:
		p.unsubscribes++
		return
	}
	if e.GetAttempt() == 1 {
		t.firsts.add(e.GetTime().AsTime().Sub(t.started))
	}
}

func (p *provider) fail(e *veredusv1.FeedbackEvent) {
	p.failed++
	p.byReason[e.GetReason()]++
}

// reasons is the provider's row in the table of reasons.
func (p *provider) reasons() reasonRow {
	row := reasonRow{name: p.name, toDeliver: p.recipients, byReason: p.byReason}
	for reason, n := range p.byReason {
		if hardReason(reason) {
			row.hard += n
		}
		if softReason(reason) {
			row.soft += n
		}
	}
	return row
}

// snapshot copies the figures, but not those by reason, and adds them up.
func (t *tally) snapshot() (providers []provider, total provider) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.providers {
		total.recipients += p.recipients
		total.sent += p.sent
		total.failed += p.failed
		total.cancelled += p.cancelled
		total.deferrals += p.deferrals
		total.attempts += p.attempts
		total.plus(p.returned)
	}
	return slices.Clone(t.providers), total
}

// firstAttempts counts first attempts by the hundredth of a second.
type firstAttempts struct {
	counts []uint32
	total  int64
}

// tick is the width of a count.
const tick = 10 * time.Millisecond

func (f *firstAttempts) add(after time.Duration) {
	i := int(max(after, 0) / tick)
	for len(f.counts) <= i {
		f.counts = append(f.counts, 0)
	}
	f.counts[i]++
	f.total++
}

// rate is messages per second until nine tenths of first attempts had been made.
func (f *firstAttempts) rate() float64 {
	goal, seen := (f.total*9+9)/10, int64(0)
	for i, n := range f.counts {
		if seen += int64(n); seen >= goal && seen > 0 {
			return float64(seen) / (time.Duration(i+1) * tick).Seconds()
		}
	}
	return 0
}

// ledger compares both sides.
type ledger struct {
	Messages            int64 `json:"messages"`
	Unique              int64 `json:"unique"`
	DKIMVerified        int64 `json:"dkim_verified"`
	DKIMFailed          int64 `json:"dkim_failed"`
	Duplicates          int64 `json:"duplicates"`
	DuplicatesProvoked  int64 `json:"duplicates_provoked"`
	AcceptedUnconfirmed int64 `json:"accepted_unconfirmed"`
	LimitViolations     int64 `json:"limit_violations"`
	ProtocolErrors      int64 `json:"protocol_errors"`
	// Delivered is what our feedback says; Missing of these no receiver has, and
	// Unexpected are at a receiver though we neither delivered them nor called them
	// uncertain.
	Delivered  int64 `json:"delivered"`
	Missing    int64 `json:"missing"`
	Unexpected int64 `json:"unexpected"`
	// Returns is what the receivers sent back, by the fate of the recipient. The
	// others are what our feedback tells of it.
	Returns      map[world.Fate]serve.ReturnCounts `json:"returns"`
	LateBounces  int64                             `json:"late_bounces"`
	Complaints   int64                             `json:"complaints"`
	Unsubscribes int64                             `json:"unsubscribes"`

	problems []string
}

// compare sets our ledger beside the receivers'.
func (t *tally) compare(s *serve.Snapshot, dump func(io.Writer) error) (*ledger, error) {
	l := &ledger{
		Messages: s.Messages, Unique: s.Unique, DKIMVerified: s.DKIMVerified, DKIMFailed: s.DKIMFailed + s.DKIMMissing,
		Duplicates: s.Duplicates, DuplicatesProvoked: s.DuplicatesProvoked, AcceptedUnconfirmed: s.AcceptedUnconfirmed,
		LimitViolations: s.LimitViolations, ProtocolErrors: s.ProtocolErrors, Delivered: int64(len(t.delivered)),
	}
	slices.Sort(t.delivered)
	if twice := len(t.delivered) - len(slices.Compact(slices.Clone(t.delivered))); twice > 0 {
		l.problem("%d messages were reported as delivered twice", twice)
	}
	if err := t.match(l, dump); err != nil {
		return nil, err
	}
	l.judge(s)
	l.judgeReturns(s, t.returned())
	return l, nil
}

// judgeReturns compares what was sent back with what we were told.
func (l *ledger) judgeReturns(s *serve.Snapshot, told returned) {
	sent := returnedTo(s)
	l.Returns, l.LateBounces, l.Complaints, l.Unsubscribes = s.Returns, told.lateBounces, told.complaints, told.unsubscribes
	for _, c := range []struct {
		what       string
		sent, told int64
	}{
		{"late bounces", sent.lateBounces, told.lateBounces},
		{"complaints", sent.complaints, told.complaints},
		{"unsubscribes", sent.unsubscribes, told.unsubscribes},
	} {
		if c.sent != c.told {
			l.problem("the receivers sent back %d %s that we accepted, but we reported %d", c.sent, c.what, c.told)
		}
	}
	for _, fate := range slices.Sorted(maps.Keys(s.Returns)) {
		c := s.Returns[fate]
		if lost := c.Waiting + c.Refused + c.GivenUp + c.Dropped + c.Nothing; lost > 0 {
			l.problem("of %d returns for %s: %d refused, %d not sent, %d without a way back; first: %s", c.Due, fate, c.Refused,
				c.Waiting+c.GivenUp+c.Dropped, c.Nothing, strings.Join(s.ReturnFailures[:min(1, len(s.ReturnFailures))], ""))
		}
	}
}

func (l *ledger) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// match looks for each accepted message among those we delivered.
func (t *tally) match(l *ledger, dump func(io.Writer) error) error {
	read, write := io.Pipe()
	go func() { _ = write.CloseWithError(dump(write)) }()
	defer func() { _ = read.Close() }()
	found := make([]bool, len(t.delivered))
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		var r serve.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("the receivers' ledger: %w", err)
		}
		id := maphash.String(t.seed, strings.Trim(r.MessageID, "<>"))
		if i, ok := slices.BinarySearch(t.delivered, id); ok {
			found[i] = true
			continue
		}
		if _, ok := t.uncertain[id]; ok {
			continue
		}
		if l.Unexpected++; l.Unexpected <= 5 {
			l.problem("%s to %s was accepted by %s, but we did not report it as delivered", r.MessageID, r.Recipient, r.Provider)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the receivers' ledger: %w", err)
	}
	for i, ok := range found {
		if !ok && (i == 0 || t.delivered[i] != t.delivered[i-1]) {
			l.Missing++
		}
	}
	return nil
}

// judge names everything that is not as it should be.
func (l *ledger) judge(s *serve.Snapshot) {
	if l.Missing > 0 {
		l.problem("%d messages that we reported as delivered are at no receiver", l.Missing)
	}
	if l.Unexpected > 5 {
		l.problem("%d messages in all were accepted that we did not report as delivered", l.Unexpected)
	}
	if l.Duplicates > 0 {
		l.problem("%d messages were sent again although their receiver had confirmed them", l.Duplicates)
	}
	if l.LimitViolations > 0 {
		l.problem("limits of the MX rules were broken %d times: %s", l.LimitViolations, violations(s.Violations))
	}
	if l.DKIMFailed > 0 || l.DKIMVerified != l.Messages {
		l.problem("%d of %d messages have no good DKIM signature%s", l.Messages-l.DKIMVerified, l.Messages, firstDKIM(s))
	}
	if l.ProtocolErrors > 0 {
		l.problem("the receivers noted %d breaches of SMTP, first: %s", l.ProtocolErrors, s.ProtocolErrorDetails[0].What)
	}
}

// violations adds up the first hundred by receiver and limit.
func violations(list []world.Violation) string {
	counts := map[string]int{}
	for _, v := range list {
		counts[fmt.Sprintf("%s at %s", v.Limit, v.Receiver)]++
	}
	var words []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%d of %s", counts[what], what))
	}
	return fmt.Sprintf("%s; first %.2f allowed, %.2f seen", strings.Join(words, ", "), list[0].Allowed, list[0].Seen)
}

func firstDKIM(s *serve.Snapshot) string {
	if len(s.DKIMFailures) == 0 {
		return ""
	}
	return ", first: " + s.DKIMFailures[0].Error
}
