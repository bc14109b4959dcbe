package serve

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/world"
)

// maxDetails is how many violations, protocol errors and DKIM failures a
// snapshot describes; all are counted.
const maxDetails = 100

// Snapshot is the ledger at one moment. Messages counts accepted copies, so at
// rest Messages = Unique + Duplicates + DuplicatesProvoked + those without a
// Message-ID, and Messages = DKIMVerified + DKIMFailed + DKIMMissing + DKIMUnchecked.
type Snapshot struct {
	Counts
	// Unique counts different Message-IDs.
	Unique int64 `json:"unique"`
	// WithoutMessageID counts accepted messages that had no Message-ID.
	WithoutMessageID int64              `json:"without_message_id"`
	ByProvider       []ProviderSnapshot `json:"by_provider"`
	// Returns is what was sent back, by the fate of the recipient; ReturnFailures are
	// the words of the first twenty that did not go well.
	Returns        map[world.Fate]ReturnCounts `json:"returns"`
	ReturnFailures []string                    `json:"return_failures"`
	// Violations, ProtocolErrorDetails and DKIMFailures hold the first hundred each.
	Violations           []world.Violation `json:"violations"`
	ProtocolErrorDetails []ProtocolError   `json:"protocol_error_details"`
	DKIMFailures         []DKIMFailure     `json:"dkim_failures"`
}

// Counts are the ledger's figures, for one receiver or for all.
type Counts struct {
	// Messages counts accepted messages, each copy of one.
	Messages int64 `json:"messages"`
	// DKIMVerified counts messages on which every signature verifies and one at
	// least is aligned with the From domain; DKIMFailed those with signatures of
	// which that is not true; DKIMMissing those without signature; DKIMUnchecked
	// those left out by Config.VerifyEvery.
	DKIMVerified  int64 `json:"dkim_verified"`
	DKIMFailed    int64 `json:"dkim_failed"`
	DKIMMissing   int64 `json:"dkim_missing"`
	DKIMUnchecked int64 `json:"dkim_unchecked"`
	// Duplicates counts copies of a message whose last copy was confirmed by a
	// 250; DuplicatesProvoked those whose last copy was not.
	Duplicates         int64 `json:"duplicates"`
	DuplicatesProvoked int64 `json:"duplicates_provoked"`
	// AcceptedUnconfirmed counts accepted messages whose 250 was never sent.
	AcceptedUnconfirmed int64 `json:"accepted_unconfirmed"`
	// LimitViolations counts events that a stated limit did not allow.
	LimitViolations int64 `json:"limit_violations"`
	// ProtocolErrors counts breaches of SMTP or of the message format by the sender.
	ProtocolErrors int64 `json:"protocol_errors"`
	// Connections and Mails count accepted TCP connections and MAIL commands.
	Connections int64 `json:"connections"`
	Mails       int64 `json:"mails"`
	// Deferred and Refused count 4xx and 5xx replies by the receiver's policy,
	// Dropped the lines it closed without a reply.
	Deferred int64 `json:"deferred"`
	Refused  int64 `json:"refused"`
	Dropped  int64 `json:"dropped"`
}

// ProviderSnapshot is one receiver's part of the ledger.
type ProviderSnapshot struct {
	Provider string `json:"provider"`
	Counts
	// Causes counts refusals and drops by why they were made.
	Causes map[world.Cause]int64 `json:"causes,omitempty"`
}

// ProtocolError is one breach of the protocol by the sender.
type ProtocolError struct {
	Time       time.Time `json:"time"`
	Provider   string    `json:"provider"`
	What       string    `json:"what"`
	Recipients string    `json:"recipients,omitempty"`
}

// DKIMFailure is one message whose signatures did not all verify.
type DKIMFailure struct {
	Provider  string `json:"provider"`
	MessageID string `json:"message_id"`
	Error     string `json:"error"`
}

// Record is one line of [World.Dump]: one accepted message for one recipient.
type Record struct {
	MessageID string    `json:"message_id"`
	Recipient string    `json:"recipient"`
	Provider  string    `json:"provider"`
	Time      time.Time `json:"time"`
	Confirmed bool      `json:"confirmed"`
	// DKIM is pass, fail, none or unchecked.
	DKIM string `json:"dkim"`
}

// The values of Record.DKIM.
const (
	dkimPass      = "pass"
	dkimFail      = "fail"
	dkimNone      = "none"
	dkimUnchecked = "unchecked"
)

