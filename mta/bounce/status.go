package bounce

import (
	"strconv"
	"strings"

	"github.com/veredus/veredus/mta/smtpc"
)

// status is an enhanced status code, RFC 3463.
type status struct {
	class, subject, detail uint16
}

// String returns the code as "5.1.1".
func (s status) String() string {
	return strconv.Itoa(int(s.class)) + "." + strconv.Itoa(int(s.subject)) + "." + strconv.Itoa(int(s.detail))
}

// parseStatus reads "x.y.z" with x one of 2, 4 and 5 and at most three digits in the others.
func parseStatus(s string) (status, bool) {
	if len(s) < 5 || len(s) > 9 || s[1] != '.' || s[0] != '2' && s[0] != '4' && s[0] != '5' {
		return status{}, false
	}
	st := status{class: uint16(s[0] - '0')}
	dot := strings.IndexByte(s[2:], '.')
	if dot < 0 {
		return status{}, false
	}
	subject, ok1 := threeDigits(s[2 : 2+dot])
	detail, ok2 := threeDigits(s[3+dot:])
	st.subject, st.detail = subject, detail
	return st, ok1 && ok2
}

func threeDigits(s string) (n uint16, ok bool) {
	if len(s) > 3 || !isDigits(s) {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		n = n*10 + uint16(s[i]-'0')
	}
	return n, true
}

// statusPattern is a condition on the enhanced code: "5.7.1", "x.7.1", "5.7.*".
type statusPattern struct {
	class, subject, detail int // -1 matches any
}

func parseStatusPattern(s string) (statusPattern, bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return statusPattern{}, false
	}
	var v [3]int
	for i, p := range parts {
		if p == "x" || p == "*" {
			v[i] = -1
			continue
		}
		n, ok := threeDigits(p)
		if !ok {
			return statusPattern{}, false
		}
		v[i] = int(n)
	}
	return statusPattern{v[0], v[1], v[2]}, v[0] == -1 || v[0] == 2 || v[0] == 4 || v[0] == 5
}

func (p statusPattern) matches(s status) bool {
	return s.class != 0 && (p.class < 0 || p.class == int(s.class)) &&
		(p.subject < 0 || p.subject == int(s.subject)) && (p.detail < 0 || p.detail == int(s.detail))
}

// statusMeaning is one row of the registry: the tags a code stands for when the
// text is silent.
type statusMeaning struct {
	subject, detail uint16
	temporary       string // tag for a 4xx reply
	permanent       string // tag for a 5xx reply
	// weak codes are also used for other things; they count where a strong one suppresses.
	weak bool
}

