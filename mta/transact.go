package mta

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/smtpc"
)

// mail is a message ready for the wire.
type mail struct {
	to       Addressee
	envelope smtpc.Envelope
	bytes    []byte
}

// errNoKey is why a message without a DKIM key waits.
var errNoKey = errors.New("no DKIM key is loaded for the From domain")

// keyWait is how long a message waits for a key that an operator took away.
const keyWait = 20 * time.Minute

// untried gives a message back of which MAIL was never written. It answers whether
// the relay goes on.
func (r *Relay) untried(j *job, usable bool) bool {
	return r.post(func(now time.Time) { r.takenBack(now, j, usable) })
}

// lost gives a message back whose envelope was lost with the connection, before a word
// about it; own says that it was its own turn.
func (r *Relay) lost(j *job, own bool) {
	r.post(func(now time.Time) {
		j.h.sending, j.h.job = false, nil
		if own {
			j.h.returns++
		}
		r.core.Lost(now, j.s.id, j.h.id)
	})
}

// untold ends a message without a word to the server.
func (r *Relay) untold(j *job, end Settlement) {
	s, h := j.s, j.h
	r.post(func(now time.Time) { r.core.Replied(now, s.id, h.id, unsaid, true) })
	r.writer.settle(h, end)
	r.observe(r.settings.Load().Rules.ProviderOf(s.open.Host), end.Outcome, end.Verdict.Code, nil)
}

// report settles an attempt and tells the core what the reply says about the path.
// before is how many messages the connection had carried before it.
func (r *Relay) report(c *carrier, j *job, res *smtpc.Result, before int) {
	s, h, now := j.s, j.h, r.cfg.Now()
	v := bounce.Verdict{Disposition: bounce.Delivered}
	if !res.Delivered {
		v = r.qualify(s, res.Reply, h.run.domain)
	}
	ev := r.cfg.Schedule.evidence(v, res.Reply)
	v = reacted(v, s.open.Limits.Reactions, ev)
	ev.Messages, ev.Took = before, res.Took
	if res.Local || !res.Delivered && res.Reply.Code == 0 {
		ev = silence
	}
	ev.Sign = signOf(v, res)
	if !res.Delivered && res.Reply.Code == 0 && r.ctx.Err() != nil {
		v.Charged = false // broken off by our own stop
	}
	d := r.cfg.Schedule.Decide(h.msg, h.run.ho.Class, v, res.Reply, s.open.Source.Name, now)
	end := Settlement{
		Message: h.msg, Outcome: d.Outcome, Time: now, Verdict: v, Next: d.Next, Destination: s.open.Destination, MessageID: h.mailID,
		Provider: r.settings.Load().Rules.ProviderOf(s.open.Host),
	}
	if !res.Delivered {
		end.Text = res.Reply.String()
	}
	if res.Local {
		d.State.Attempts = h.msg.State.Attempts
	} else {
		end.Attempt = c.attempt(res, d.State.Attempts, j.began, now)
	}
	h.msg.State = d.State
	if d.Outcome == Expired {
		end.Verdict = bounce.Expired(v)
	}
	usable := res.Usable
	r.post(func(now time.Time) { r.core.Replied(now, s.id, h.id, ev, usable) })
	r.writer.settle(h, end)
	r.observe(end.Provider, d.Outcome, end.Verdict.Code, end.Attempt)
}

// prepare renders and signs. What it makes is the same in every attempt but for
// the signature's time.
func (r *Relay) prepare(h *held) (m mail, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("composing a message panicked", "message", h.msg.Name, "panic", p, "stack", string(debug.Stack()))
			err = &compose.RenderError{Err: fmt.Errorf("panic: %v", p)}
		}
	}()
	set := r.settings.Load()
	content := h.msg.Content
	if content == 0 {
		content = h.run.ho.Content
	}
	tmpl, err := r.contents.get(r.ctx, content)
	if err != nil {
		return mail{}, err
	}
	from := h.run.ho.SenderDomain
	to := Addressee{
		ID: h.msg.ID, Recipient: h.msg.Recipient, Tenant: h.run.ho.Tenant, Delivery: h.run.ho.DeliveryID, DeliveryNo: h.run.ho.Delivery,
		SenderDomain: from, List: tmpl.ListID(), Class: h.run.ho.Class, Hosted: tmpl.Hosted(),
	}
	job := compose.Job{To: h.msg.Recipient, Variables: h.msg.Variables, MessageID: h.mailID, Date: h.msg.State.FirstClaim}
	if to.Hosted && r.cfg.Links != nil {
		if job.Links, err = r.cfg.Links(to); err != nil {
			return mail{}, err
		}
	}
	draft := drafts.Get().(*[]byte)
	defer drafts.Put(draft)
	job.Buffer = *draft
	rendered, err := tmpl.Render(r.ctx, job)
	if err != nil {
		return mail{}, err
	}
	if cap(rendered.Bytes) <= maxDraft {
		*draft = rendered.Bytes
	}
	if len(set.Keys.Find(from)) == 0 {
		return mail{}, fmt.Errorf("%w %s: load one and reload the configuration", errNoKey, from)
	}
	signed := make([]byte, 0, len(rendered.Bytes)+signatureRoom)
	if signed, err = set.Keys.SignHeader(signed, rendered.Header, rendered.BodyHash, from, r.cfg.Now()); err != nil {
		return mail{}, err
	}
	return mail{
		to:       to,
		envelope: smtpc.Envelope{From: r.returnPath(h), To: h.msg.Recipient, EightBit: rendered.EightBit, UTF8: rendered.UTF8 || h.msg.UTF8},
		bytes:    append(signed, rendered.Bytes...),
	}, nil
}

