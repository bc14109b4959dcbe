package server

import (
	"cmp"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// pathView is a path as the contract shows it.
func pathView(p *dispatch.PathView, now time.Time) *veredusv1.Path {
	v := &veredusv1.Path{
		Source: p.Source, Sessions: int32(p.Sessions), Limits: pathLimits(p, now),
		LimitedBy: p.State.Hold.String(), LastError: p.LastError,
		Until: stamp(p.State.Until), Since: stamp(p.State.Since), LastErrorTime: stamp(p.State.TroubleAt),
		Governor: p.Effective.Limits.Governor.String(), NextChangeTime: stamp(p.NextChange),
	}
	if v.Source == "" {
		v.Source = "*"
	}
	if p.State.Hold == mxrules.HoldNone && p.BackoffUntil.After(now) {
		v.LimitedBy, v.Until = "backoff", stamp(p.BackoffUntil)
	}
	if p.Suspended != "" { // whatever else would limit it
		v.LimitedBy, v.Until, v.Since = "suspended", nil, nil
		if p.Suspended == diskHold {
			v.LimitedBy = "disk"
		}
	}
	for _, d := range p.Decisions {
		v.Decisions = append(v.Decisions, &veredusv1.PathDecision{
			Time: timestamppb.New(d.Time), Action: d.Action, Field: d.Field, From: d.From, To: d.To, Cause: clip(d.Cause, replyText),
		})
	}
	if p.Override != nil {
		v.Override = overrideView(p.Override)
	}
	return v
}

func overrideView(o *dispatch.Override) *veredusv1.PathOverride {
	v := &veredusv1.PathOverride{Fields: map[string]string{}, EndTime: stamp(o.Until), Reason: o.Reason, CreateTime: stamp(o.Since)}
	for f := range mxrules.Field(mxrules.NumFields) {
		if o.Values.Set.Has(f) {
			v.Fields[f.String()] = o.Values.Limits.Text(f)
		}
	}
	return v
}

// limitsView lists every field of a rule with its origin, as a path begins with it.
func limitsView(e *mxrules.Effective) *veredusv1.EffectiveLimits {
	g := mxrules.NewGovernor(e.Limits)
	at := time.Unix(0, 0)
	return pathLimits(&dispatch.PathView{Effective: *e, State: g.State(at), Fresh: g.State(at), Pace: g.Pace()}, at)
}

// pathLimits lists every field of a path's rule with its origin, and what holds of it now.
func pathLimits(p *dispatch.PathView, now time.Time) *veredusv1.EffectiveLimits {
	out := &veredusv1.EffectiveLimits{}
	for f := range mxrules.Field(mxrules.NumFields) {
		o := p.Effective.Origins[f]
		text := p.Effective.Limits.Text(f)
		l := &veredusv1.Limit{
			Field: f.String(), Value: text, Rule: o.Rule, File: ruleFile(o.File), Line: int32(o.Line),
			Effective: text, Start: text, SetBy: "rule", SetTime: stamp(p.SetAt[f]),
		}
		if mxrules.Fields(mxrules.Overridable).Has(f) {
			pacedLimit(l, p, f)
		}
		if f == mxrules.FieldMessagesPerDay {
			dailyLimit(l, p)
		}
		learnedAge(l, p, f, now)
		out.Limits = append(out.Limits, l)
	}
	return out
}

// pacedLimit fills in what learning, reactions and operators made of a limit.
func pacedLimit(l *veredusv1.Limit, p *dispatch.PathView, f mxrules.Field) {
	rule := p.Effective.Limits
	plain := mxrules.Limits{Connections: rule.Connections, MessagesPerConnection: rule.MessagesPerConnection, ConnectionRate: rule.ConnectionRate, MessageRate: rule.MessageRate}
	inForce, begins := pacedState(plain, &p.State), pacedState(plain, &p.Fresh)
	learned := mxrules.Limits{
		Connections: p.Pace.Connections, MessagesPerConnection: p.Pace.MessagesPerConnection,
		ConnectionRate: p.Pace.ConnectionRate, MessageRate: p.Pace.MessageRate,
	}
	if slower := learned.ConnectionRate; !slower.IsZero() && (plain.ConnectionRate.IsZero() || slower.PerSecond() < plain.ConnectionRate.PerSecond()) {
		inForce.ConnectionRate = slower
	}
	word := p.Override != nil && p.Override.Values.Set.Has(f)
	if word {
		plain = p.Override.Values.Limits
		inForce.ConnectionRate = plain.ConnectionRate
	}
	written := plain.Text(f)
	l.Effective, l.Start, l.Low = limitText(inForce, plain, f), limitText(begins, plain, f), lowText(rule, f)
	if none := (mxrules.Limits{}).Text(f); learned.Text(f) != none && limitText(learned, plain, f) != l.Start {
		l.Learned = limitText(learned, plain, f)
	}
	switch {
	case word:
		l.SetBy, l.SetTime = "override", cmp.Or(stamp(p.Override.Since), l.SetTime)
	case p.State.Probing && l.Effective != written:
		l.SetBy = "probe"
	case l.Effective == written, l.Effective == l.Start:
	case rule.Governor == mxrules.GovernorOn:
		l.SetBy = "learned"
	default:
		l.SetBy = "reaction"
	}
}

// limitText is a limit as people would say it, and one that is the operator's as written.
func limitText(l, written mxrules.Limits, f mxrules.Field) string {
	l.MessageRate, l.ConnectionRate = readable(l.MessageRate, written.MessageRate), readable(l.ConnectionRate, written.ConnectionRate)
	return l.Text(f)
}

func readable(r, written mxrules.Rate) mxrules.Rate {
	if r.Readable() == written.Readable() {
		return written
	}
	return r.Readable()
}

// dailyLimit shows today's cap of the source's warm-up where it is the lower one.
func dailyLimit(l *veredusv1.Limit, p *dispatch.PathView) {
	rule := int64(p.Effective.Limits.MessagesPerDay)
	if p.Source == "" || p.WarmUpCap == 0 || rule > 0 && rule <= p.WarmUpCap {
		return
	}
	l.Effective, l.SetBy = strconv.FormatInt(p.WarmUpCap, 10), "warm_up"
}

// pacedState is what a governor's state says of the limits that it moves.
func pacedState(rule mxrules.Limits, s *mxrules.State) mxrules.Limits {
	rule.Connections, rule.MessagesPerConnection, rule.MessageRate = s.MaxConnections, s.MessagesPerConnection, s.MessageRate
	return rule
}

// lowText is the least value that learning goes down to.
func lowText(rule mxrules.Limits, f mxrules.Field) string {
	b := rule.Bounds
	one := mxrules.Rate{Count: 1, Per: time.Minute}
	low := mxrules.Limits{
		Connections: max(b.ConnectionsLow, 1), MessagesPerConnection: max(b.MessagesPerConnectionLow, 1),
		ConnectionRate: one, MessageRate: one,
	}
	if !b.ConnectionRateLow.IsZero() {
		low.ConnectionRate = b.ConnectionRateLow
	}
	if !b.MessageRateLow.IsZero() {
		low.MessageRate = b.MessageRateLow
	}
	return low.Text(f)
}
