package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/operator"
)

// pathSteerer is what overrides and resets ask of the relay; *mta.Relay does it.
type pathSteerer interface {
	Override(ctx context.Context, o dispatch.Override) error
	ResetPaths(ctx context.Context, source, destination string) error
}

// overrides keeps the relay in step with the store: a change is durable first, then
// the relay is told. An override ends in the relay by itself, on time; its row and
// its record follow. Safe for concurrent use.
type overrides struct {
	store operator.Orders
	relay pathSteerer
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// start puts what is stored into force.
func (s *overrides) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.store.Overrides(ctx)
	if err != nil {
		return err
	}
	for i := range list {
		if err := s.enforce(ctx, &list[i]); err != nil {
			return err
		}
	}
	return s.sweep(ctx)
}

// stop ends the timer.
func (s *overrides) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// put stores an override, or the end of one, and puts it into force.
func (s *overrides) put(ctx context.Context, o operator.Override, e operator.Event, req operator.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	repeated, err := s.store.PutOverride(ctx, o, e, req)
	if err != nil || repeated {
		return err
	}
	ctx = context.WithoutCancel(ctx) // what is durable must hold
	if err := s.enforce(ctx, &o); err != nil {
		return err
	}
	s.log.Info("path overridden", "source", o.Source, "destination", o.Destination, "fields", fieldWords(o.Fields), "end", endText(o.End), "reason", o.Reason, "by", e.By)
	return s.sweep(ctx)
}

// reset makes paths forget what they learned.
func (s *overrides) reset(ctx context.Context, source, destination string, e operator.Event, req operator.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	repeated, err := s.store.Note(ctx, e, req)
	if err != nil || repeated {
		return err
	}
	s.log.Info("path reset", "source", source, "destination", destination, "text", e.Text, "by", e.By)
	return s.relay.ResetPaths(context.WithoutCancel(ctx), source, destination)
}

// enforce tells the relay what holds.
func (s *overrides) enforce(ctx context.Context, o *operator.Override) error {
	values, err := overrideValues(o.Fields)
	if err != nil {
		s.log.Error("an override is of no effect", "source", o.Source, "destination", o.Destination, "error", err)
		return nil // written by another version
	}
	return s.relay.Override(ctx, dispatch.Override{
		Source: o.Source, Destination: o.Destination, Values: values, Since: o.Created, Until: o.End, Reason: o.Reason,
	})
}

// sweep removes what has ended, with a record of it, and sets the timer for the next end.
func (s *overrides) sweep(ctx context.Context) error {
	list, err := s.store.Overrides(ctx)
	if err != nil {
		return err
	}
	now, next := s.now(), time.Time{}
	for _, o := range list {
		if o.Active(now) {
			if next.IsZero() || o.End.Before(next) {
				next = o.End
			}
			continue
		}
		o.Fields = nil
		event := pathEvent(&o, now, "the override ended: its time is over")
		if _, err := s.store.PutOverride(ctx, o, event, operator.Request{}); err != nil {
			return err
		}
		s.log.Info("override ended", "source", o.Source, "destination", o.Destination)
	}
	s.arm(now, next)
	return nil
}

// arm sets the timer to the next end.
func (s *overrides) arm(now, next time.Time) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !next.IsZero() && !s.stopped {
		s.timer = time.AfterFunc(min(max(next.Sub(now), 0), maxLook), s.ended)
	}
}

// ended is the timer.
func (s *overrides) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxLook)
	defer cancel()
	if err := s.sweep(ctx); err != nil {
		s.log.Error("ending overrides", "error", err)
		s.arm(s.now(), s.now().Add(time.Second))
	}
}

// overrideValues reads fields as a rule file has them.
func overrideValues(fields map[string]string) (v mxrules.Override, err error) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f, err := rulefile.SetField(&v.Limits, name, fields[name])
		if err == nil && !mxrules.Fields(mxrules.Overridable).Has(f) {
			err = fmt.Errorf("%s cannot be overridden", name)
		}
		if err != nil {
			return mxrules.Override{}, &fieldError{name, err}
		}
		v.Set = v.Set.With(f)
	}
	return v, nil
}

// fieldError is a value that cannot be used.
type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }

// fieldWords are fields as text, in order.
func fieldWords(fields map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		words = append(words, name+" "+fields[name])
	}
	return strings.Join(words, ", ")
}

// pathEvent is the record of an order about paths.
func pathEvent(o *operator.Override, now time.Time, what string) operator.Event {
	if o.Reason != "" {
		what += "; " + o.Reason
	}
	return operator.Event{
		Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN, Time: now,
		Source: o.Source, Destination: o.Destination, Text: what, Until: o.End,
	}
}

