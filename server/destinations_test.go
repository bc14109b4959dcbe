package server

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
)

// views is a relay that shows what a test says.
type views struct {
	destinations []dispatch.DestinationView // by name
	domains      map[string]dispatch.DomainView
}

func (v *views) QueueSizes(context.Context) (list []dispatch.QueueSize, err error) {
	for i := range v.destinations {
		list = append(list, dispatch.QueueSize{Name: v.destinations[i].Name, Size: waiting(&v.destinations[i])})
	}
	return list, nil
}

func (v *views) Destinations(_ context.Context, names []string) (list []dispatch.DestinationView, err error) {
	for _, name := range names {
		i := slices.IndexFunc(v.destinations, func(d dispatch.DestinationView) bool { return d.Name == name })
		list = append(list, v.destinations[i])
	}
	return list, nil
}

// waiting is a destination's queue.
func waiting(v *dispatch.DestinationView) int64 { return v.Ready + v.Deferred + v.InFlight }

func (v *views) Destination(_ context.Context, name string) (dispatch.DestinationView, bool, error) {
	for _, d := range v.destinations {
		if d.Name == name {
			return d, true, nil
		}
	}
	return dispatch.DestinationView{}, false, nil
}

func (v *views) Explain(_ context.Context, domain string) (dispatch.DomainView, bool, error) {
	d, ok := v.domains[domain]
	return d, ok, nil
}

// routes is a resolver that knows a few domains.
type routes map[string]*route.Route

func (r routes) Route(_ context.Context, domain string) (*route.Route, error) {
	if rt := r[domain]; rt != nil {
		return rt, nil
	}
	return nil, &route.Error{Kind: route.NXDomain, Domain: domain}
}

