package compose

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/osteele/tuesday"
)

func dateFilters() []filter {
	return []filter{{"date", 0, 1, formatDate}}
}

// errClock refuses what would make two attempts of a message differ.
var errClock = errors.New("templates have no clock; send the date as a variable")

const defaultDate = "%a, %b %d, %y"

// wide finds field widths that would fill memory.
var wide = regexp.MustCompile(`%[-_^#0:]*[0-9]{3,}`)

// formatDate writes a date in the format of strftime, by default as Mon, Jan 02,
// 06. Dates are ISO 8601, RFC 5322 or written out in English, or seconds since
// 1970; without a zone they are UTC. What is no date stays as it is.
func formatDate(r *run, in any, args []any) (any, error) {
	format := r.text(argument(args, 0, defaultDate))
	if format == "" {
		format = defaultDate
	}
	if len(format) > 1024 || wide.MatchString(format) {
		return nil, fmt.Errorf("date format %q is too long; use at most 1024 characters and widths below 100", truncate(format, 40))
	}
	s := strings.TrimSpace(r.text(in))
	switch strings.ToLower(s) {
	case "now", "today":
		return nil, errClock
	case "":
		return in, nil
	}
	t, ok := parseDate(s)
	if !ok {
		return in, nil
	}
	return tuesday.Strftime(format, t)
}

var dateLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "20060102T150405Z07:00", "20060102",
	"2006-01-02 15:04:05.999999999 Z07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05 MST",
	"2006-01-02 15:04:05", "2006-01-02 15:04",
	"Mon, 2 Jan 2006 15:04:05 -0700", time.RFC1123, time.RFC850, time.ANSIC, time.UnixDate, time.RubyDate, time.RFC822, time.RFC822Z,
	"2 January 2006", "2 Jan 2006", "January 2, 2006", "January 2 2006", "Jan 2, 2006", "Jan 2 2006",
}

func parseDate(s string) (time.Time, bool) {
	if len(s) > 64 {
		return time.Time{}, false
	}
	for _, layout := range dateLayouts {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, true
		}
	}
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil && seconds > -1<<40 && seconds < 1<<40 {
		return time.Unix(seconds, 0).UTC(), true
	}
	return time.Time{}, false
}
