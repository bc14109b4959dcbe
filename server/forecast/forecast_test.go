package forecast

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// perSecond is a rate without a burst.
func perSecond(n int) mxrules.Rate { return mxrules.Rate{Count: n, Per: time.Second} }

// from is a path that bears what it says.
func from(source string, l mxrules.Limits, learned ...mxrules.Field) dispatch.Prospect {
	return dispatch.Prospect{Source: source, Rule: l, Believed: l, Learned: mxrules.FieldsOf(learned...)}
}

// delivery is an input with one source.
func delivery(validity time.Duration, destinations ...Destination) Input {
	return Input{
		Now: noon, Validity: validity, Pool: "main", Destinations: destinations,
		Pools: []dispatch.Pool{{Name: "main", Sources: []dispatch.Source{{Name: "s1", Addr: netip.MustParseAddr("192.0.2.1"), Weight: 1}}}},
	}
}

func foretell(t *testing.T, in Input) *Forecast {
	t.Helper()
	f, err := Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// near reports whether two figures agree to a hundredth, or a second.
func near(a, b time.Duration) bool {
	return math.Abs(float64(a-b)) <= max(0.01*float64(b), float64(time.Second))
}

// What bounds a delivery is named, and its time follows from it.
func TestBottlenecks(t *testing.T) {
	limits := func(change func(l *mxrules.Limits)) mxrules.Limits {
		l := mxrules.Limits{Connections: 10}
		change(&l)
		return l
	}
	for _, c := range []struct {
		name    string
		d       Destination
		takes   time.Duration
		because string
	}{
		{"a rule's rate", Destination{Fresh: 36_000, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.MessageRate = perSecond(10) })),
		}}, time.Hour, "message_rate"},
		{"what was learned", Destination{Fresh: 7200, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.MessageRate = perSecond(2) }), mxrules.FieldMessageRate),
		}}, time.Hour, "learned rate"},
		{"connections", Destination{Fresh: 40_000, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.Connections = 2 })),
		}}, 40_000 / 8 * time.Second, "connections"},
		{"an hourly quota, of which bulk mail has 95 %", Destination{Fresh: 9500, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.MessagesPerHour = 1000 })),
		}}, 10 * time.Hour, "hourly quota"},
		{"new connections", Destination{Fresh: 6000, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.ConnectionRate, l.MessagesPerConnection = perSecond(1), 1 })),
		}}, 6000 * time.Second, "connection_rate"},
		{"a rest", Destination{Fresh: 100, Paths: []dispatch.Prospect{
			{Source: "s1", Believed: mxrules.Limits{Connections: 10}, RestUntil: noon.Add(2 * time.Hour)},
		}}, 2*time.Hour + 3*time.Second, "rest"},
		{"its own retries", Destination{Deferred: 100, NextDue: noon.Add(time.Hour), Paths: []dispatch.Prospect{
			from("s1", mxrules.Limits{Connections: 10}),
		}}, time.Hour + 3*time.Second, "retries"},
		{"nothing", Destination{Fresh: 1, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{})}}, 500 * time.Millisecond, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.d.Name = "there"
			f := foretell(t, delivery(84*time.Hour, c.d))
			o := f.Destinations[0]
			if !near(f.Duration, c.takes) || f.Late != 0 {
				t.Errorf("takes %v with %d late, not %v", f.Duration, f.Late, c.takes)
			}
			if o.Bottleneck != c.because {
				t.Errorf("because of %s, not %s; %+v", o.Bottleneck, c.because, f)
			}
		})
	}
}

var _ = []any{context.Background, errors.New, fmt.Sprint, reflect.DeepEqual, strings.Contains, mta.Delivered, bounce.Retry}
