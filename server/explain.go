package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/suspend"
)

// lookUpTime bounds the look-up of an explanation.
const lookUpTime = 10 * time.Second

// ExplainDestination implements the call.
func (s *relayService) ExplainDestination(ctx context.Context, req *veredusv1.ExplainDestinationRequest) (*veredusv1.ExplainDestinationResponse, error) {
	domain, err := domainName("domain", req.GetDomain())
	if err != nil {
		return nil, err
	}
	resp := &veredusv1.ExplainDestinationResponse{Domain: domain}
	set := s.settings()
	lookUp, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	rt, err := s.resolver.Route(lookUp, domain)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		resp.MxError = routeFault(err)
	} else {
		explainRoute(resp, set, rt)
	}
	if err := s.explainNow(ctx, resp, domain); err != nil || rt == nil {
		return resp, err
	}
	return resp, s.explainKept(ctx, resp, rt, s.now())
}

// routeFault is why there is no route. The text is made for the sending log.
func routeFault(err error) string {
	var failed *route.Error
	if errors.As(err, &failed) {
		return failed.Error()
	}
	return "the look-up failed"
}

// explainRoute says where mail goes, why, and under which rule.
func explainRoute(resp *veredusv1.ExplainDestinationResponse, set *settings, rt *route.Route) {
	for _, h := range rt.Hosts {
		mx := &veredusv1.MxHost{Host: h.Name, Preference: int32(h.Preference)}
		for _, a := range h.Addrs {
			if !a.IsUnspecified() {
				mx.Addresses = append(mx.Addresses, a.String())
			}
		}
		resp.MxHosts = append(resp.MxHosts, mx)
	}
	best := rt.Hosts[0].Name
	resp.Destination = rt.Destination
	resp.DestinationBecause = because(set, rt)
	resp.SharedHosts = set.rules.SharesHosts(rt.Provider, rt.Domain)
	e := set.rules.Match(mxrules.Query{Host: best, Provider: rt.Provider, Domain: rt.Domain, Source: set.firstSource().Addr})
	resp.Rule, resp.RuleFile, resp.Limits = e.Rule, "builtin", limitsView(&e)
	for _, r := range set.rules.All() {
		if r.ID == e.Rule {
			resp.RuleFile, resp.RuleLine = ruleFile(r.At.File), int32(r.At.Line)
		}
	}
}

func because(set *settings, rt *route.Route) string {
	best := rt.Hosts[0].Name
	switch {
	case set.cfg.Relay.Mode == config.Redirect:
		return "relay.mode is redirect: everything goes to " + set.cfg.Relay.Redirect
	case rt.Provider != "":
		for _, h := range rt.Hosts {
			if set.rules.ProviderOf(h.Name) == rt.Provider {
				best = h.Name
				break
			}
		}
		return fmt.Sprintf("provider %s by the suffix of MX host %s", rt.Provider, best)
	case rt.ImplicitMX:
		return "the domain has no MX record: it is its own mail host"
	case rt.Destination == rt.Domain && best == rt.Domain:
		return "the domain is its own best MX host"
	}
	return fmt.Sprintf("registrable domain of the best MX host %s", best)
}

// explainNow says what holds the domain's mail at this moment.
func (s *relayService) explainNow(ctx context.Context, resp *veredusv1.ExplainDestinationResponse, domain string) error {
	now := s.now()
	resp.LimitedBy = causeWords[dispatch.CauseNone]
	dest, found, err := s.relay.Destination(ctx, resp.Destination)
	if err != nil {
		return err
	}
	if found {
		resp.Backlog = dest.Ready + dest.Deferred
		s.explainPaths(resp, dest.Paths, now)
	}
	view, known, err := s.relay.Explain(ctx, domain)
	if err != nil {
		return err
	}
	if !found { // its domains have no route at the moment
		resp.Backlog = view.Ready + view.Deferred
	}
	rate, latency := s.paces.of(resp.Destination, now)
	if wait := drainTime(resp.Backlog, rate, dest.Paths, view.Wait, now); wait > 0 {
		resp.DrainTime = durationpb.New(wait)
	}
	if !known {
		return nil
	}
	resp.NextAttemptTime = stamp(nextAttempt(&view, now))
	if resp.LastError == "" && view.Wait.Cause == dispatch.CauseDNS {
		resp.LastError = view.Wait.Text
	}
	return s.explainLimit(ctx, resp, &view, latency, now)
}