// Bounds of an override's end.
const (
	minOverride = time.Minute
	maxOverride = 30 * 24 * time.Hour
)

// maxPathDestinations is for how many destinations one call changes paths, maxPaths how
// many paths an answer shows.
const (
	maxPathDestinations = 1000
	maxPaths            = 1000
)

// pathsChosen are the source and the destinations that a call about paths names, itself or by
// a selector of mail.
func (s *operations) pathsChosen(ctx context.Context, source, destination string, sel *veredusv1.QueueSelector) (string, []string, error) {
	if sel == nil {
		return source, []string{destinationName(destination)}, nil
	}
	if source != "" || destination != "" {
		return "", nil, invalid("selector", "", "stands beside source or destination", "give either a selector, or source and destination")
	}
	chosen, err := s.queue(sel)
	if err != nil {
		return "", nil, err
	}
	source, chosen.Source = chosen.Source, "" // it names the paths, not the last attempts
	if _, ok := s.settings().sources()[source]; source != "" && !ok {
		return "", nil, s.unknownSource("selector.source", source)
	}
	q, err := s.works.queue(ctx, &chosen)
	if err != nil {
		return "", nil, err
	}
	if err := s.known(ctx, q); err != nil {
		return "", nil, err
	}
	list, err := s.works.relay.DestinationsOf(ctx, q, maxPathDestinations)
	switch {
	case errors.Is(err, mta.ErrTooMany):
		return "", nil, invalid("selector", queueWords(&chosen), "chooses mail to too many destinations", fmt.Sprintf("narrow it down to at most %d", maxPathDestinations))
	case err == nil && len(list) == 0:
		return "", nil, invalid("selector", queueWords(&chosen), "chooses no mail that waits", "name paths by source and destination instead")
	}
	return source, list, err
}

// all is the order about a destination: that of several counts as made with the last of
// them, so that a repeated request makes up for one that was cut off.
func all(destinations []string, req operator.Request, do func(destination string, req operator.Request) error) error {
	for i, destination := range destinations {
		mine := operator.Request{}
		if i == len(destinations)-1 {
			mine = req
		}
		if err := do(destination, mine); err != nil {
			return err
		}
	}
	return nil
}

