package inbound

import "strings"

// span is an address found in a text.
type span struct {
	address    string // in lower case
	start, end int    // with the angle brackets or quotes around it
}

// maxAddress is the longest address considered, in bytes: 64 + 1 + 255 (RFC 5321
// section 4.5.3.1), and room for signed and encoded local parts.
const maxAddress = 400

// findAddresses returns the addresses in a text in order, at most limit.
func findAddresses(text string, limit int) []span {
	var found []span
	for at := 0; at < len(text) && len(found) < limit; {
		i := strings.IndexByte(text[at:], '@')
		if i < 0 {
			break
		}
		i += at
		s, ok := addressAround(text, i, at)
		at = i + 1
		if ok {
			found = append(found, s)
			at = s.end
		}
	}
	return found
}

// addressAround returns the address whose @ stands at i, looking back no further than from.
func addressAround(text string, i, from int) (span, bool) {
	start := localStart(text, i, from)
	end := domainEnd(text, i+1)
	domain := text[i+1 : end]
	if start == i || !plausibleDomain(domain) || end-start > maxAddress {
		return span{}, false
	}
	s := span{strings.ToLower(text[start:end]), start, end}
	if start > 0 && end < len(text) && encloses(text[start-1], text[end]) {
		s.start, s.end = start-1, end+1
	}
	return s, true
}

func encloses(left, right byte) bool {
	switch left {
	case '<':
		return right == '>'
	case '"', '\'':
		return right == left
	case '(':
		return right == ')'
	case '[':
		return right == ']'
	}
	return false
}

// localStart returns where the local part ending at i begins. Inside angle
// brackets everything but a blank belongs to it; elsewhere ASCII atoms do, for
// in running text of other scripts the words before an address touch it.
func localStart(text string, i, from int) int {
	lowest := max(from, i-maxAddress)
	if i-1 > lowest && text[i-1] == '"' {
		if open := strings.LastIndexByte(text[lowest:i-1], '"'); open >= 0 {
			return lowest + open
		}
	}
	start := i
	for start > lowest && (isAtext(text[start-1]) || text[start-1] >= 0x80) {
		start--
	}
	if start == i || start > 0 && text[start-1] == '<' || text[i-1] >= 0x80 {
		return start
	}
	for k := i; k > start; k-- {
		if text[k-1] >= 0x80 {
			start = k
		}
	}
	for start < i && strings.IndexByte("'*/|`=.-", text[start]) >= 0 && !strings.HasPrefix(text[start:], "=?") {
		start++
	}
	return start
}

// isAtext reports whether c may stand in a dot-atom (RFC 5322 section 3.2.3).
func isAtext(c byte) bool {
	return isAlnum(c) || strings.IndexByte(".!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// domainEnd returns where the domain that begins at i ends.
func domainEnd(text string, i int) int {
	if i < len(text) && text[i] == '[' {
		if end := strings.IndexByte(text[i:min(len(text), i+60)], ']'); end >= 0 {
			return i + end + 1
		}
		return i
	}
	end := i
	for end < len(text) && (isAlnum(text[end]) || text[end] == '.' || text[end] == '-' || text[end] == '_') {
		end++
	}
	for end > i && !isAlnum(text[end-1]) {
		end--
	}
	return end
}

// plausibleDomain wants a dot and a letter, or an address literal: "user@host"
// in running text is more often something else.
func plausibleDomain(d string) bool {
	if strings.HasPrefix(d, "[") {
		return len(d) > 2
	}
	dot := strings.LastIndexByte(d, '.')
	return dot > 0 && dot < len(d)-1 && !strings.Contains(d, "..")
}

// firstAddress returns the first address in a header field, empty if there is none.
func firstAddress(value string) string {
	if open := strings.LastIndexByte(value, '<'); open >= 0 {
		if found := findAddresses(value[open:], 1); len(found) > 0 {
			return found[0].address
		}
	}
	if found := findAddresses(value, 1); len(found) > 0 {
		return found[0].address
	}
	return ""
}

// addresses returns all different addresses in the values, at most limit.
func addresses(values []string, limit int) []string {
	var all []string
	for _, v := range values {
		for _, s := range findAddresses(v, limit) {
			if len(all) < limit && !contains(all, s.address) {
				all = append(all, s.address)
			}
		}
	}
	return all
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// localPart is an address before its last @.
func localPart(address string) string {
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		return address[:i]
	}
	return address
}
