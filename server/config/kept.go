package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const day = 24 * time.Hour

// lateReturns is how long behind a message bounce mails and complaints about it come
// back: up to a week.
const lateReturns = 8 * day

// leastPeriod is the shortest time that something is kept, leastEvents the least room
// for events, longestPeriod the longest time: ten years.
const (
	leastPeriod   = time.Minute
	longestPeriod = 3650 * day
	leastEvents   = 1 << 20
)

// checkKept judges the limits of the disk and of what is kept.
func (p *parser) checkKept(c *Config) {
	s, r := &c.Storage, &c.Retention
	if s.MinFreeSending > s.MinFree {
		if p.lines["storage.min_free_sending"] == 0 && s.MinFree >= 0 {
			s.MinFreeSending = s.MinFree / 2 // only min_free was given
		} else {
			p.errorf(p.line("storage.min_free_sending"), "storage.min_free_sending: %s is more than storage.min_free (%s); taking in must stop first: give the same or less",
				SizeText(s.MinFreeSending), SizeText(s.MinFree))
		}
	}
	if r.EventsSize != 0 && r.EventsSize < leastEvents {
		p.errorf(p.line("retention.events_size"), "retention.events_size: %s is out of range; use %s or more, or 0 for no limit", SizeText(r.EventsSize), SizeText(leastEvents))
	}
	if r.Messages != 0 && r.Messages < lateReturns {
		c.Warnings = append(c.Warnings, fmt.Sprintf("retention.messages: bounce mails and complaints come up to a week late, and those about messages removed after %v find nothing; keep them 8d or more", r.Messages))
	}
}

// sizeUnits are the endings of sizes; one without is in octets.
var sizeUnits = []struct {
	name   string
	octets int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// size reads a number of octets, like 512MiB or 1.5GB.
func (p *parser) size(to *int64) reader {
	return func(path string, n *yaml.Node) {
		if !p.scalar(path, "a size like 512MiB", n, "!!str", "!!int", "!!float") {
			return
		}
		v, err := parseSize(n.Value)
		if err != nil {
			p.errorf(n.Line, "%s: %v", path, err)
			return
		}
		*to = v
	}
}

func parseSize(s string) (int64, error) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if v *= float64(u.octets); err != nil || !(v >= 0) || v >= math.MaxInt64/2 {
			break
		}
		return int64(v), nil
	}
	return 0, fmt.Errorf("%.40q is no size; write octets or a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB, for example 512MiB", s)
}

// SizeText shows a number of octets in the largest binary unit that it is a whole number of.
func SizeText(n int64) string {
	for _, u := range []int{3, 2, 1, 0} {
		if unit := sizeUnits[u]; n != 0 && n%unit.octets == 0 {
			return strconv.FormatInt(n/unit.octets, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// period reads a time span, like 30d, 12h or 1h30m; 0 stands for "for ever".
func (p *parser) period(to *time.Duration) reader {
	return func(path string, n *yaml.Node) {
		if !p.scalar(path, "a time span like 30d", n, "!!str", "!!int") {
			return
		}
		v, err := parsePeriod(n.Value)
		if err != nil {
			p.errorf(n.Line, "%s: %v", path, err)
			return
		}
		*to = v
	}
}

func parsePeriod(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	v, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		if !(n >= 0 && n <= longestPeriod.Hours()/24) {
			n = -1 // also what is no number
		}
		v = time.Duration(n * float64(day))
	}
	if err != nil || v < leastPeriod || v > longestPeriod {
		return 0, fmt.Errorf("%.40q is no time span of %v to 3650d; write for example 30d, 36h or 1h30m, or 0 to keep for ever", s, leastPeriod)
	}
	return v, nil
}
