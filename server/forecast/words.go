package forecast

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// shownNames is how many destinations an assumption names.
const shownNames = 5

// assumptions say in words what a forecast rests on.
func (in *Input) assumptions(p *plan) []string {
	list := []string{fmt.Sprintf("it is sent from now on by pool %s (%s) under today's rules", in.Pool, counted(len(p.pool), "source"))}
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	var learned, unknown, slow, shown, suspended []string
	for i := range p.ways {
		w := &p.ways[i]
		name := w.d.Name
		if w.learned() {
			learned = append(learned, name)
		} else {
			unknown = append(unknown, name)
		}
		if w.rest > 0 {
			slow = append(slow, fmt.Sprintf("%s for %s", name, Span(w.rest)))
		}
		if w.d.Shown.Attempts >= Enough {
			shown = append(shown, fmt.Sprintf("%s %.1f %% and %.1f %%", name, 100*w.d.Shown.Deferred, 100*w.d.Shown.Bounced))
		}
		if slices.ContainsFunc(w.d.Paths, func(p dispatch.Prospect) bool { return p.Suspended }) {
			suspended = append(suspended, name)
		}
	}
	if len(learned) > 0 {
		add("as learned from replies: the pace of %s", names(learned))
	}
	if len(unknown) > 0 {
		add("nothing was learned of %s: the figures of the rules are taken to be borne", names(unknown))
	}
	if p.others > 0 {
		add("%d messages of %s share the pace of the same destinations", p.others, counted2(len(p.rivals), "other delivery", "other deliveries"))
	}
	if len(shown) > 0 {
		add("put off and refused as lately: %s", names(shown))
	}
	if len(shown) < len(p.ways) {
		add("where nothing is known a message takes %v, and is taken at the first attempt", p.latency(&Destination{}))
	}
	if len(slow) > 0 {
		add("at rest after replies: %s", names(slow))
	}
	if len(suspended) > 0 {
		add("as if nothing were suspended: %s", names(suspended))
	}
	for _, s := range p.warming() {
		add("%s", s)
	}
	if p.scale > 1 {
		add("counted in steps of up to %d messages", p.scale)
	}
	return list
}

func (w *way) learned() bool {
	for i := range w.d.Paths {
		if w.d.Paths[i].Learned != 0 {
			return true
		}
	}
	return false
}

// warming tells of the sources that are being warmed up.
func (p *plan) warming() []string {
	var list []string
	for _, pool := range p.cfg.Pools {
		for _, s := range pool.Sources {
			state, ok := p.in.WarmUps[s.Name]
			if text := fmt.Sprintf("source %s is warmed up: stage %d", s.Name, state.Stage); ok && !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	}
	return list[:min(len(list), shownNames)]
}

// names lists a few of them.
func names(list []string) string {
	if len(list) > shownNames {
		return strings.Join(list[:shownNames], ", ") + " and " + strconv.Itoa(len(list)-shownNames) + " more"
	}
	return strings.Join(list, ", ")
}

func counted(n int, one string) string { return counted2(n, one, one+"s") }

func counted2(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// Span is a duration as people say it: "40 s", "12 min", "3 h 20 min", "2 d 5 h".
func Span(d time.Duration) string {
	round := func(unit time.Duration) int64 { return int64(d.Round(unit) / unit) }
	switch {
	case d < time.Second:
		return "a moment"
	case round(time.Second) < 60:
		return fmt.Sprintf("%d s", round(time.Second))
	case round(time.Minute) < 60:
		return fmt.Sprintf("%d min", round(time.Minute))
	case round(time.Minute) < 48*60:
		return twice(round(time.Minute), 60, "h", "min")
	}
	return twice(round(time.Hour), 24, "d", "h")
}

func twice(n, of int64, big, small string) string {
	if n%of == 0 {
		return fmt.Sprintf("%d %s", n/of, big)
	}
	return fmt.Sprintf("%d %s %d %s", n/of, big, n%of, small)
}

// Summary is a forecast in one sentence.
func (f *Forecast) Summary() string {
	text := "about " + Span(f.Duration)
	if f.Duration < time.Second {
		text = "less than a second"
	}
	if len(f.Destinations) > 0 {
		if o := &f.Destinations[0]; o.Bottleneck != "none" {
			text += fmt.Sprintf("; slowest: %s at %s (%s)", o.Destination, Pace(o.HourlyRate), o.Bottleneck)
		}
	}
	if f.Late == 0 {
		return text + "; everything inside the validity period"
	}
	return text + fmt.Sprintf("; %s messages (%s %%) will not make the validity period", grouped(f.Late), percent(f.LatePercent()))
}

// Pace is a number of messages per hour as people would say it: "3/s", "200/min", "5000/h".
func Pace(hourly float64) string {
	const exact = 1000 // so that half a message an hour is told, too
	if !(hourly*exact >= 1) {
		return "0/h"
	}
	if whole := math.Round(hourly/3600) * 3600; math.Abs(hourly-whole) <= 0.01*hourly {
		hourly = whole // a forecast has no more digits
	}
	return mxrules.Rate{Count: int(hourly * exact), Per: exact * time.Hour}.Readable().String()
}

// percent has a digit behind the point where that says something.
func percent(p float64) string {
	if p < 0.05 {
		return "less than 0.1"
	}
	return strconv.FormatFloat(p, 'f', 1, 64)
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
