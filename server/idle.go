package server

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// pathStore is what is kept of paths that have no mail, and of all from before a restart.
// Functions may be nil: nothing is kept then.
type pathStore struct {
	usage  func(ctx context.Context, destination string) (map[string]mxrules.Usage, error)
	events func(ctx context.Context, destination string) ([]*veredusv1.FeedbackEvent, error)
}

// explainKept shows what is kept of the paths to a domain's destination, for those that
// have no mail, and what was decided about all of them before the process began.
func (s *relayService) explainKept(ctx context.Context, resp *veredusv1.ExplainDestinationResponse, rt *route.Route, now time.Time) error {
	if s.kept.usage != nil {
		kept, err := s.kept.usage(ctx, rt.Destination)
		if err != nil {
			return err
		}
		s.idlePaths(resp, rt, kept, now)
	}
	if s.kept.events == nil {
		return nil
	}
	events, err := s.kept.events(ctx, rt.Destination)
	if err != nil {
		return err
	}
	for _, p := range resp.Paths {
		p.Decisions = withPast(p.Decisions, p.Source, events)
	}
	return nil
}

// idlePaths adds the paths of which only the store knows, as they would begin now.
func (s *relayService) idlePaths(resp *veredusv1.ExplainDestinationResponse, rt *route.Route, kept map[string]mxrules.Usage, now time.Time) {
	set := s.settings()
	sources := set.sources()
	for _, key := range slices.Sorted(maps.Keys(kept)) {
		source, domain, ok := idleKey(key, rt.Destination)
		if _, configured := sources[source]; !ok || domain != "" && domain != rt.Domain || source != "" && !configured || kept[key].Learned.IsZero() {
			continue
		}
		known := func(p *veredusv1.Path) bool { return p.Source == source || p.Source == "*" && source == "" }
		e := set.rules.Match(mxrules.Query{Host: rt.Hosts[0].Name, Provider: rt.Provider, Domain: rt.Domain, Source: sources[source].Addr})
		if e.Limits.Shared != (source == "") || slices.ContainsFunc(resp.Paths, known) {
			continue
		}
		p := idlePath(source, e, kept[key], now)
		v := pathView(&p, now)
		v.Idle = true
		resp.Paths = append(resp.Paths, v)
		if source == set.firstSource().Name || source == "" {
			resp.Limits = pathLimits(&p, now)
		}
	}
}

// idleKey are the source and, where it has rules of its own, the domain in the key of a path to a destination;
// false for what is kept of parts of a path.
func idleKey(key, destination string) (source, domain string, ok bool) {
	source, to, _ := strings.Cut(key, ">")
	to, domain, _ = strings.Cut(to, "/")
	if source == "*" {
		source = ""
	}
	return source, domain, to == destination && !strings.Contains(domain, ":")
}

// idlePath is a path as it would begin now with what is kept of it.
func idlePath(source string, e mxrules.Effective, kept mxrules.Usage, now time.Time) dispatch.PathView {
	g := mxrules.NewGovernor(e.Limits)
	fresh := g.Fresh(now)
	g.Restore(now, kept)
	state := g.State(now)
	return dispatch.PathView{
		Source: source, Effective: e, State: state, Fresh: fresh, Pace: g.Pace(), Learned: kept.Learned, LastError: state.Trouble,
	}
}

// maxPast is how many decisions are shown of a path, those of this process included.
const maxPast = 10

// pastActions are the words for what was told of a path.
var pastActions = map[veredusv1.FeedbackType]string{
	veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_THROTTLED:  "cut",
	veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED:  "rested",
	veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RESUMED:    "resumed",
	veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RAISED:     "raised",
	veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN: "overridden",
}

// withPast fills decisions up with what was told about the path before the oldest of
// them, so that a restart does not take it away. Events come the latest first.
func withPast(decisions []*veredusv1.PathDecision, source string, events []*veredusv1.FeedbackEvent) []*veredusv1.PathDecision {
	for _, e := range events {
		action := pastActions[e.GetType()]
		mine := e.GetSource() == source || e.GetSource() == "" // of all, or of a path that all share
		if action == "" || !mine || len(decisions) >= maxPast {
			continue
		}
		if n := len(decisions); n > 0 && !e.GetTime().AsTime().Before(decisions[n-1].GetTime().AsTime()) {
			continue // of this process, or told by a later one
		}
		d := &veredusv1.PathDecision{Time: e.GetTime(), Action: action, Cause: clip(e.GetText(), replyText)}
		if action == "rested" && e.GetNextAttemptTime() != nil {
			d.To = e.GetNextAttemptTime().AsTime().Format(time.RFC3339)
		}
		decisions = append(decisions, d)
	}
	return decisions
}

// learnedAge fills in how old what was learned of a limit is, and what becomes of it
// while no mail confirms it.
func learnedAge(l *veredusv1.Limit, p *dispatch.PathView, f mxrules.Field, now time.Time) {
	known := learnedOf(&p.Learned, f)
	worth := known.Worth(now)
	if !known.Known() || worth == 0 {
		return
	}
	if f == mxrules.FieldMessagesPerHour && l.Learned == "" {
		if most := p.Effective.Limits.MessagesPerHour; most == 0 || int(worth) < most {
			l.Learned = mxrules.Limits{MessagesPerHour: max(1, int(worth))}.Text(f)
		}
	}
	if l.Learned == "" {
		return
	}
	l.LearnedTime, l.ForgetTime = timestamppb.New(known.Confirmed()), timestamppb.New(known.Forgotten())
	plain := p.Effective.Limits
	plain.Bounds = mxrules.Bounds{}
	l.DecaysTo = plain.Text(f)
}

// learnedOf is what was learned of a field.
func learnedOf(m *mxrules.Memory, f mxrules.Field) mxrules.Learned {
	switch f {
	case mxrules.FieldConnections:
		return m.Connections
	case mxrules.FieldMessagesPerConnection:
		return m.MessagesPerConnection
	case mxrules.FieldConnectionRate:
		return m.ConnectionRate
	case mxrules.FieldMessageRate:
		return m.MessageRate
	case mxrules.FieldMessagesPerHour:
		return m.Hourly
	}
	return mxrules.Learned{}
}
