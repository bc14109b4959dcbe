package bounce

import (
	"strings"
	"time"
)

const (
	// minDelay and maxDelay bound what a receiver's named delay is honoured for.
	minDelay = time.Minute
	maxDelay = 12 * time.Hour
	// delayReach is how far before its number the word that makes it a delay may stand.
	delayReach = 40
	// maxDelayText bounds the text searched for a delay.
	maxDelayText = 1024
)

// delayWords make a period that follows them a delay to wait, and not the
// window of a limit ("100 messages in 60 minutes").
var delayWords = []string{
	"again", "retry", "wait", "back", "resend", "delay", "greylist", "graylist", "grey-list", "gray-list", "reconnect", "blocked for", "defer",
	"erneut", "warten", "spaeter", "später", "reessay", "réessay", "attendre", "nouveau", "riprov", "attendere", "reintent", "nuevo", "tente", "novamente",
	"opnieuw", "ponown", "повтор", "через", "稍后", "重试", "再試行", "後に",
}

// namedDelay returns the delay a reply names, within 1 min and 12 h; 0 when it names none.
func namedDelay(text string) time.Duration {
	if len(text) > maxDelayText {
		text = text[:maxDelayText]
	}
	for i := 0; i < len(text); i++ {
		if !isDigit(text[i]) || i > 0 && (isAlnum(text[i-1]) || text[i-1] == '.' || text[i-1] == ':') {
			continue
		}
		if d := periodAt(text, i); d > 0 && hasDelayWord(text[max(0, i-delayReach):i]) {
			return min(max(d, minDelay), maxDelay)
		}
	}
	return 0
}

// hasDelayWord looks for a delay word without regard to ASCII case.
func hasDelayWord(s string) bool {
	s = strings.ToLower(s)
	for _, w := range delayWords {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// periodAt reads "300 seconds", "5min", "1 hour", "00:04:56" at i, and a bare
// number of seconds behind "retry-after"; 0 when there is no period.
func periodAt(text string, i int) time.Duration {
	n, end := number(text, i)
	if end < len(text) && text[end] == ':' {
		return clockAt(n, text, end)
	}
	j := end
	for j < len(text) && j < end+2 && (text[j] == ' ' || text[j] == '-') {
		j++
	}
	if unit := unitAt(text[j:]); unit > 0 {
		return time.Duration(n) * unit
	}
	before := strings.ToLower(text[max(0, i-14):i])
	if strings.Contains(before, "retryafter") || strings.Contains(before, "retry-after") || strings.Contains(before, "retry_after") {
		return time.Duration(n) * time.Second
	}
	return 0
}

// number reads up to six digits.
func number(text string, i int) (n, end int) {
	for end = i; end < len(text) && isDigit(text[end]); end++ {
		if end-i < 6 {
			n = n*10 + int(text[end]-'0')
		}
	}
	return n, end
}

// clockAt reads the rest of "hh:mm:ss" or "mm:ss".
func clockAt(first int, text string, end int) time.Duration {
	second, end2 := number(text, end+1)
	if end2 == end+1 || second > 59 {
		return 0
	}
	if end2 >= len(text) || text[end2] != ':' {
		return time.Duration(first)*time.Minute + time.Duration(second)*time.Second
	}
	third, end3 := number(text, end2+1)
	if end3 == end2+1 || third > 59 || first > 99 {
		return 0
	}
	return time.Duration(first)*time.Hour + time.Duration(second)*time.Minute + time.Duration(third)*time.Second
}

// units by their beginning, in several languages; the first that fits decides.
var units = []struct {
	prefix string
	whole  bool // the word ends here
	unit   time.Duration
}{
	{"sec", false, time.Second},
	{"sek", false, time.Second},
	{"segundo", false, time.Second},
	{"second", false, time.Second},
	{"сек", false, time.Second},
	{"秒", false, time.Second},
	{"s", true, time.Second},
	{"min", false, time.Minute},
	{"мин", false, time.Minute},
	{"分", false, time.Minute},
	{"m", true, time.Minute},
	{"hour", false, time.Hour},
	{"heure", false, time.Hour},
	{"hora", false, time.Hour},
	{"stunde", false, time.Hour},
	{"godzin", false, time.Hour},
	{"uur", false, time.Hour},
	{"час", false, time.Hour},
	{"小时", false, time.Hour},
	{"時間", false, time.Hour},
	{"ora", true, time.Hour},
	{"ore", true, time.Hour},
	{"hr", true, time.Hour},
	{"hrs", true, time.Hour},
	{"h", true, time.Hour},
}

// unitAt returns the unit that s begins with, 0 for none.
func unitAt(s string) time.Duration {
	for _, u := range units {
		if len(s) < len(u.prefix) || !strings.EqualFold(s[:len(u.prefix)], u.prefix) {
			continue
		}
		rest := s[len(u.prefix):]
		if u.whole && (rest == "" || !isAlnum(rest[0])) || !u.whole && endsAsWord(rest) {
			return u.unit
		}
	}
	return 0
}

// endsAsWord reports whether the rest of a word has letters only: an identifier of a
// mail, "2MIN7EO3", names no time.
func endsAsWord(rest string) bool {
	for i := 0; i < len(rest) && isAlnum(rest[i]); i++ {
		if isDigit(rest[i]) || i > maxUnitRest {
			return false
		}
	}
	return true
}

// maxUnitRest is the longest ending of a unit, as in "segundo(s)" or "stunde(n)".
const maxUnitRest = 6
