package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/route"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/forecast"
)

// A delivery's preparation says how it would go, and so does the call; a validity
// period that is too short is a warning with the share that will be late.
func TestAForecastBeforeTheStart(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "key.pem")
	write(t, filepath.Join(dir, "mx.yaml"), "rules:\n  - {id: slow, match: {domain: [slow.example]}, message_rate: 6/min}\n")
	cfg := parse(t, dir, "relay: {mode: redirect, redirect: 'elsewhere.example:25', hostname: mta.brand.example}\nmx_rules: mx.yaml\n"+
		"dkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n")
	inNode(t, cfg, &mailbox{tries: map[string]int{}, mail: map[string][]time.Time{}}, beforeTheStart)
}

func beforeTheStart(t *testing.T, conn *grpc.ClientConn) {
	campaigns, relay, ctx := veredusv1.NewCampaignServiceClient(conn), veredusv1.NewRelayServiceClient(conn), t.Context()
	d, err := campaigns.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: "spring", Delivery: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@brand.example"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Spring is here."},
	}})
	if err != nil {
		t.Fatal(err)
	}
	recipients := []string{"a@quick.example", "b@quick.example"}
	for i := range 120 {
		recipients = append(recipients, fmt.Sprintf("u%d@slow.example", i))
	}
	fill(t, conn, d.GetName(), recipients...)
	wantFinding(t, campaigns, d.GetName(), "forecast: about 20 min; slowest: slow.example at 3", "(message_rate); everything inside the validity period")

	f, err := relay.Forecast(ctx, &veredusv1.ForecastRequest{Delivery: d.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	slow := f.GetDestinations()[0]
	if took := f.GetDuration().AsDuration(); took < 1180*time.Second || took > 1210*time.Second || f.GetLatePercent() != 0 || len(f.GetAssumptions()) == 0 ||
		slow.GetDestination() != "slow.example" || slow.GetMessages() != 120 || slow.GetBottleneck() != "message_rate" {
		t.Errorf("%v", f)
	}

	if _, err := campaigns.UpdateDelivery(ctx, &veredusv1.UpdateDeliveryRequest{
		Delivery:   &veredusv1.Delivery{Name: d.GetName(), ValidityPeriod: durationpb.New(10 * time.Minute)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"validity_period"}},
	}); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, campaigns, d.GetName(), "forecast.late: about 10 min; slowest: slow.example", "will not make the validity period")

	if _, err := campaigns.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: d.GetName()}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Minute)
	if f, err = relay.Forecast(ctx, &veredusv1.ForecastRequest{Delivery: d.GetName()}); err != nil || f.GetDuration().AsDuration() > 5*time.Minute || f.GetLatePercent() < 60 || f.GetLatePercent() > 72 {
		t.Errorf("half way: %v, %v", f, err)
	}
	time.Sleep(6 * time.Minute)
	for name, want := range map[string]codes.Code{
		d.GetName(): codes.FailedPrecondition, "deliveries/lost": codes.NotFound, "spring": codes.InvalidArgument, "": codes.InvalidArgument,
		"deliveries/a/b": codes.InvalidArgument, "deliveries/" + strings.Repeat("x", 300): codes.InvalidArgument,
	} {
		if _, err := relay.Forecast(ctx, &veredusv1.ForecastRequest{Delivery: name}); status.Code(err) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// wantFinding prepares and looks for a finding with these words.
func wantFinding(t *testing.T, campaigns veredusv1.CampaignServiceClient, name string, words ...string) {
	t.Helper()
	resp, err := campaigns.PrepareDelivery(t.Context(), &veredusv1.PrepareDeliveryRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range resp.GetFindings() {
		text, found := f.GetCode()+": "+f.GetDescription(), true
		all = append(all, text)
		for _, w := range words {
			found = found && strings.Contains(text, w)
		}
		if found {
			return
		}
	}
	t.Errorf("no finding with %q in\n%s", words, strings.Join(all, "\n"))
}

// directory is a delivery's mail by domain.
type directory struct {
	mailStore
	runs []mta.RunState
}

func (d directory) Runs(_ context.Context, _ uint64, after uint32, max int) ([]mta.RunState, error) {
	return d.runs[min(int(after), len(d.runs)):min(int(after)+max, len(d.runs))], nil
}

// The largest domains are looked up and summed by destination; the many small ones, and
// those whose look-up takes too long, are average ones; nobody is counted twice or lost.
func TestMailByDestination(t *testing.T) {
	var dir directory
	known := routes{}
	total := int64(0)
	for i := range 2500 {
		name := fmt.Sprintf("d%d.example", i)
		s := mta.RunState{Domain: uint32(i + 1), DomainName: name, Fresh: int64(i % 100), Deferred: 1, NextDue: noon.Add(time.Duration(i) * time.Second)}
		if i < 50 {
			s.Fresh = 10_000
			known[name] = &route.Route{Domain: name, Destination: fmt.Sprint("big", i%2), Hosts: []route.Host{{Name: "mx.big.example"}}}
		}
		total += s.Fresh + s.Deferred
		dir.runs = append(dir.runs, s)
	}
	f := &forecaster{store: dir}
	m, err := f.read(t.Context(), &campaign.Delivery{})
	if err != nil {
		t.Fatal(err)
	}
	m.lookUp(t.Context(), known, time.Hour)
	list := m.group()
	got := map[string]*bound{}
	for _, b := range list {
		got[b.name] = b
		total -= b.messages()
	}
	if total != 0 || len(list) != 4 {
		t.Fatalf("%d messages are missing; %d destinations", total, len(list))
	}
	if b := got["big0"]; b.domains != 25 || b.fresh != 250_000 || b.deferred != 25 || !b.nextDue.Equal(noon) || b.route.Hosts[0].Name != "mx.big.example" {
		t.Errorf("%+v", b)
	}
	if b := got[noExchanger]; !b.dead || b.domains != maxNamed-50 {
		t.Errorf("%+v", b)
	}
	if b := got[forecast.EveryoneElse]; b.domains != 2300 || b.like != 2300 || b.dead {
		t.Errorf("%+v", b)
	}

	m, _ = f.read(t.Context(), &campaign.Delivery{})
	m.lookUp(t.Context(), stuck{}, time.Millisecond)
	if list = m.group(); len(list) != 1 || list[0].domains != 2500 {
		t.Errorf("nothing was looked up, but %d destinations", len(list))
	}
}

// stuck is a resolver that does not answer.
type stuck struct{}

func (stuck) Route(ctx context.Context, domain string) (*route.Route, error) {
	<-ctx.Done()
	return nil, &route.Error{Kind: route.Temporary, Domain: domain, Err: ctx.Err()}
}

// One forecast is made at a time; who cannot wait any longer is told.
func TestForecastsTakeTurns(t *testing.T) {
	f := &forecaster{busy: make(chan struct{}, 1)}
	f.busy <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.of(ctx, &campaign.Delivery{ID: "d", State: campaign.Running}, time.Second, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	got := f.findings(ctx, &campaign.Delivery{ID: "d", State: campaign.Prepared})
	if len(got) != 1 || !strings.Contains(got[0].GetDescription(), "veredus forecast d") {
		t.Error(got)
	}
}