// explainLimit says what limits throughput, and since when.
func (s *relayService) explainLimit(ctx context.Context, resp *veredusv1.ExplainDestinationResponse, view *dispatch.DomainView, latency time.Duration, now time.Time) error {
	resp.LimitedBy = waitWords(view.Wait)
	switch view.Wait.Cause {
	case dispatch.CauseSuspended:
		list, err := s.suspended(ctx)
		for i := range list {
			if suspensionsPrefix+list[i].ID == view.Wait.Text {
				resp.LimitedBy += " (" + list[i].Reason + ")"
				resp.LimitedSince = stamp(list[i].Created)
			}
		}
		return err
	case dispatch.CauseQueue:
		sessions, full := 0, false
		for _, p := range view.Paths {
			sessions += p.Sessions
			full = full || p.State.Hold == mxrules.HoldConnections
		}
		if sessions > 0 && latency > 0 {
			resp.LimitedBy = fmt.Sprintf("remote latency: %d sessions, a message takes %v on average", sessions, latency.Round(time.Millisecond))
			if full {
				resp.LimitedBy += "; no more connections are allowed"
			}
		}
	}
	if !view.Wait.Since.IsZero() {
		resp.LimitedSince = stamp(view.Wait.Since)
	}
	if view.Wait.Cause == dispatch.CauseRetry {
		resp.LimitedSince = stamp(s.paces.last(resp.Destination))
	}
	for _, p := range view.Paths {
		if since := p.State.Since; p.State.Hold != mxrules.HoldNone && (resp.LimitedSince == nil || since.Before(resp.LimitedSince.AsTime())) {
			resp.LimitedSince = stamp(since)
		}
	}
	return nil
}

// suspended are the suspensions in force.
func (s *relayService) suspended(ctx context.Context) ([]suspend.Suspension, error) {
	if s.suspensions == nil {
		return nil, nil
	}
	return s.suspensions.list(ctx)
}

func (s *relayService) explainPaths(resp *veredusv1.ExplainDestinationResponse, paths []dispatch.PathView, now time.Time) {
	first := s.settings().firstSource().Name
	var latest time.Time
	for i := range paths {
		p := &paths[i]
		resp.Paths = append(resp.Paths, pathView(p, now))
		if p.Source == first || p.Source == "" {
			resp.Limits = pathLimits(p, now)
		}
		if p.LastError != "" && (resp.LastError == "" || p.State.TroubleAt.After(latest)) {
			resp.LastError, latest = p.LastError, p.State.TroubleAt
		}
	}
}

// causeWords say what holds mail.
var causeWords = map[dispatch.Cause]string{
	dispatch.CauseNone:      "nothing: no mail waits for this domain",
	dispatch.CauseQueue:     "nothing but other mail before it",
	dispatch.CauseRetry:     "no mail is due: its messages wait for their retry",
	dispatch.CauseRest:      "the path rests",
	dispatch.CauseBackoff:   "the path waits after failures to connect",
	dispatch.CauseRate:      "a limit of the MX rule",
	dispatch.CauseSuspended: "a suspension",
	dispatch.CausePaused:    "its delivery is paused",
	dispatch.CauseDNS:       "the look-up of the domain",
	dispatch.CauseSlot:      "all session slots are in use (relay.max_sessions)",
	dispatch.CauseSource:    "no source can send it",
	dispatch.CauseWarmUp:    "the warm-up of its sources",
	dispatch.CauseLearned:   "the pace learned from the receiver's replies",
}

func waitWords(w dispatch.Wait) string {
	words := causeWords[w.Cause]
	if w.Text != "" {
		words += ": " + w.Text
	}
	if !w.Until.IsZero() {
		words += ", until " + w.Until.UTC().Format(time.RFC3339)
	}
	return words
}

// nextAttempt is when mail of the domain can go next; zero when that is not known.
func nextAttempt(v *dispatch.DomainView, now time.Time) time.Time {
	switch {
	case !v.Wait.Until.IsZero():
		return v.Wait.Until
	case v.Wait.Cause == dispatch.CauseQueue:
		return now
	case v.Wait.Cause == dispatch.CauseRetry:
		return v.NextDue
	}
	return time.Time{}
}