// statusTable is the IANA registry of enhanced status codes (RFC 3463 and its
// successors) without those that carry no meaning alone: x.0.0, x.1.0, x.1.9,
// x.2.0, x.3.0, x.4.0, x.5.0, x.7.0 and x.7.1 are used for anything.
var statusTable = []statusMeaning{
	{1, 1, "user_unknown", "user_unknown", false},
	{1, 2, "temp", "domain_unknown", false},
	{1, 3, "temp", "user_unknown", false},
	{1, 4, "temp", "user_unknown", true},
	{1, 6, "temp", "moved", false},
	{1, 7, "sender_invalid", "sender_invalid", false},
	{1, 8, "sender_invalid", "sender_invalid", false},
	{1, 10, "temp", "null_mx", false},
	{2, 1, "mailbox_locked", "mailbox_locked", true}, // also said for refusals: only the text suppresses
	{2, 2, "mailbox_full", "mailbox_full", false},
	{2, 3, "too_large", "too_large", false},
	{2, 4, "temp", "system_error", false},
	{3, 1, "temp", "system_error", false},
	{3, 2, "temp", "system_error", false},
	{3, 3, "protocol", "protocol", false},
	{3, 4, "too_large", "too_large", false},
	{3, 5, "system_error", "system_error", false},
	{4, 1, "network", "network", false},
	{4, 2, "network", "network", false},
	{4, 3, "temp", "system_error", false},
	{4, 4, "dns", "dns", false},
	{4, 5, "rate_limit", "rate_limit", false},
	{4, 6, "loop", "loop", false},
	{4, 7, "network", "timeout", false},
	{5, 1, "protocol", "protocol", false},
	{5, 2, "protocol", "protocol", false},
	{5, 3, "rate_limit", "rate_limit", false},
	{5, 4, "protocol", "protocol", false},
	{5, 5, "protocol", "protocol", false},
	{5, 6, "protocol", "protocol", false},
	{6, 0, "rfc", "rfc", false},
	{6, 1, "rfc", "rfc", false},
	{6, 2, "rfc", "rfc", false},
	{6, 3, "rfc", "rfc", false},
	{6, 5, "rfc", "rfc", false},
	{6, 6, "system_error", "system_error", false},
	{6, 7, "protocol", "protocol", false},
	{6, 8, "protocol", "protocol", false},
	{6, 9, "protocol", "protocol", false},
	{6, 10, "protocol", "protocol", false},
	{7, 2, "recipient_refused", "recipient_refused", false},
	{7, 3, "tls", "tls", false},
	{7, 4, "tls", "tls", false},
	{7, 5, "auth", "auth", false},
	{7, 6, "tls", "tls", false},
	{7, 7, "auth", "auth", false},
	{7, 8, "policy", "policy", false},
	{7, 9, "policy", "policy", false},
	{7, 10, "tls", "tls", false},
	{7, 11, "tls", "tls", false},
	{7, 12, "policy", "policy", false},
	{7, 13, "mailbox_locked", "mailbox_locked", true}, // RFC 5248 means the account that logged in
	{7, 14, "policy", "policy", false},
	{7, 15, "policy", "policy", false},
	{7, 16, "too_large", "too_large", false},
	{7, 17, "user_unknown", "user_unknown", false},
	{7, 18, "domain_unknown", "domain_unknown", false},
	{7, 19, "temp", "temp", false},
	{7, 20, "auth", "auth", false},
	{7, 21, "auth", "auth", false},
	{7, 22, "auth", "auth", false},
	{7, 23, "auth", "auth", false},
	{7, 24, "auth", "auth", false},
	{7, 25, "ptr", "ptr", false},
	{7, 26, "auth", "auth", false},
	{7, 27, "sender_invalid", "sender_invalid", false},
	{7, 28, "reputation", "reputation", false},
	{7, 29, "auth", "auth", false},
	{7, 30, "tls", "tls", false},
}

// ParseReply reads a reply as it stands in logs and on command lines,
// "550 5.1.1 User unknown", also with several lines. What does not begin with a
// reply code becomes a reply without one.
func ParseReply(line string) smtpc.Reply {
	line = strings.TrimSpace(line)
	code, rest := cutCode(line)
	if code == 0 {
		return smtpc.Reply{Text: line}
	}
	r := smtpc.Reply{Code: code}
	lines := strings.Split(rest, "\n")
	for i, l := range lines {
		l = strings.TrimSpace(l)
		if c, more := cutCode(l); i > 0 && c == code {
			l = more
		}
		if st, more := cutStatus(l); st != "" {
			if r.Enhanced == "" && i == 0 {
				r.Enhanced = st
			}
			if r.Enhanced == st {
				l = more
			}
		}
		lines[i] = l
	}
	r.Text = strings.Join(lines, "\n")
	return r
}

// cutCode splits "550 text" and "550-text".
func cutCode(s string) (int, string) {
	if len(s) < 3 || !isDigits(s[:3]) || s[0] < '2' || s[0] > '5' || len(s) > 3 && isAlnum(s[3]) {
		return 0, s
	}
	code, err := strconv.Atoi(s[:3])
	if err != nil {
		return 0, s
	}
	if rest := s[3:]; rest != "" && (rest[0] == '-' || rest[0] == ' ') {
		return code, strings.TrimLeft(rest[1:], " ")
	}
	return code, s[3:]
}

// cutStatus splits "5.1.1 text" and "#5.1.1 text".
func cutStatus(s string) (string, string) {
	t := strings.TrimPrefix(s, "#")
	end := 0
	for end < len(t) && (isDigit(t[end]) || t[end] == '.') {
		end++
	}
	if _, ok := parseStatus(t[:end]); !ok || end < len(t) && t[end] != ' ' && t[end] != ':' && t[end] != '\t' {
		return "", s
	}
	return t[:end], strings.TrimLeft(t[end:], " :\t")
}
