package pebblestore

import (
	"errors"
	"strings"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// What a settlement means for its recipient's address entries goes into the
// settlement's own write, with the settlement's event as evidence. What follows from what is
// decided by package address; here it is found, asked and stored.

// affect applies a settlement to its recipient's entries. Where an allowlist entry
// makes the error of no effect the verdict says so. It is called before the event is written.
func (t *txn) affect(w *work, s *mta.Settlement) error {
	effect := s.Verdict.Address
	switch {
	case s.Outcome == mta.Delivered:
		if err := t.observe(s, false); err != nil {
			return err
		}
		return t.succeeded(w, s)
	case effect == bounce.AddressNone, s.Attempt == nil && s.Outcome != mta.Bounced:
		return nil
	}
	if err := t.observe(s, effect == bounce.AddressSuppress); err != nil {
		return err
	}
	c := t.cause(w, s)
	overridden, err := t.failed(w, s.Message.Content, &c)
	if overridden {
		s.Verdict = errorIgnored(s.Verdict)
	}
	return err
}

// errorIgnored is a verdict on an address that is mailed whatever its errors: code and tag stay.
func errorIgnored(v bounce.Verdict) bounce.Verdict {
	v.Reason, v.Type = bounce.ReasonErrorIgnored, bounce.TypeIgnored
	return v
}

// surgeEvery is after how many attempts the surge is written down.
const surgeEvery = 5000

// observe tells the surge what an attempt said of its recipient. When that makes one begin,
// the entries that its first attempts quarantined become provisional. The surge lives in
// memory: should the write fail, it has seen one attempt twice.
func (t *txn) observe(s *mta.Settlement, unknown bool) error {
	if s.Attempt == nil {
		return nil
	}
	if t.s.observed++; t.s.observed%surgeEvery == 0 {
		t.writeSurge()
	}
	if !t.s.surge.Observe(s.Time, s.Destination, unknown) {
		return nil
	}
	for _, k := range t.s.surge.Suspects(s.Destination) {
		e, err := t.entry(k)
		if err != nil {
			return err
		}
		t.putEntry(e, address.Doubted(e.entry, s.Time))
	}
	return nil
}

// writeSurge keeps what is known of destinations for the next start.
func (t *txn) writeSurge() {
	row, err := t.s.surge.AppendBinary(nil)
	t.keep(err)
	t.set(metaSurge, row)
}

// loadSurge takes up what the last process knew. What cannot be read is learned anew.
func (s *Store) loadSurge() error {
	row, err := s.get(metaSurge)
	if err != nil || row == nil {
		return err
	}
	known := address.NewSurge()
	if err := known.UnmarshalBinary(row); err != nil {
		s.opts.Logger.Warn("what was known of destinations' unknown users is learned anew", "error", err)
		return nil
	}
	s.surge = known
	return nil
}

// foldedOf is the compare key of a recipient as it goes on the wire, whose domain is an
// A-label in lower case.
func foldedOf(recipient string) string { return strings.ToLower(recipient) }

// cause is what a failed settlement says of its address.
func (t *txn) cause(w *work, s *mta.Settlement) address.Cause {
	c := t.failure(w.messageName(s.Message.ID), &s.Verdict, smtpc.Reply{Text: s.Text})
	if s.Attempt != nil {
		c.Evidence = replied(c.Evidence, s.Attempt.Reply)
	}
	c.Time, c.Address, c.Origin = s.Time, s.Message.Recipient, address.FromBounce
	c.Destination, c.Provider = s.Destination, s.Provider
	c.Provisional = t.s.surge.On(s.Time, s.Destination)
	return c
}

// failure is a cause with what verdict and reply say. Its event is the one written next.
func (t *txn) failure(message string, v *bounce.Verdict, r smtpc.Reply) address.Cause {
	c := address.Cause{Reason: v.Reason, Tag: v.Tag}
	c.Event, c.Message = t.s.eventID(t.nextEvent), message
	c.Code, c.Rule, c.Effect = v.Code, v.Rule, v.Address
	c.Evidence = replied(c.Evidence, r)
	return c
}

// replied adds a reply to evidence, as long as it has words.
func replied(n address.Evidence, r smtpc.Reply) address.Evidence {
	n.ReplyCode, n.Enhanced = r.Code, validText(r.Enhanced)
	if r.Text != "" {
		n.Text = capEvidence(r.Text)
	}
	if r.Phase != smtpc.PhaseNone {
		n.Phase = r.Phase.String()
	}
	return n
}

// capEvidence makes a text fit for evidence.
func capEvidence(s string) string {
	s = capText(s)
	if len(s) <= address.MaxEvidenceText {
		return s
	}
	return strings.ToValidUTF8(s[:address.MaxEvidenceText], "")
}

// succeeded clears the counter, and releases the provisional entry, of an address that took mail.
func (t *txn) succeeded(w *work, s *mta.Settlement) error {
	list, err := t.entriesOf(foldedOf(s.Message.Recipient))
	if err != nil || len(list) == 0 {
		return err
	}
	c := address.Cause{Address: s.Message.Recipient, Origin: address.FromBounce}
	c.Time, c.Event, c.Message = s.Time, t.s.eventID(t.nextEvent), w.messageName(s.Message.ID)
	c.Destination, c.Provider = s.Destination, s.Provider
	for _, e := range list {
		// Errors of all tenants may be entered together, now or before the policy changed.
		of := e.entry.Scope.Tenant
		if e.entry.Status != 0 && (of == "" || of == w.tenantName()) {
			t.putEntry(e, address.Succeeded(e.entry, c))
		}
	}
	return nil
}

// failed enters a failure of mail with this content; overridden when an allowlist entry
// makes it of no effect.
func (t *txn) failed(w *work, content uint64, c *address.Cause) (overridden bool, err error) {
	folded := foldedOf(c.Address)
	list, err := t.entriesOf(folded)
	if err != nil {
		return false, err
	}
	allowed, err := t.allowing(w, content, folded, list)
	if err != nil {
		return false, err
	}
	policy := t.s.opts.Policy()
	if allowed != nil {
		t.putEntry(allowed, address.Failed(allowed.entry, *c, policy))
		return true, nil
	}
	e, err := t.entry(address.Key{Folded: folded, Scope: policy.ErrorScope(w.tenantName())})
	if err != nil {
		return false, err
	}
	before := e.entry.Status
	t.putEntry(e, address.Failed(e.entry, *c, policy))
	if e.entry.Status == address.Quarantined && before != address.Quarantined && !e.entry.Provisional {
		t.s.surge.Quarantined(c.Destination, e.entry.Key)
	}
	return false, nil
}

// allowing is the allowlist entry that makes errors of a mail of no effect; nil when there is none.
func (t *txn) allowing(w *work, content uint64, folded string, list []*entryWork) (*entryWork, error) {
	var q *address.Query
	for _, e := range list {
		if e.entry.Status != address.Allowlisted {
			continue
		}
		if q == nil {
			of, err := t.listOf(w, content)
			if err != nil {
				return nil, err
			}
			q = &address.Query{Folded: folded, Tenant: w.tenantName(), List: of, Class: w.class()}
		}
		if covered(appendEntryScope(nil, &e.entry.Scope), q) {
			return e, nil
		}
	}
	return nil, nil
}

// class is what the delivery's mail is to address entries.
func (w *work) class() address.Class {
	if w.state.Transactional {
		return address.Everything
	}
	return address.Marketing
}

// listOf is the list that a message belongs to, in lower case; content is the message's
// own, of a transactional delivery. Content that is not there belongs to no list: a
// settlement must not fail for it.
func (t *txn) listOf(w *work, content uint64) (string, error) {
	if !w.state.Transactional {
		return listID(w.state.Spec), nil
	}
	says, err := t.s.readSpec(content)
	if errors.Is(err, campaign.ErrNotFound) {
		return "", nil
	}
	return listID(says), err
}

// listID is the List-Id header's value of mail that a delivery describes, in lower case.
func listID(spec *veredusv1.Delivery) string {
	return compose.ListID(spec.GetListId(), domainOf(spec.GetSender().GetFrom()))
}
