package world

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and writes as text ("5m", "1.5s") in
// JSON and YAML.
type Duration time.Duration

// Std returns the value as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler for time.ParseDuration's syntax.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write it as a number with a unit, such as 300ms, 5m or 2h", text)
	}
	*d = Duration(v)
	return nil
}

// divide shortens d by factor, but never to nothing.
func (d Duration) divide(factor float64) Duration {
	if d <= 0 {
		return d
	}
	return max(Duration(float64(d)/factor), 1)
}

// Rate is Count per Per, with at most Burst at once after idleness. The zero
// Rate is no limit. As text it is "COUNT/UNIT" with an optional " burst N", the
// unit being s, min, h, d or a duration: "100/s", "50/10s burst 5", "unlimited".
type Rate struct {
	Count int
	Per   Duration
	// Burst is how many may pass at once; 0 means 1.
	Burst int
}

// rateUnits are the units of rates by name, the ones written before the others.
var rateUnits = [...]struct {
	name string
	per  Duration
}{{"s", Duration(time.Second)}, {"min", Duration(time.Minute)}, {"h", Duration(time.Hour)}, {"d", Duration(24 * time.Hour)}}

// String returns the rate's text.
func (r Rate) String() string {
	if !r.Limited() {
		return "unlimited"
	}
	unit := r.Per.Std().String()
	for _, u := range rateUnits {
		if u.per == r.Per {
			unit = u.name
		}
	}
	text := strconv.Itoa(r.Count) + "/" + unit
	if r.Burst > 0 {
		text += " burst " + strconv.Itoa(r.Burst)
	}
	return text
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, ok := parseRate(string(text))
	if !ok {
		return fmt.Errorf(`rate %.40q: write it as "100/s", "6000/min burst 50", "50000/h" or "unlimited"`, text)
	}
	*r = parsed
	return nil
}

func parseRate(text string) (r Rate, ok bool) {
	if text == "unlimited" {
		return Rate{}, true
	}
	amount, burst, hasBurst := strings.Cut(text, " burst ")
	count, unit, _ := strings.Cut(amount, "/")
	var err error
	if r.Count, err = strconv.Atoi(count); err != nil || r.Count < 1 {
		return Rate{}, false
	}
	if r.Per, ok = parseUnit(unit); !ok {
		return Rate{}, false
	}
	if hasBurst {
		if r.Burst, err = strconv.Atoi(burst); err != nil || r.Burst < 1 {
			return Rate{}, false
		}
	}
	return r, true
}

func parseUnit(unit string) (Duration, bool) {
	for _, u := range rateUnits {
		if u.name == unit {
			return u.per, true
		}
	}
	d, err := time.ParseDuration(unit)
	return Duration(d), err == nil && d > 0
}

// Limited reports whether the rate limits anything.
func (r Rate) Limited() bool { return r.Count > 0 && r.Per > 0 }

// PerSecond returns the sustained rate in events per second, 0 for no limit.
func (r Rate) PerSecond() float64 {
	if !r.Limited() {
		return 0
	}
	return float64(r.Count) / r.Per.Std().Seconds()
}

func (r Rate) burst() float64 { return float64(max(r.Burst, 1)) }

func (r Rate) validate(field string) error {
	if r.Count < 0 || r.Per < 0 || r.Burst < 0 {
		return fmt.Errorf("%s: count, period and burst must not be negative", field)
	}
	if (r.Count > 0) != (r.Per > 0) {
		return fmt.Errorf("%s: %d per %v; give both a count and a period", field, r.Count, r.Per.Std())
	}
	return nil
}