// drafts are the buffers in which messages are composed before they are signed. What
// goes on the wire is a buffer of its own, never used again: a connection may hold on
// to it longer than its transaction takes.
var drafts = sync.Pool{New: func() any { return new([]byte) }}

const (
	maxDraft      = 256 << 10 // octets of a buffer worth keeping
	signatureRoom = 1024      // octets that the usual signatures need
)

// excluded asks whether the recipient was excluded since it came in.
func (r *Relay) excluded(to Addressee) (bounce.Reason, error) {
	if r.cfg.Excluded == nil {
		return bounce.ReasonNotDefined, nil
	}
	reason, err := r.cfg.Excluded(r.ctx, to)
	if err != nil {
		return bounce.ReasonNotDefined, fmt.Errorf("looking up the recipient's state: %w", err)
	}
	return reason, nil
}

// suppressed ends a message whose recipient was excluded after the hand-over.
func suppressed(s *session, h *held, reason bounce.Reason, now time.Time) Settlement {
	end := Settlement{
		Message: h.msg, Outcome: Suppressed, Time: now, Verdict: bounce.Suppressed(reason), Destination: s.open.Destination, MessageID: h.mailID,
		Text: "the recipient was denylisted after the hand-over",
	}
	if reason == bounce.ReasonInQuarantine {
		end.Text = "the recipient was quarantined after the hand-over"
	}
	h.msg.State.Last = end.Verdict
	return end
}

// messageID is the Message-ID, `<token>@<bounce domain>`.
func (r *Relay) messageID(id MessageID, ho *handover) string {
	return r.cfg.Tokens.MessageID(refOf(id, ho)) + "@" + r.settings.Load().BounceDomain(ho.SenderDomain)
}

// returnPath is the return path, a token of its own at the Message-ID's domain, so that it is
// the same in every attempt, also when the bounce domain changed since.
func (r *Relay) returnPath(h *held) string {
	_, domain, _ := strings.Cut(h.mailID, "@")
	return r.cfg.Tokens.Token(refOf(h.msg.ID, h.run.ho)) + "@" + domain
}

func refOf(id MessageID, ho *handover) returnpath.Ref {
	return returnpath.Ref{Handover: id.Handover, Domain: id.Domain, Lane: id.Lane, Order: id.Order, Delivery: ho.Delivery}
}

// earlierID is the Message-ID of a message's earlier attempts, also when the bounce
// domain changed since; empty before the first claim.
func (r *Relay) earlierID(m *Message, ho *handover) string {
	if m.MessageID != "" || m.State.FirstClaim.IsZero() {
		return m.MessageID
	}
	return r.messageID(m.ID, ho)
}

// unprepared ends or defers a message that could not be made ready.
func (r *Relay) unprepared(s *session, h *held, err error, now time.Time) Settlement {
	end := Settlement{Message: h.msg, Time: now, Text: err.Error(), Destination: s.open.Destination, MessageID: h.mailID}
	var render *compose.RenderError
	if errors.As(err, &render) {
		end.Outcome, end.Verdict = Bounced, bounce.RenderFailed()
		h.msg.State.Last = end.Verdict
		return end
	}
	next := now.Add(r.cfg.Schedule.Scaled(keyWait))
	if next.After(h.msg.Expires) {
		next = h.msg.Expires
	}
	end.Outcome, end.Next = Deferred, next
	end.Verdict = bounce.OwnPolicy("not_prepared", bounce.ReasonUnreachable)
	end.Verdict.Disposition = bounce.Retry
	h.msg.State.Last, h.msg.State.LastReply, h.msg.State.Due = end.Verdict, smtpc.Reply{Text: err.Error()}, next
	return end
}
