package simulation

import (
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// Judge reads replies with the relay's own table and plans retries with its own
// schedule. It implements simulate.Judge.
type Judge struct {
	Rules    *mxrules.Rules
	Bounces  *bounce.Table
	Schedule mta.Schedule
}

var _ simulate.Judge = (*Judge)(nil)

// Transaction implements simulate.Judge, as the relay settles an attempt.
func (j *Judge) Transaction(now time.Time, at simulate.Place, m *simulate.Message, r simulate.Reply) simulate.Fate {
	reply := replyOf(r)
	v := j.qualify(at, reply)
	msg := mta.Message{
		ID:      mta.MessageID{Handover: uint64(m.HandOver) + 1, Domain: uint32(m.Run) + 1, Order: uint64(m.Order)},
		Expires: m.Expires,
		State: mta.MessageState{
			Attempts: int(m.State.Attempts), Charged: int(m.State.Charged),
			Blocked: int(m.State.Blocked), Unmatched: int(m.State.Unmatched),
		},
	}
	if m.State.Soon {
		msg.State.Last.Disposition = bounce.RetrySoon
	}
	d := j.Schedule.Decide(&msg, m.Class, v, reply, at.Source, now)
	fate := simulate.Fate{
		Outcome: outcomes[d.Outcome], Next: d.Next, Pinned: d.State.Source != "", Evidence: j.evidence(v, reply),
		State: simulate.State{
			Attempts: uint16(d.State.Attempts), Charged: uint16(d.State.Charged),
			Blocked: uint16(d.State.Blocked), Unmatched: uint16(d.State.Unmatched),
			Soon: v.Disposition == bounce.RetrySoon,
		},
	}
	if reply.Code == 0 { // the server said nothing that decided
		fate.Evidence = dispatch.Evidence{HostFault: true}
	}
	return fate
}

var outcomes = map[mta.Outcome]simulate.Outcome{
	mta.Delivered: simulate.Delivered, mta.Deferred: simulate.Deferred, mta.Bounced: simulate.Bounced, mta.Expired: simulate.Expired,
}

// Connection implements simulate.Judge: a throttle or block reply speaks about the
// path, anything else is the host's fault.
func (j *Judge) Connection(at simulate.Place, r simulate.Reply) dispatch.Evidence {
	reply := replyOf(r)
	v := j.qualify(at, reply)
	if !j.aboutPath(at, reply, v) {
		v.Path = bounce.PathNone
	}
	ev := j.evidence(v, reply)
	ev.HostFault = v.Path == bounce.PathNone
	return ev
}

// aboutPath reports whether a reply before MAIL throttles or blocks the path: its
// words say so also without their phase.
func (j *Judge) aboutPath(at simulate.Place, reply smtpc.Reply, v bounce.Verdict) bool {
	if reply.Code == 0 || reply.Phase == smtpc.PhaseTLS {
		return false
	}
	reply.Phase = smtpc.PhaseNone
	words := j.qualify(at, reply)
	return words.Rule != v.Rule || words.Path != bounce.PathNone
}

func (j *Judge) qualify(at simulate.Place, reply smtpc.Reply) bounce.Verdict {
	return j.Bounces.Qualify(bounce.Input{
		Reply: reply, Provider: j.Rules.ProviderOf(at.Host), Host: at.Host, Domain: at.Domain,
	})
}

func (j *Judge) evidence(v bounce.Verdict, reply smtpc.Reply) dispatch.Evidence {
	return dispatch.Evidence{Evidence: mxrules.Evidence{
		Effect: pathEffects[v.Path], RetryAfter: j.Schedule.Scaled(v.RetryAfter),
		Text: reply.Phase.String() + ": " + reply.String(),
	}}
}

var pathEffects = map[bounce.PathEffect]mxrules.Effect{
	bounce.PathNone:             mxrules.EffectNone,
	bounce.PathSlow:             mxrules.EffectSlow,
	bounce.PathFewerConnections: mxrules.EffectFewerConnections,
	bounce.PathFewerMessages:    mxrules.EffectFewerMessages,
	bounce.PathRest:             mxrules.EffectRest,
}

var phases = map[simulate.Phase]smtpc.Phase{
	simulate.PhaseConnect: smtpc.PhaseConnect, simulate.PhaseGreeting: smtpc.PhaseGreeting, simulate.PhaseHello: smtpc.PhaseEHLO,
	simulate.PhaseTLS: smtpc.PhaseTLS, simulate.PhaseMail: smtpc.PhaseMAIL, simulate.PhaseRcpt: smtpc.PhaseRCPT,
	simulate.PhaseData: smtpc.PhaseDATA, simulate.PhaseEndOfData: smtpc.PhaseEndOfData,
}

func replyOf(r simulate.Reply) smtpc.Reply {
	return smtpc.Reply{Phase: phases[r.Phase], Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}
}