// ledger remembers what the world accepted. In memory it holds a few octets per
// message, hashes of Message-IDs and recipients; the rest goes to a spool file.
type ledger struct {
	mu        sync.Mutex
	settledIf *sync.Cond // signalled when settled grows
	accepted  int64      // receipts given out
	settled   int64      // receipts settled

	seed       maphash.Seed
	ids        map[uint64]bool // by Message-ID: was the last copy confirmed?
	recipients map[uint64]uint32
	total      Snapshot
	providers  []ProviderSnapshot

	file     *os.File
	spool    *bufio.Writer
	encoder  *json.Encoder
	spoolErr error
}

// receipt is one acceptance that is not settled yet.
type receipt struct {
	site       *site
	key        uint64 // of the Message-ID, 0 without one
	messageID  string
	recipients []string
	time       time.Time
	confirmed  bool
}

func newLedger(sites []*site) (*ledger, error) {
	f, err := os.CreateTemp("", "veredus-world-*.jsonl")
	if err != nil {
		return nil, fmt.Errorf("creating the ledger's spool file: %w", err)
	}
	// The open file outlives its name and goes with the process, however it ends.
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("unlinking the ledger's spool file: %w", err)
	}
	l := &ledger{
		seed: maphash.MakeSeed(), ids: map[uint64]bool{}, recipients: map[uint64]uint32{},
		file: f, spool: bufio.NewWriterSize(f, 64<<10), providers: make([]ProviderSnapshot, len(sites)),
	}
	l.encoder = json.NewEncoder(l.spool)
	l.encoder.SetEscapeHTML(false)
	l.settledIf = sync.NewCond(&l.mu)
	for i, s := range sites {
		s.index = i
		l.providers[i] = ProviderSnapshot{Provider: s.name, Causes: map[world.Cause]int64{}}
	}
	return l, nil
}

// add changes one figure of a receiver and of the total alike.
func (l *ledger) add(s *site, change func(c *Counts)) {
	change(&l.providers[s.index].Counts)
	change(&l.total.Counts)
}

func (l *ledger) connected(s *site) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s, func(c *Counts) { c.Connections++ })
}

func (l *ledger) mail(s *site) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s, func(c *Counts) { c.Mails++ })
}

// violated records breaches of stated limits.
func (l *ledger) violated(s *site, found []world.Violation) {
	if len(found) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s, func(c *Counts) { c.LimitViolations += int64(len(found)) })
	l.total.Violations = append(l.total.Violations, found[:min(len(found), maxDetails-len(l.total.Violations))]...)
}

// protocolError records a breach of the protocol.
func (l *ledger) protocolError(s *site, what, recipients string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s, func(c *Counts) { c.ProtocolErrors++ })
	if len(l.total.ProtocolErrorDetails) < maxDetails {
		l.total.ProtocolErrorDetails = append(l.total.ProtocolErrorDetails,
			ProtocolError{time.Now(), s.name, what, recipients[:min(len(recipients), 400)]})
	}
}

// decided counts a refusal or a drop; agreement is not counted here.
func (l *ledger) decided(s *site, d world.Decision) {
	if d.Positive() && d.Drop == world.Stay {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s, func(c *Counts) {
		switch {
		case d.Code >= 500:
			c.Refused++
		case d.Code >= 400:
			c.Deferred++
		case d.Code == 0:
			c.Dropped++
		}
	})
	if d.Cause != world.CauseNone {
		l.providers[s.index].Causes[d.Cause]++
	}
}