// OverridePath implements the call.
func (s *operations) OverridePath(ctx context.Context, req *veredusv1.OverridePathRequest) (*veredusv1.OverridePathResponse, error) {
	id, err := requestOf(veredusv1.RelayService_OverridePath_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	again, err := s.again(ctx, operator.Request(id))
	if err != nil {
		return nil, err
	}
	source, destinations, err := s.pathsChosen(ctx, req.GetSource(), req.GetDestination(), req.GetSelector())
	if err != nil && !again {
		return nil, err
	}
	o := operator.Override{
		Source: source,
		Fields: req.GetOverride().GetFields(), Reason: req.GetOverride().GetReason(), Created: s.now().UTC(),
	}
	if end := req.GetOverride().GetEndTime(); end != nil {
		o.End = end.AsTime()
	}
	for _, o.Destination = range destinations {
		if again && !req.GetDryRun() {
			break
		}
		if err := s.checkOverride(ctx, req, &o); err != nil {
			return nil, err
		}
	}
	what := "overridden: " + fieldWords(o.Fields)
	if len(o.Fields) == 0 {
		what, o.End = "the override was ended", time.Time{}
	}
	if !again && !req.GetDryRun() {
		err = all(destinations, operator.Request(id), func(destination string, req operator.Request) error {
			o.Destination = destination
			event := pathEvent(&o, s.now(), what)
			event.By = PrincipalOf(ctx).Name
			return s.overrides.put(ctx, o, event, req)
		})
		if err != nil {
			return nil, err
		}
	}
	paths, count, err := s.paths(ctx, o.Source, destinations)
	if req.GetDryRun() {
		for _, p := range paths {
			p.Override = req.GetOverride()
			if len(o.Fields) == 0 {
				p.Override = nil
			}
		}
	}
	return &veredusv1.OverridePathResponse{Paths: paths, Destinations: destinations, Count: count}, err
}

func (s *operations) checkOverride(ctx context.Context, req *veredusv1.OverridePathRequest, o *operator.Override) error {
	if err := s.checkPaths(ctx, o, "override.reason"); err != nil {
		return err
	}
	if len(o.Fields) == 0 {
		return nil
	}
	var bad *fieldError
	if _, err := overrideValues(o.Fields); errors.As(err, &bad) {
		return invalid("override.fields", bad.field, "cannot be used: "+bad.err.Error(),
			"give connections, messages_per_connection, message_rate or connection_rate, as in a rule file")
	}
	end, now := req.GetOverride().GetEndTime(), s.now()
	switch {
	case end == nil:
		return invalid("override.end_time", "", "is missing", "say when the override ends, 1 minute to 30 days ahead")
	case !end.IsValid() || end.AsTime().Before(now.Add(minOverride)) || end.AsTime().After(now.Add(maxOverride)):
		return invalid("override.end_time", end.AsTime().Format(time.RFC3339), "is out of range", "give a time 1 minute to 30 days ahead")
	}
	return nil
}

// checkPaths refuses names of paths that mean nothing.
func (s *operations) checkPaths(ctx context.Context, o *operator.Override, reasonField string) error {
	if n := len(o.Reason); n > maxReason {
		return invalid(reasonField, o.Reason, fmt.Sprintf("has %d bytes", n), "use at most 256")
	}
	if o.Destination == "" || len(o.Destination) > 255 || strings.ContainsAny(o.Destination, "\x00/>") {
		return invalid("destination", o.Destination, "is no destination", "write destinations/D as ListDestinations answers it")
	}
	if o.Source != "" {
		if _, ok := s.settings().sources()[o.Source]; !ok {
			return s.unknownSource("source", o.Source)
		}
	}
	view, found, err := s.relay.Destination(ctx, o.Destination)
	if err != nil {
		return err
	}
	if found {
		return sharedPaths(o, view.Paths)
	}
	return s.possible(ctx, o.Destination)
}

// sharedPaths refuses a word about one source where sources share their limits.
func sharedPaths(o *operator.Override, paths []dispatch.PathView) error {
	shared := func(p dispatch.PathView) bool { return p.Source == "" }
	if o.Source == "" || !slices.ContainsFunc(paths, shared) {
		return nil
	}
	return invalid("source", o.Source, "has no path of its own: the MX rule shares the limits among all sources", "leave source empty")
}

// possible accepts a destination that mail may go to one day: a provider's, or one that a
// domain's mail exchangers lead to.
func (s *operations) possible(ctx context.Context, name string) error {
	for _, p := range s.settings().rules.Providers() {
		if p.Name == name {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	rt, err := s.resolver.Route(ctx, name)
	switch {
	case err != nil:
		return invalid("destination", name, "has no mail and cannot be looked up: "+routeFault(err), "name one that ListDestinations answers, or a provider")
	case rt.Destination != name:
		return invalid("destination", name, "is a recipient domain of destination "+rt.Destination, "name that destination")
	}
	return nil
}

// ResetPath implements the call.
func (s *operations) ResetPath(ctx context.Context, req *veredusv1.ResetPathRequest) (*veredusv1.ResetPathResponse, error) {
	id, err := requestOf(veredusv1.RelayService_ResetPath_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	again, err := s.again(ctx, operator.Request(id))
	if err != nil {
		return nil, err
	}
	source, destinations, err := s.pathsChosen(ctx, req.GetSource(), req.GetDestination(), req.GetSelector())
	if err != nil && !again {
		return nil, err
	}
	o := operator.Override{Source: source, Reason: req.GetReason()}
	for _, o.Destination = range destinations {
		if again && !req.GetDryRun() {
			break
		}
		if err := s.checkPaths(ctx, &o, "reason"); err != nil {
			return nil, err
		}
	}
	if !again && !req.GetDryRun() {
		err = all(destinations, operator.Request(id), func(destination string, req operator.Request) error {
			o.Destination = destination
			event := pathEvent(&o, s.now(), "reset: what was learned is forgotten, rests are ended")
			event.By = PrincipalOf(ctx).Name
			return s.overrides.reset(ctx, o.Source, destination, event, req)
		})
		if err != nil {
			return nil, err
		}
	}
	paths, count, err := s.paths(ctx, o.Source, destinations)
	return &veredusv1.ResetPathResponse{Paths: paths, Destinations: destinations, Count: count}, err
}

// paths are those to destinations as they are now, and how many there are; source empty: all.
func (s *operations) paths(ctx context.Context, source string, destinations []string) (list []*veredusv1.Path, count int64, err error) {
	for _, destination := range destinations {
		view, _, err := s.relay.Destination(ctx, destination)
		if err != nil {
			return nil, 0, err
		}
		for i := range view.Paths {
			p := &view.Paths[i]
			if source != "" && p.Source != source {
				continue
			}
			if count++; len(list) < maxPaths {
				list = append(list, pathView(p, s.now()))
			}
		}
	}
	return list, count, nil
}

var (
	_ queueRelay  = (*mta.Relay)(nil)
	_ pathSteerer = (*mta.Relay)(nil)
)
