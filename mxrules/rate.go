package mxrules

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of a Rate. A day of burst and a microsecond between two events are
// beyond any receiver's wish and keep the meters exact.
const (
	maxRatePer      = 24 * time.Hour
	maxRateBurst    = 24 * time.Hour
	minRateInterval = time.Microsecond
)

var rateUnits = []struct {
	per  time.Duration
	name string
}{
	{time.Second, "s"},
	{time.Minute, "min"},
	{time.Hour, "h"},
	{24 * time.Hour, "d"},
}

// IsZero reports whether the rate is no limit.
func (r Rate) IsZero() bool { return r.Count == 0 }

// PerSecond is the mean number of events per second; 0 for no limit.
func (r Rate) PerSecond() float64 {
	if r.Count <= 0 || r.Per <= 0 {
		return 0
	}
	return float64(r.Count) / r.Per.Seconds()
}

// String is the form that ParseRate reads: "100/s", "6000/min burst 50", "unlimited".
func (r Rate) String() string {
	if r.IsZero() {
		return "unlimited"
	}
	s := strconv.Itoa(r.Count) + "/" + perText(r.Per)
	if r.Burst > 1 {
		s += " burst " + strconv.Itoa(r.Burst)
	}
	return s
}

func perText(per time.Duration) string {
	for _, u := range rateUnits {
		if per == u.per {
			return u.name
		}
	}
	return durationText(per)
}

// ParseRate reads "COUNT/UNIT" with an optional " burst N", where UNIT is s,
// min, h, d or a duration such as 10s; "unlimited" is the zero Rate.
func ParseRate(s string) (Rate, error) {
	if s == "unlimited" {
		return Rate{}, nil
	}
	words := strings.Fields(s)
	if len(words) != 1 && (len(words) != 3 || words[1] != "burst") {
		return Rate{}, rateSyntax(s)
	}
	count, unit, ok := strings.Cut(words[0], "/")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n <= 0 {
		return Rate{}, rateSyntax(s)
	}
	r := Rate{Count: n}
	if r.Per, err = parsePer(unit); err != nil {
		return Rate{}, rateSyntax(s)
	}
	if len(words) == 3 {
		if r.Burst, err = strconv.Atoi(words[2]); err != nil || r.Burst < 1 {
			return Rate{}, rateSyntax(s)
		}
	}
	if r.Burst == 1 {
		r.Burst = 0 // one spelling of the same rate, so that equal rates compare equal
	}
	return r, r.Check()
}

func rateSyntax(s string) error {
	return fmt.Errorf(`%.40q is not a rate; write "100/s", "6000/min burst 50", "50000/h" or "unlimited"`, s)
}

func parsePer(unit string) (time.Duration, error) {
	for _, u := range rateUnits {
		if unit == u.name {
			return u.per, nil
		}
	}
	return time.ParseDuration(unit)
}

// Check reports whether the rate can be metered exactly: a period of at most
// 24 hours, at most a million events a second, and a burst of at most what the
// rate gives in 24 hours.
func (r Rate) Check() error {
	if r == (Rate{}) {
		return nil
	}
	if r.Count < 0 || r.Burst < 0 || r.Per <= 0 {
		return fmt.Errorf("rate of %d per %v, burst %d: count, period and burst must be positive", r.Count, r.Per, r.Burst)
	}
	if r.Per > maxRatePer {
		return fmt.Errorf("rate %v: the period must be at most %v", r, maxRatePer)
	}
	if r.Count == 0 || int64(r.Count) > int64(r.Per/minRateInterval) {
		return fmt.Errorf("rate %v: use 1/d to 1000000/s", r)
	}
	if int64(r.Burst) > int64(maxRateBurst)/r.interval() {
		return fmt.Errorf("rate %v: the burst is more than the rate gives in %v", r, maxRateBurst)
	}
	return nil
}

// quotaWindow is how much of a quota may pass at once: five seconds' worth, so
// that a receiver counting in any window sees rate x window and a handful.
const quotaWindow = 5 * time.Second

// HourlyRate is MessagesPerHour as it is metered: continuously, with a burst of
// five seconds' worth, at least one message. A receiver's ledger may check it.
func (l Limits) HourlyRate() Rate { return quotaRate(l.MessagesPerHour, time.Hour) }

// DailyRate is MessagesPerDay in the same way.
func (l Limits) DailyRate() Rate { return quotaRate(l.MessagesPerDay, 24*time.Hour) }

func quotaRate(n int, per time.Duration) Rate {
	if n <= 0 {
		return Rate{}
	}
	return Rate{Count: n, Per: per, Burst: int(max(1, int64(n)*int64(quotaWindow)/int64(per)))}
}

// interval is the time between two events in nanoseconds, rounded up so that
// the rate is never exceeded; 0 for no limit.
func (r Rate) interval() int64 {
	if r.Count <= 0 || r.Per <= 0 {
		return 0
	}
	return ceilDiv(int64(r.Per), int64(r.Count))
}

// ceilDiv divides positive numbers, rounding up.
func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 {
		q++
	}
	return q
}
