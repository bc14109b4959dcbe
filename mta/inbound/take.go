package inbound

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// settleTimeout bounds what one message may cause. A sender waits 10 min for the reply to its
// data (RFC 5321 section 4.5.3.2.6).
const settleTimeout = time.Minute

// take understands a message and sees to its effects; nil once they are durable.
func (s *Server) take(from *line, e envelope, raw []byte) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, settleTimeout)
	defer cancel()
	note := Note{Time: s.options.Now(), Client: hostOf(from), Sender: e.sender}
	reports, err := s.understand(ctx, e, raw)
	if err != nil {
		return s.deferred(err, began)
	}
	var seen []Observation
	for i, report := range reports {
		o, err := s.settle(ctx, report, note.Time)
		if err != nil {
			return s.deferred(err, began)
		}
		if o.Effect == EffectUnprocessed {
			note.add(e.to[i].address, report, o)
		}
		seen = append(seen, o)
	}
	dropped, err := s.keep(note, e, raw)
	if err != nil {
		return s.deferred(err, began)
	}
	for i, o := range seen {
		o.Duration = time.Since(began)
		if o.Effect == EffectUnprocessed && dropped > 0 {
			o.Dropped, dropped = dropped, 0
		}
		s.observe(o, from, reports[i])
	}
	return nil
}

// deferred tells the sender to try again.
func (s *Server) deferred(err error, began time.Time) error {
	s.options.Log.Error("mail that came back could not be settled; its sender will try again", "cause", err)
	s.options.Observe(Observation{Effect: EffectDeferred, Duration: time.Since(began)})
	return errUnsettled
}

func (s *Server) observe(o Observation, from *line, r Report) {
	s.options.Observe(o)
	s.options.Log.Debug("mail came back", "kind", o.Kind, "form", r.Form, "effect", o.Effect, "reason", o.Reason, "client", hostOf(from))
	if o.Dropped > 0 {
		s.options.Log.Warn("the folder of unprocessed mail is full: the oldest mails were removed", "mails", o.Dropped)
	}
}

// understand classifies a message for each of its addressees. Reading costs memory and time
// beyond the message's own, so only a few are read at a time.
func (s *Server) understand(ctx context.Context, e envelope, raw []byte) ([]Report, error) {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.classify(e, raw), nil
}

// classify survives a failure of the reader: the mail is then kept like one that is not
// understood, or it would come again, and fail again, for days.
func (s *Server) classify(e envelope, raw []byte) (reports []Report) {
	defer func() {
		if cause := recover(); cause != nil {
			s.options.Log.Error("reading a mail failed", "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			reports = make([]Report, len(e.to))
			for i := range reports {
				reports[i] = Report{Form: formUnreadable, Why: "reading it failed; the log has the cause"}
			}
		}
	}()
	classifier := s.options.Classifier()
	study := newStudy(Parse(raw, Limits{}))
	for _, to := range e.to {
		reports = append(reports, classifier.classify(study, Envelope{Recipient: to.address, Unsubscribe: to.unsubscribe, Null: e.sender == ""}))
	}
	return reports
}

// formUnreadable is the form of a mail that could not be read.
const formUnreadable = "unreadable"

// settle brings about what a report says. An error means that it is not certain to be durable.
func (s *Server) settle(ctx context.Context, r Report, now time.Time) (Observation, error) {
	o := Observation{Kind: r.Kind.String(), Effect: EffectNone}
	if ok, err := s.unsubscribe(ctx, r); err != nil || ok {
		o.Effect = Applied.String()
		return o, err
	}
	returns, unprocessed := Returns(r, now)
	if len(returns) == 0 {
		o.Reason = inconsequence(r)
	}
	for _, one := range returns {
		effect, err := s.options.Ledger.Return(ctx, one)
		if err != nil {
			return o, fmt.Errorf("ledger: %w", err)
		}
		o.Effect = effect.String()
		if unprocessed = unsettled(effect); effect != OtherRecipient {
			break
		}
	}
	if unprocessed != "" {
		o.Effect, o.Reason = EffectUnprocessed, unprocessed
	}
	if r.Form == formUnreadable {
		o.Reason = ReasonUnreadable
	}
	return o, nil
}

// unsettled is why an effect leaves something for a person to see to; empty if it does not.
func unsettled(e Effect) string {
	switch e {
	case OtherRecipient:
		return ReasonOtherRecipient
	case UnknownMessage:
		return ReasonUnknownMessage
	}
	return ""
}

// inconsequence is what about a report makes it change nothing.
func inconsequence(r Report) string {
	switch {
	case r.Kind == KindBounce:
		return r.Action.String()
	case r.Kind == KindComplaint && !speaksOfReader(r.FeedbackType):
		return r.FeedbackType
	}
	return ""
}

// unsubscribe opens the sealed tokens of a request, and reports whether one was ours.
func (s *Server) unsubscribe(ctx context.Context, r Report) (bool, error) {
	if r.Kind != KindUnsubscribe || s.options.Links == nil {
		return false, nil
	}
	for _, token := range r.Sealed {
		ok, err := s.options.Links.Unsubscribe(ctx, token)
		if err != nil {
			return false, fmt.Errorf("unsubscribe link: %w", err)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// add notes that an addressee's part was not processed, and why.
func (n *Note) add(address string, r Report, o Observation) {
	if n.Reason == "" {
		n.Reason, n.Detail, n.Kind = o.Reason, r.Why, o.Kind
	}
	n.Recipients = append(n.Recipients, address)
}

// keep stores what a person should see to, if anything. The fields that a delivery agent
// writes (RFC 5321 section 4.4) go on top, so that `veredus inbound` reads the file as
// it was read here.
func (s *Server) keep(note Note, e envelope, raw []byte) (dropped int, err error) {
	if note.Reason == "" {
		return 0, nil
	}
	var trace bytes.Buffer
	fmt.Fprintf(&trace, "Return-Path: <%s>\r\n", fieldText(e.sender))
	for _, address := range note.Recipients {
		fmt.Fprintf(&trace, "Delivered-To: %s\r\n", fieldText(address))
	}
	fmt.Fprintf(&trace, "Received: from [%s] by %s; %s\r\n", fieldText(note.Client), s.options.Hostname, note.Time.Format(time.RFC1123Z))
	return s.options.Unprocessed.Keep(note, trace.Bytes(), bytes.TrimLeft(raw, "\r\n"))
}

// fieldText is a client's text made fit for a header field.
func fieldText(text string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == '<' || r == '>' || r == 0x7f {
			return -1
		}
		return r
	}, clip(strings.ToValidUTF8(text, ""), maxAddress))
}

// hostOf is the client's address without its port.
func hostOf(l *line) string {
	if p := clientAddr(l.RemoteAddr()); p.IsValid() {
		return p.String()
	}
	return l.RemoteAddr().String()
}
