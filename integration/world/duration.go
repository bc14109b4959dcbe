package world

import (
	"fmt"
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
// Rate is no limit.
type Rate struct {
	Count int      `json:"count" yaml:"count"`
	Per   Duration `json:"per" yaml:"per"`
	// Burst is how many may pass at once; 0 means 1.
	Burst int `json:"burst,omitempty" yaml:"burst,omitempty"`
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
		return fmt.Errorf("%s: count, per and burst must not be negative", field)
	}
	if r.Count > 0 && r.Per == 0 {
		return fmt.Errorf("%s.per: missing; say the period in which count events may happen, such as 1s", field)
	}
	return nil
}
