package server

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
)

// A destination without mail, as after a restart, is explained with what is kept of it:
// how old that is, where it goes, and when it is forgotten.
func TestWhatIsKeptOfIdlePathsIsExplained(t *testing.T) {
	rules, err := rulefile.Parse("mx.yaml", []byte(`
rules:
  - id: slow
    match: {domain: [a.test]}
    connections: 10
    message_rate: 20/s
    messages_per_hour: 50000
    governor: on
`))
	if err != nil {
		t.Fatal(err)
	}
	set := &settings{cfg: config.Default(), rules: rules}
	source := set.firstSource().Name
	learned := func(value float64, age time.Duration) mxrules.Learned {
		return mxrules.Learned{Value: value, At: noon.Add(-age).UnixNano(), Seen: 4}
	}
	kept := map[string]mxrules.Usage{
		source + ">a.test":                  {Learned: mxrules.Memory{MessageRate: learned(3, 2*time.Hour), Hourly: learned(9000, time.Hour)}},
		source + ">a.test/vip.test":         {Learned: mxrules.Memory{MessageRate: learned(1, 0)}},
		source + ">a.test/alone:other.test": {Learned: mxrules.Memory{Rest: learned(1, 0)}},
		"gone>a.test":                       {Learned: mxrules.Memory{MessageRate: learned(1, 0)}},
		"*>a.test":                          {Learned: mxrules.Memory{MessageRate: learned(1, 0)}},
	}
	s := service(&views{}, routes{"a.test": {Domain: "a.test", Destination: "a.test", Hosts: []route.Host{{Name: "mx.a.test"}}}}, set)
	s.operations.kept = pathStore{
		usage: func(context.Context, string) (map[string]mxrules.Usage, error) { return kept, nil },
		events: func(context.Context, string) ([]*veredusv1.FeedbackEvent, error) {
			return []*veredusv1.FeedbackEvent{toldOf(source, veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_THROTTLED, 3*time.Hour, "message_rate 6/s -> 3/s")}, nil
		},
	}
	e, err := s.ExplainDestination(t.Context(), &veredusv1.ExplainDestinationRequest{Domain: "a.test"})
	if err != nil || len(e.GetPaths()) != 1 || !e.GetPaths()[0].GetIdle() || e.GetPaths()[0].GetSource() != source {
		t.Fatalf("explained: %v, %v", e, err)
	}
	if d := e.GetPaths()[0].GetDecisions(); len(d) != 1 || d[0].GetAction() != "cut" || d[0].GetCause() != "message_rate 6/s -> 3/s" {
		t.Errorf("decisions %v", d)
	}
	found := 0
	for _, l := range e.GetLimits().GetLimits() {
		switch l.GetField() {
		case "message_rate":
			found++
			if l.GetLearned() == "" || l.GetDecaysTo() != "20/s" || !l.GetLearnedTime().AsTime().Equal(noon.Add(-2*time.Hour)) ||
				!l.GetForgetTime().AsTime().Equal(noon.Add(-2*time.Hour+14*24*time.Hour)) {
				t.Errorf("message_rate: %v", l)
			}
		case "messages_per_hour":
			found++
			if l.GetLearned() != "9000" || l.GetDecaysTo() != "50000" {
				t.Errorf("messages_per_hour: %v", l)
			}
		case "connections":
			if l.GetLearnedTime() != nil || l.GetDecaysTo() != "" {
				t.Errorf("connections were not learned: %v", l)
			}
		}
	}
	if found != 2 {
		t.Errorf("limits %v", e.GetLimits())
	}
}

func toldOf(source string, kind veredusv1.FeedbackType, ago time.Duration, text string) *veredusv1.FeedbackEvent {
	return &veredusv1.FeedbackEvent{Type: kind, Time: timestamppb.New(noon.Add(-ago)), Source: source, Destination: "a.test", Text: text}
}

// The list of decisions goes on behind those of this process, up to ten.
func TestDecisionsOfBeforeARestartAreShown(t *testing.T) {
	cut := veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_THROTTLED
	var events []*veredusv1.FeedbackEvent
	for i := range 12 {
		events = append(events, toldOf("s1", cut, time.Duration(i)*time.Minute, fmt.Sprint(i)), toldOf("s2", cut, time.Duration(i)*time.Minute, "another's"))
	}
	var causes []string
	for _, d := range withPast([]*veredusv1.PathDecision{{Time: timestamppb.New(noon.Add(-90 * time.Second)), Cause: "now"}}, "s1", events) {
		causes = append(causes, d.GetCause())
	}
	if want := []string{"now", "2", "3", "4", "5", "6", "7", "8", "9", "10"}; !slices.Equal(causes, want) {
		t.Errorf("decisions %q, want %q", causes, want)
	}
}
