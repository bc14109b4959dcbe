package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// warmUps is what the calls on sources need of the relay; *mta.Relay has it.
type warmUps interface {
	Sources(ctx context.Context) ([]dispatch.SourceView, error)
	SetWarmUp(ctx context.Context, source string, stage int, off bool, by string) (found bool, err error)
}

// identities is the part of RelayService that deals with sources.
type identities struct {
	relay    warmUps
	settings func() *settings
	calls    calls

	mu sync.Mutex // held by SetWarmUp, so that a repeat waits for the first
}

// ListSources implements the call.
func (s *identities) ListSources(ctx context.Context, req *veredusv1.ListSourcesRequest) (*veredusv1.ListSourcesResponse, error) {
	if pool := req.GetPool(); pool != "" && !s.settings().hasPool(pool) {
		var names []string
		for _, p := range s.settings().cfg.Relay.Pools {
			names = append(names, p.Name)
		}
		return nil, invalid("pool", pool, "is no pool", "use one of "+clip(strings.Join(names, ", "), 500))
	}
	views, err := s.relay.Sources(ctx)
	if err != nil {
		return nil, err
	}
	resp, hello := &veredusv1.ListSourcesResponse{}, s.settings().helloNames()
	for i := range views {
		if req.GetPool() == "" || slices.Contains(views[i].Pools, req.GetPool()) {
			resp.Sources = append(resp.Sources, sourceView(&views[i], hello))
		}
	}
	return resp, nil
}

// SetWarmUp implements the call.
func (s *identities) SetWarmUp(ctx context.Context, req *veredusv1.SetWarmUpRequest) (*veredusv1.Source, error) {
	if err := s.check(ctx, req); err != nil {
		return nil, err
	}
	id, err := requestOf(veredusv1.RelayService_SetWarmUp_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := &veredusv1.Source{}
	if found, err := s.calls.before(ctx, id, before); err != nil || found {
		return before, err
	}
	found, err := s.relay.SetWarmUp(ctx, req.GetSource(), int(req.GetStage()), req.GetOff(), PrincipalOf(ctx).Name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, invalid("source", req.GetSource(), "has no warm-up", "give it warm_up: on in relay.pools and reload the configuration")
	}
	resp, err := s.get(ctx, req.GetSource())
	if err != nil {
		return nil, err
	}
	return resp, s.calls.remember(ctx, id, resp)
}

// check judges the fields.
func (s *identities) check(ctx context.Context, req *veredusv1.SetWarmUpRequest) error {
	if _, ok := s.settings().sources()[req.GetSource()]; !ok {
		views, err := s.relay.Sources(ctx)
		if err != nil {
			return err
		}
		names := make([]string, len(views))
		for i := range views {
			names[i] = views[i].Name
		}
		return invalid("source", req.GetSource(), "is no source", "use one of "+clip(strings.Join(names, ", "), 500))
	}
	switch stage := req.GetStage(); {
	case req.GetOff() && stage != 0:
		return invalid("stage", fmt.Sprint(stage), "is given beside off", "give one of both")
	case !req.GetOff() && (stage < 1 || stage > mxrules.MaxWarmUpStages+1):
		return invalid("stage", fmt.Sprint(stage), "is no stage", fmt.Sprintf("use 1 to %d; one behind the plan's last finishes the warm-up", mxrules.MaxWarmUpStages+1))
	}
	return nil
}

func (s *identities) get(ctx context.Context, name string) (*veredusv1.Source, error) {
	views, err := s.relay.Sources(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(views, func(v dispatch.SourceView) bool { return v.Name == name })
	if i < 0 {
		return nil, invalid("source", name, "is no source any more", "read ListSources")
	}
	return sourceView(&views[i], s.settings().helloNames()), nil
}

func sourceView(v *dispatch.SourceView, hello map[string]string) *veredusv1.Source {
	out := &veredusv1.Source{Name: v.Name, Hostname: hello[v.Name], Pools: v.Pools, Weight: int32(max(v.Weight, 1))}
	if v.Addr.IsValid() {
		out.Address = v.Addr.String()
	}
	if w := v.WarmUp; w != nil {
		st := &w.State
		out.WarmUp = &veredusv1.WarmUp{
			Stage: int32(st.Stage), Stages: int32(w.Stages), Cap: w.Cap, Sent: st.Sent, Delivered: st.Delivered,
			ProviderCaps: w.ProviderCaps, StalledDays: int32(st.Stalled), State: warmUpWords(w), Active: w.Active,
		}
		if st.Since != 0 {
			out.WarmUp.StageTime = timestamppb.New(time.Unix(0, st.Since))
		}
	}
	return out
}

// warmUpWords say what a warm-up does.
func warmUpWords(w *dispatch.WarmUpView) string {
	switch cause := w.State.Cause; {
	case !w.Active:
		return cmp.Or(cause, "finished")
	case cause == "":
		return "advancing: it begins"
	case strings.HasPrefix(cause, "advanced"), strings.HasPrefix(cause, "set to"):
		return "advancing: " + cause
	default:
		return cause
	}
}

// blame tells the relay whose message a complaint is about, for its source's warm-up and
// its path.
func (s *Server) blame(ctx context.Context, delivery string, r *inbound.Return) {
	id := mta.MessageID{Handover: r.Ref.Handover, Domain: r.Ref.Domain, Lane: r.Ref.Lane, Order: r.Ref.Order}
	e, err := s.store.Message(ctx, delivery, id)
	if err != nil || len(e.Attempts) == 0 {
		return // purged meanwhile: nobody knows
	}
	source := e.Attempts[len(e.Attempts)-1].GetSource()
	if err := s.relay.Complained(ctx, source, e.Destination); err != nil {
		s.log.Debug("a complaint did not reach its source", "source", source, "error", err)
	}
}

// warmUpGauges is a collector of warm-ups.
type warmUpGauges struct {
	relay            warmUps
	stage, cap, sent *prometheus.Desc
}

func newWarmUpGauges(relay warmUps) *warmUpGauges {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"source"}, nil)
	}
	return &warmUpGauges{
		relay: relay,
		stage: desc("veredus_warm_up_stage", "Stage of a source's warm-up, from 1."),
		cap:   desc("veredus_warm_up_cap", "Messages that a source may send today (UTC); left out where nothing is limited."),
		sent:  desc("veredus_warm_up_sent", "Messages that a source was charged today (UTC)."),
	}
}

// Describe implements prometheus.Collector.
func (g *warmUpGauges) Describe(to chan<- *prometheus.Desc) {
	to <- g.stage
	to <- g.cap
	to <- g.sent
}

// Collect implements prometheus.Collector.
func (g *warmUpGauges) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	views, err := g.relay.Sources(ctx)
	if err != nil {
		return // the relay has stopped
	}
	for i := range views {
		w := views[i].WarmUp
		if w == nil {
			continue
		}
		gauge := func(d *prometheus.Desc, v int64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), views[i].Name)
		}
		gauge(g.stage, int64(w.State.Stage))
		gauge(g.sent, w.State.Sent)
		if w.Active {
			gauge(g.cap, w.Cap)
		}
	}
}
