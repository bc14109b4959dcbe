package mta

import (
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// Judge reads replies with a relay's table and plans retries with its schedule, for
// the simulator. It is safe for concurrent use.
type Judge struct {
	Rules    *mxrules.Rules
	Bounces  *bounce.Table
	Schedule Schedule
}

var _ simulate.Judge = (*Judge)(nil)

// Transaction implements simulate.Judge, as the relay settles an attempt.
func (j *Judge) Transaction(now time.Time, at simulate.Place, m *simulate.Message, r simulate.Reply) simulate.Fate {
	reply := replyOf(r)
	v := j.qualify(at, reply)
	return j.Schedule.Fate(now, at.Source, m, reacted(v, at.Reactions, j.Schedule.evidence(v, reply)), reply)
}

// Fate is what a verdict on a reply makes of a simulated message.
func (s Schedule) Fate(now time.Time, source string, m *simulate.Message, v bounce.Verdict, reply smtpc.Reply) simulate.Fate {
	msg := Message{
		ID:      MessageID{Handover: uint64(m.HandOver) + 1, Domain: uint32(m.Run) + 1, Order: uint64(m.Order)},
		Expires: m.Expires,
		State: MessageState{
			Attempts: int(m.State.Attempts), Charged: int(m.State.Charged),
			Blocked: int(m.State.Blocked), Unmatched: int(m.State.Unmatched),
		},
	}
	if m.State.Soon {
		msg.State.Last.Disposition = bounce.RetrySoon
	}
	d := s.Decide(&msg, m.Class, v, reply, source, now)
	fate := simulate.Fate{
		Outcome: simulated[d.Outcome], Next: d.Next, Pinned: d.State.Source != "", Evidence: s.evidence(v, reply),
		State: simulate.State{
			Attempts: uint16(d.State.Attempts), Charged: uint16(d.State.Charged),
			Blocked: uint16(d.State.Blocked), Unmatched: uint16(d.State.Unmatched),
			Soon: v.Disposition == bounce.RetrySoon,
		},
	}
	if reply.Code == 0 { // the server said nothing that decided
		fate.Evidence = silence
	}
	fate.Evidence.Sign = signOf(v, &smtpc.Result{Began: true, Reply: reply})
	return fate
}

// reacted is a verdict as the rule's reactions want it: a message that is to be tried
// again is, within minutes. It makes none of a final failure.
func reacted(v bounce.Verdict, reactions *mxrules.Reactions, ev dispatch.Evidence) bounce.Verdict {
	if v.Disposition != bounce.Retry {
		return v
	}
	if r, ok := reactions.OfMessage(ev.Evidence); ok && r.Do == mxrules.DoRetrySoon {
		v.Disposition = bounce.RetrySoon
	}
	return v
}

var simulated = map[Outcome]simulate.Outcome{
	Delivered: simulate.Delivered, Deferred: simulate.Deferred, Bounced: simulate.Bounced, Expired: simulate.Expired,
}

// Connection implements simulate.Judge: a throttle or block reply speaks about the
// path, anything else is the host's fault.
func (j *Judge) Connection(at simulate.Place, r simulate.Reply) dispatch.Evidence {
	reply := replyOf(r)
	return j.Schedule.refusal(reply, func(reply smtpc.Reply) bounce.Verdict { return j.qualify(at, reply) })
}

func (j *Judge) qualify(at simulate.Place, reply smtpc.Reply) bounce.Verdict {
	return j.Bounces.Qualify(bounce.Input{
		Reply: reply, Provider: j.Rules.ProviderOf(at.Host), Host: at.Host, Domain: at.Domain,
	})
}

var phases = map[simulate.Phase]smtpc.Phase{
	simulate.PhaseConnect: smtpc.PhaseConnect, simulate.PhaseGreeting: smtpc.PhaseGreeting, simulate.PhaseHello: smtpc.PhaseEHLO,
	simulate.PhaseTLS: smtpc.PhaseTLS, simulate.PhaseMail: smtpc.PhaseMAIL, simulate.PhaseRcpt: smtpc.PhaseRCPT,
	simulate.PhaseData: smtpc.PhaseDATA, simulate.PhaseEndOfData: smtpc.PhaseEndOfData,
}

func replyOf(r simulate.Reply) smtpc.Reply {
	return smtpc.Reply{Phase: phases[r.Phase], Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}
}

// refusal is what a connection that did not come about says of its path. A throttle
// or block reply speaks about the path; anything else is the host's fault.
func (s Schedule) refusal(reply smtpc.Reply, qualify func(smtpc.Reply) bounce.Verdict) dispatch.Evidence {
	v := qualify(reply)
	if !aboutPath(reply, v, qualify) {
		v.Path = bounce.PathNone
	}
	ev := s.evidence(v, reply)
	ev.HostFault = v.Path == bounce.PathNone
	if !ev.HostFault && isBlock(v) {
		ev.Sign = mxrules.SignBlocked
	}
	return ev
}

// aboutPath reports whether a reply before MAIL throttles or blocks the path. The
// qualification rests the path for any failure there, so the same words are
// qualified once more without their phase.
func aboutPath(reply smtpc.Reply, v bounce.Verdict, qualify func(smtpc.Reply) bounce.Verdict) bool {
	if reply.Code == 0 || reply.Phase == smtpc.PhaseTLS {
		return false
	}
	reply.Phase = smtpc.PhaseNone
	words := qualify(reply)
	return words.Rule != v.Rule || words.Path != bounce.PathNone
}

var pathEffects = map[bounce.PathEffect]mxrules.Effect{
	bounce.PathNone:             mxrules.EffectNone,
	bounce.PathSlow:             mxrules.EffectSlow,
	bounce.PathFewerConnections: mxrules.EffectFewerConnections,
	bounce.PathFewerMessages:    mxrules.EffectFewerMessages,
	bounce.PathRest:             mxrules.EffectRest,
}

// evidence is what a qualified reply says about the path.
func (s Schedule) evidence(v bounce.Verdict, reply smtpc.Reply) dispatch.Evidence {
	return dispatch.Evidence{Evidence: mxrules.Evidence{
		Effect: pathEffects[v.Path], RetryAfter: s.Scaled(v.RetryAfter),
		Text: reply.Phase.String() + ": " + reply.String(), Code: reply.Code, Tag: v.Tag,
	}}
}