// accept enters a message before its reply leaves, so that the ledger is never
// behind what the sender knows. The receipt must be settled.
func (l *ledger) accept(s *site, now time.Time, messageID string, recipients []string) *receipt {
	r := &receipt{site: s, messageID: messageID, recipients: append([]string(nil), recipients...), time: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted++
	for _, rcpt := range recipients {
		l.recipients[l.recipientKey(rcpt)]++
	}
	l.add(s, func(c *Counts) { c.Messages++ })
	if messageID == "" {
		l.total.WithoutMessageID++
		return r
	}
	r.key = maphash.String(l.seed, messageID)
	confirmed, seen := l.ids[r.key]
	switch {
	case !seen:
		l.total.Unique++
	case confirmed:
		l.add(s, func(c *Counts) { c.Duplicates++ })
	default:
		l.add(s, func(c *Counts) { c.DuplicatesProvoked++ })
	}
	l.ids[r.key] = false // until its own 250 leaves
	return r
}

func (l *ledger) recipientKey(address string) uint64 {
	return maphash.String(l.seed, strings.ToLower(address))
}

// confirmed records that the 250 is being sent.
func (l *ledger) confirmed(r *receipt) { l.confirm(r, true) }

// unconfirmed records that the 250 was not sent, though confirmed may have said so.
func (l *ledger) unconfirmed(r *receipt) { l.confirm(r, false) }

func (l *ledger) confirm(r *receipt, sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.confirmed = sent
	if !sent {
		l.add(r.site, func(c *Counts) { c.AcceptedUnconfirmed++ })
	}
	if r.messageID != "" {
		l.ids[r.key] = sent
	}
}

// settle enters the DKIM verdict and writes the message's lines to the spool.
func (l *ledger) settle(r *receipt, verdict, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(r.site, func(c *Counts) {
		switch verdict {
		case dkimPass:
			c.DKIMVerified++
		case dkimFail:
			c.DKIMFailed++
		case dkimNone:
			c.DKIMMissing++
		default:
			c.DKIMUnchecked++
		}
	})
	if verdict == dkimFail && len(l.total.DKIMFailures) < maxDetails {
		l.total.DKIMFailures = append(l.total.DKIMFailures, DKIMFailure{r.site.name, r.messageID, reason})
	}
	l.write(r, verdict)
	l.settled++
	l.settledIf.Broadcast()
}

// write appends a settled message to the spool. After an error the dump is
// incomplete and says so.
func (l *ledger) write(r *receipt, verdict string) {
	for _, rcpt := range r.recipients {
		if l.spoolErr != nil {
			return
		}
		l.spoolErr = l.encoder.Encode(Record{r.messageID, rcpt, r.site.name, r.time, r.confirmed, verdict})
	}
}

// wait blocks until what had been accepted when it was called is settled. The
// caller holds the lock.
func (l *ledger) wait() {
	for target := l.accepted; l.settled < target; {
		l.settledIf.Wait()
	}
}

// Ledger returns the ledger as it stands, after the signatures of all messages
// accepted so far have been checked.
func (w *World) Ledger() Snapshot {
	l := w.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait()
	s := l.total
	s.Violations = append([]world.Violation{}, s.Violations...)
	s.ProtocolErrorDetails = append([]ProtocolError{}, s.ProtocolErrorDetails...)
	s.DKIMFailures = append([]DKIMFailure{}, s.DKIMFailures...)
	s.ByProvider = make([]ProviderSnapshot, len(l.providers))
	for i, p := range l.providers {
		causes := make(map[world.Cause]int64, len(p.Causes))
		for k, v := range p.Causes {
			causes[k] = v
		}
		p.Causes = causes
		s.ByProvider[i] = p
	}
	s.Returns, s.ReturnFailures = w.returns.snapshot()
	return s
}

// Accepted returns how many messages the world accepted for a recipient, every
// copy counted, letter case ignored. It knows recipients by a 64-bit hash.
func (w *World) Accepted(recipient string) int {
	l := w.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.recipients[l.recipientKey(recipient)])
}

// Has reports whether the world accepted a message with this Message-ID, given
// with its angle brackets. It knows Message-IDs by a 64-bit hash.
func (w *World) Has(messageID string) bool {
	l := w.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.ids[maphash.String(l.seed, messageID)]
	return ok
}

// Dump writes one JSON [Record] per line and recipient for everything accepted
// so far, in no particular order. It does not hold up the receivers.
func (w *World) Dump(out io.Writer) error {
	size, err := w.ledger.flush()
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, io.NewSectionReader(w.ledger.file, 0, size)); err != nil {
		return fmt.Errorf("dumping the ledger: %w", err)
	}
	return nil
}

// flush brings everything settled into the spool file and returns its size.
func (l *ledger) flush() (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait()
	if l.spoolErr == nil {
		l.spoolErr = l.spool.Flush()
	}
	if l.spoolErr != nil {
		return 0, fmt.Errorf("the ledger's spool file is incomplete: %w", l.spoolErr)
	}
	info, err := l.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("the ledger's spool file: %w", err)
	}
	return info.Size(), nil
}

func (l *ledger) close() error { return l.file.Close() }