func service(relay *views, resolver mta.Resolver, set *settings) *relayService {
	return &relayService{
		relay: relay, resolver: resolver, replies: newReplies(), now: func() time.Time { return noon },
		settings: func() *settings { return set }, operations: &operations{},
	}
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// 2500 destinations come in order of their queues, each once, however they are paged.
func TestDestinationsComeLargestFirst(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	v := &views{}
	for i := range 2500 {
		v.destinations = append(v.destinations, dispatch.DestinationView{
			Name: fmt.Sprintf("d%04d.example", i), Ready: rnd.Int64N(50), Deferred: rnd.Int64N(3), InFlight: rnd.Int64N(2),
		})
	}
	want := slices.Clone(v.destinations)
	slices.SortFunc(want, func(a, b dispatch.DestinationView) int {
		return cmp.Or(cmp.Compare(waiting(&b), waiting(&a)), cmp.Compare(a.Name, b.Name))
	})
	s := service(v, routes{}, nil)
	var got []string
	for token := ""; ; {
		resp, err := s.ListDestinations(t.Context(), &veredusv1.ListDestinationsRequest{PageSize: 1 + rnd.Int32N(1000), PageToken: token})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, d := range resp.GetDestinations() {
			got = append(got, d.GetName())
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(got) != len(want) {
		t.Fatalf("seed %d: %d destinations, want %d", seed, len(got), len(want))
	}
	for i := range want {
		if got[i] != "destinations/"+want[i].Name {
			t.Fatalf("seed %d: place %d has %s, want %s", seed, i, got[i], want[i].Name)
		}
	}
}

func TestListsRefuseBadPages(t *testing.T) {
	s := service(&views{}, routes{}, nil)
	for field, req := range map[string]*veredusv1.ListDestinationsRequest{
		"page_size":  {PageSize: 1001},
		"page_token": {PageToken: page{kind: suspensionsPage, name: "x"}.token()},
	} {
		_, err := s.ListDestinations(t.Context(), req)
		st, _ := statusOf(err)
		if wantError(t, st.Err(), codes.InvalidArgument, "INVALID_FIELD"); fields(st) != field {
			t.Errorf("%s: fields %q", field, fields(st))
		}
	}
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(page{kind: destinationsPage, name: "gmail.com", size: 12}.token())
	f.Add("AQEA")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := parsePage(destinationsPage, token)
		if err == nil && token != "" && p.token() != token {
			again, err := parsePage(destinationsPage, p.token())
			if err != nil || again != p {
				t.Errorf("%q is %+v, then %+v, %v", token, p, again, err)
			}
		}
	})
}

func TestADestinationShowsItsPathsAndReplies(t *testing.T) {
	effective := mxrules.Builtin().Match(mxrules.Query{Host: "alt1.gmail-smtp-in.l.google.com", Domain: "gmail.com"})
	v := &views{destinations: []dispatch.DestinationView{{
		Name: "google", Provider: "google", Domains: []string{"gmail.com"}, DomainCount: 1,
		Hosts: []dispatch.HostView{{Name: "b.google.com", Preference: 20}, {Name: "a.google.com", Preference: 10}},
		Ready: 5, Deferred: 2, InFlight: 1,
		Paths: []dispatch.PathView{
			{Key: "s>google", Source: "s", Sessions: 2, Effective: effective, LastError: "421 slow down", State: mxrules.State{
				Hold: mxrules.HoldRest, Until: noon.Add(time.Minute), MaxConnections: 1, MessagesPerConnection: 50, TroubleAt: noon,
			}},
			{Key: "*>google", Effective: effective, BackoffUntil: noon.Add(time.Hour)},
		},
	}}}
	s := service(v, routes{}, nil)
	s.replies.settled([]mta.Settlement{
		{Destination: "google", Outcome: mta.Delivered, Attempt: &mta.Attempt{}},
		{Destination: "google", Outcome: mta.Deferred, Time: noon, Verdict: bounce.Verdict{Code: 70, Tag: "rate_limit"}, Attempt: &mta.Attempt{
			Source: "s", RemoteHost: "a.google.com", Reply: smtpc.Reply{Phase: smtpc.PhaseMAIL, Code: 421, Enhanced: "4.7.28", Text: "slow\ndown"},
		}},
		{Destination: "google", Outcome: mta.Expired},
	})
	d, err := s.GetDestination(t.Context(), &veredusv1.GetDestinationRequest{Name: "destinations/google"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(d.GetMxHosts(), " ") != "a.google.com b.google.com" || d.GetReady() != 5 || d.GetDeferred() != 2 || d.GetInFlight() != 1 {
		t.Errorf("destination %v", d)
	}
	rest, backoff := d.GetPaths()[0], d.GetPaths()[1]
	if rest.GetSource() != "s" || rest.GetLimitedBy() != "rest" || !rest.GetUntil().AsTime().Equal(noon.Add(time.Minute)) || rest.GetLastError() != "421 slow down" {
		t.Errorf("path %v", rest)
	}
	if backoff.GetSource() != "*" || backoff.GetLimitedBy() != "backoff" || !backoff.GetUntil().AsTime().Equal(noon.Add(time.Hour)) {
		t.Errorf("path %v", backoff)
	}
	if l := rest.GetLimits().GetLimits()[0]; l.GetField() != "connections" || l.GetValue() != "5" || l.GetEffective() != "1" || l.GetRule() != "builtin-google" || l.GetFile() != "builtin" {
		t.Errorf("limit %v", l)
	}
	if r := d.GetLastReplies(); len(r) != 1 || r[0].GetReply() != "421 4.7.28 slow down" || r[0].GetPhase() != "mail" || r[0].GetBounceCode() != 70 {
		t.Errorf("replies %v", r)
	}
}

func TestRepliesAreBounded(t *testing.T) {
	r := newReplies()
	for i := range keepDestinations + 10 {
		for range keepReplies + 3 {
			r.settled([]mta.Settlement{{Destination: fmt.Sprint(i), Outcome: mta.Bounced, Attempt: &mta.Attempt{Reply: smtpc.Reply{Text: strings.Repeat("x", 9999)}}}})
		}
	}
	if len(r.by) != keepDestinations || len(r.of(fmt.Sprint(keepDestinations+9))) != keepReplies || r.of("0") != nil {
		t.Errorf("%d destinations, %d replies", len(r.by), len(r.of(fmt.Sprint(keepDestinations+9))))
	}
}

const explainRules = `
rules:
  - id: acme
    match: {mx: "*.acme.example"}
    connections: 3
`

func TestExplain(t *testing.T) {
	rules, err := rulefile.Parse("mx.yaml", []byte(explainRules))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	set := &settings{cfg: cfg, rules: rules, bounces: bounce.Default()}
	host := func(name string) []route.Host {
		return []route.Host{{Name: name, Preference: 10, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}
	}
	resolver := routes{
		"gmail.com":      {Domain: "gmail.com", Destination: "google", Provider: "google", Hosts: host("mx.google.com")},
		"firm.example":   {Domain: "firm.example", Destination: "google", Provider: "google", Hosts: host("mx.google.com")},
		"a.example":      {Domain: "a.example", Destination: "acme.example", Hosts: host("mx1.acme.example")},
		"own.example":    {Domain: "own.example", Destination: "own.example", Hosts: host("own.example"), ImplicitMX: true},
		"xn--bcher.test": {Domain: "xn--bcher.test", Destination: "xn--bcher.test", Hosts: host("xn--bcher.test")},
	}
	v := &views{
		destinations: []dispatch.DestinationView{{Name: "acme.example", Ready: 7, Deferred: 1, Paths: []dispatch.PathView{
			{Source: "local", Effective: rules.Match(mxrules.Query{Host: "mx1.acme.example"}), LastError: "421 busy", State: mxrules.State{MaxConnections: 2, TroubleAt: noon}},
		}}},
		domains: map[string]dispatch.DomainView{
			"a.example":    {Domain: "a.example", Wait: dispatch.Wait{Cause: dispatch.CauseRest, Until: noon.Add(time.Minute), Text: "421 busy"}},
			"dead.example": {Domain: "dead.example", Ready: 3, Wait: dispatch.Wait{Cause: dispatch.CauseDNS, Text: "no such domain"}},
		},
	}
	s := service(v, resolver, set)
	explain := func(domain string) *veredusv1.ExplainDestinationResponse {
		t.Helper()
		resp, err := s.ExplainDestination(t.Context(), &veredusv1.ExplainDestinationRequest{Domain: domain})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}

	a := explain("A.example.")
	if a.GetRule() != "acme" || a.GetRuleFile() != "mx.yaml" || a.GetRuleLine() != 3 || a.GetDestination() != "acme.example" ||
		a.GetDestinationBecause() != "registrable domain of the best MX host mx1.acme.example" {
		t.Errorf("a.example: %v", a)
	}
	if l := a.GetLimits().GetLimits(); l[0].GetValue() != "3" || l[0].GetEffective() != "2" || l[0].GetLine() != 5 || l[1].GetFile() != "builtin" {
		t.Errorf("limits of a.example: %v", l[:2])
	}
	if a.GetBacklog() != 8 || a.GetLastError() != "421 busy" || a.GetLimitedBy() != "the path rests: 421 busy, until 2026-11-22T12:01:00Z" ||
		!a.GetNextAttemptTime().AsTime().Equal(noon.Add(time.Minute)) || len(a.GetPaths()) != 1 {
		t.Errorf("a.example now: %v", a)
	}

	if g := explain("gmail.com"); g.GetDestinationBecause() != "provider google by the suffix of MX host mx.google.com" || g.GetRule() != "builtin-google" ||
		g.GetRuleFile() != "builtin" || g.GetRuleLine() != 0 || g.GetLimitedBy() != "nothing: no mail waits for this domain" || g.GetNextAttemptTime() != nil {
		t.Errorf("gmail.com: %v", g)
	}
	for domain, shared := range map[string]bool{"gmail.com": false, "firm.example": true, "a.example": false} {
		if explain(domain).GetSharedHosts() != shared {
			t.Errorf("%s shares hosts with others: %v", domain, !shared)
		}
	}
	if o := explain("own.example"); o.GetDestinationBecause() != "the domain has no MX record: it is its own mail host" {
		t.Errorf("own.example: %v", o)
	}
	if d := explain("dead.example"); d.GetMxError() != "domain dead.example does not exist (NXDOMAIN)" || d.GetDestination() != "" || d.GetBacklog() != 3 || d.GetLastError() != "no such domain" {
		t.Errorf("dead.example: %v", d)
	}
	for _, domain := range []string{"", "a b", "[192.0.2.1]", "localhost", strings.Repeat("a.", 200)} {
		_, err := s.ExplainDestination(t.Context(), &veredusv1.ExplainDestinationRequest{Domain: domain})
		st, _ := statusOf(err)
		wantError(t, st.Err(), codes.InvalidArgument, "INVALID_FIELD")
	}
}

func TestQualify(t *testing.T) {
	s := service(&views{}, routes{}, &settings{bounces: bounce.Default()})
	qualify := func(req *veredusv1.QualifyReplyRequest) *veredusv1.QualifyReplyResponse {
		t.Helper()
		resp, err := s.QualifyReply(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	unknown := qualify(&veredusv1.QualifyReplyRequest{Reply: "550 5.1.1 <anna@example.com>: user unknown"})
	if unknown.GetBounceCode() != 10 || unknown.GetReason() != veredusv1.FailureReason_FAILURE_REASON_USER_UNKNOWN ||
		unknown.GetFailureType() != veredusv1.FailureType_FAILURE_TYPE_HARD || unknown.GetDisposition() != veredusv1.Disposition_DISPOSITION_FINAL ||
		unknown.GetAddressEffect() != "suppress" || unknown.GetPathEffect() != "none" || unknown.GetRule() == "" || len(unknown.GetConsidered()) == 0 {
		t.Errorf("unknown user: %v", unknown)
	}
	multi := qualify(&veredusv1.QualifyReplyRequest{Reply: "452-4.2.2 The email account that you tried to reach is\r\n452 4.2.2 over quota"})
	if multi.GetBounceCode() != 22 || multi.GetDisposition() != veredusv1.Disposition_DISPOSITION_RETRY {
		t.Errorf("full mailbox: %v", multi)
	}
	if ok := qualify(&veredusv1.QualifyReplyRequest{Reply: "250 2.0.0 OK"}); ok.GetDisposition() != veredusv1.Disposition_DISPOSITION_DELIVERED || ok.GetBounceCode() != 0 {
		t.Errorf("success: %v", ok)
	}
	if lost := qualify(&veredusv1.QualifyReplyRequest{Reply: "connection reset by peer", Phase: "end_of_data"}); lost.GetDisposition() != veredusv1.Disposition_DISPOSITION_RETRY {
		t.Errorf("no reply: %v", lost)
	}
	for field, req := range map[string]*veredusv1.QualifyReplyRequest{
		"reply": {Reply: "  "},
		"phase": {Reply: "550 no", Phase: "lunch"},
	} {
		_, err := s.QualifyReply(t.Context(), req)
		st, _ := statusOf(err)
		if wantError(t, st.Err(), codes.InvalidArgument, "INVALID_FIELD"); fields(st) != field {
			t.Errorf("fields %q", fields(st))
		}
	}
}
