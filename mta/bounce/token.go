package bounce

import "strings"

// isDigits reports a non-empty string of ASCII digits.
func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// isLetters reports a non-empty string of ASCII letters.
func isLetters(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isLetter(s[i]) {
			return false
		}
	}
	return s != ""
}

// isErrorCode reports the shape of receivers' own codes: one to eight letters,
// one to six digits ("ts04", "s3140", "hm08").
func isErrorCode(s string) bool {
	i := 0
	for i < len(s) && isLetter(s[i]) {
		i++
	}
	n := len(s) - i
	return i >= 1 && i <= 8 && n >= 1 && n <= 6 && isDigits(s[i:])
}

// isBits reports "8bit", "7bit" and "8bitmime", words in spite of their digit.
func isBits(s string) bool {
	return len(s) >= 4 && len(s) <= 8 && isDigit(s[0]) && strings.EqualFold(s[1:4], "bit") && isLetters(s[1:])
}

// isQuantity reports digits with a short unit: "100mb", "30s", "5min".
func isQuantity(s string) bool {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	if i == 0 || len(s)-i > 5 || !isLetters(s[i:]) {
		return false
	}
	switch strings.ToLower(s[i:]) {
	case "b", "k", "m", "g", "kb", "mb", "gb", "kib", "mib", "gib", "s", "sec", "secs", "ms", "min", "mins", "h", "hr", "hrs", "d", "st", "nd", "rd", "th":
		return true
	}
	return false
}

// isStatus reports an enhanced status code, RFC 3463 section 2.
func isStatus(s string) bool {
	_, ok := parseStatus(s)
	return ok
}

// isIPv4 reports a dotted quad.
func isIPv4(s string) bool {
	parts, digits, value := 1, 0, 0
	for i := 0; i < len(s); i++ {
		switch {
		case isDigit(s[i]):
			digits++
			value = value*10 + int(s[i]-'0')
			if digits > 3 || value > 255 {
				return false
			}
		case s[i] == '.' && digits > 0:
			parts++
			digits, value = 0, 0
		default:
			return false
		}
	}
	return parts == 4 && digits > 0
}

// isIPv6 reports hexadecimal groups with at least two colons that are no time.
func isIPv6(s string) bool {
	if len(s) > 5 && strings.EqualFold(s[:5], "ipv6:") {
		s = s[5:]
	}
	colons, groups, size := 0, 1, 0
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		switch {
		case s[i] == ':':
			colons++
			groups++
			size = 0
		case isDigit(s[i]) || c >= 'a' && c <= 'f':
			size++
			if size > 4 {
				return false
			}
		default:
			return false
		}
	}
	return colons >= 3 && groups <= 9 || colons == 2 && strings.Contains(s, "::")
}

// isTime reports clock times and dates in digits: 12:34:56, 2026-01-31, 31/01/2026, 2026-01-31t12:34:56z.
func isTime(s string) bool {
	if s == "" || !isDigit(s[0]) {
		return false
	}
	colons, dashes, run := 0, 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isDigit(c):
			run++
			if run > 4 && colons+dashes < 2 {
				return false
			}
		case c == ':':
			colons++
			run = 0
		case c == '-' || c == '/':
			dashes++
			run = 0
		case c == '.' || c == '+' || c|0x20 == 't' || c|0x20 == 'z':
			run = 0
			if colons+dashes < 2 {
				return false
			}
		default:
			return false
		}
	}
	clock := colons >= 1 && colons <= 3 && len(s) >= 4 && s[len(s)-1] != ':'
	return dashes == 0 && clock && (colons > 1 || len(s) == 5 || len(s) == 4) || dashes >= 2
}

// isHost reports a host name: at least two labels of letters, digits and
// hyphens, the last one a plausible top-level domain. Sentences that lack the
// space after a full stop must not pass.
func isHost(s string) bool {
	labels, last, letters := 1, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.':
			if i == last {
				return false
			}
			labels++
			last = i + 1
		case isLetter(c):
			letters = true
		case !isDigit(c) && c != '-' && c != '_':
			return false
		}
	}
	return labels >= 2 && letters && isTopLevel(s[last:], labels)
}

// isTopLevel reports whether tld ends host names of so many labels.
func isTopLevel(tld string, labels int) bool {
	if !isLetters(tld) || len(tld) > 12 {
		return false
	}
	var buf [12]byte
	t := appendRaw(buf[:0], tld)
	if len(t) == 2 {
		switch string(t) {
		case "is", "it", "in", "to", "me", "be", "no", "at", "so", "my", "us", "as", "by", "do", "am", "an", "if", "or", "on", "of", "we":
			return labels >= 3
		}
		return true
	}
	return topLevels[string(t)]
}

var topLevels = setOf("com net org edu gov mil int info biz name pro aero coop museum arpa example test local localdomain invalid localhost lan internal intra home corp " +
	"email cloud online shop site xyz dev app club top store tech space website live news blog work life world agency digital group mobi asia cat jobs tel travel xxx " +
	"berlin hamburg koeln wien paris bzh swiss london nyc ltd gmbh media network systems solutions services support center company link click page one vip ")

func setOf(words string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// sites are names that carry meaning: block lists, reputation services and
// providers' error pages. Their hosts and pages are not masked.
var sites = setOf("spamhaus spamcop barracudacentral barracudanetworks barracuda sorbs surbl uribl senderscore senderbase talosintelligence cloudmark " +
	"trendmicro mail-abuse fortiguard fortinet njabl dsbl abuseat uceprotect backscatterer mailspike invaluement abusix psbl spfbl " +
	"spamrats sem backscatter dnswl manitu gbudb rfc-ignorant ahbl orbitrbl dynablock dnsbl nixspam proofpoint ironport " +
	"messagelabs symanteccloud symantec sophos mimecast returnpath validity cyren commtouch spamexperts spameatingmonkey hostkarma junkemailfilter " +
	"google gmail yahoo aol verizonmedia yahooinc live outlook microsoft office365 apple icloud comcast cox charter spectrum att rr earthlink " +
	"secureserver godaddy qq 163 netease naver gmx web t-online orange wanadoo laposte free sfr ovh 1und1 ionos strato zoho protonmail yandex mail " +
	"openspf dmarc linuxmagic hetrixtools blocklist spfwizard kundenserver emailsrvr rackspace amazonses titan mailchannels improvmx facebook")

// genericSites are second-level names that are too common to identify a site
// except under the given top-level domain.
var genericSites = map[string]string{"live": "com", "web": "de", "mail": "ru", "free": "fr", "one": "com", "sem": "net", "charter": "net", "validity": "com", "blocklist": "de", "163": "com", "titan": "email", "apple": "com", "orange": "fr"}

// knownSite returns the registrable name of host when it is one of sites.
func knownSite(host string) string {
	end := len(host)
	dot := strings.LastIndexByte(host[:end], '.')
	if dot <= 0 {
		return ""
	}
	prev := strings.LastIndexByte(host[:dot], '.')
	sld, tld := host[prev+1:dot], host[dot+1:]
	if len(tld) == 2 && (sld == "co" || sld == "com") && prev > 0 {
		dot, prev = prev, strings.LastIndexByte(host[:prev], '.')
		sld, tld = host[prev+1:dot], ""
	}
	sld = lowerString(sld)
	if !sites[sld] || strings.IndexByte(host[prev+1:], '_') >= 0 {
		return ""
	}
	if want, generic := genericSites[sld]; generic && want != lowerString(tld) {
		return ""
	}
	return lowerString(host[prev+1:])
}

// lowerString lowers ASCII and allocates only when there is something to lower.
func lowerString(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
