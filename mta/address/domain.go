package address

import (
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// ParseDomain reads the domain of a recipient or sender: at least two labels of
// letters, digits and inner hyphens, or the Unicode spelling of such a name,
// which it converts by IDNA2008 look-up rules (RFC 5891 section 5, mapped as
// UTS 46). It returns the name in lower case as A-labels, without a final dot.
// The error is an *Error.
func ParseDomain(s string) (string, error) {
	ascii, problem, remedy := parseDomain(s)
	if problem != "" {
		return "", &Error{Value: truncate(s), Problem: problem, Remedy: remedy}
	}
	return ascii, nil
}

func parseDomain(s string) (ascii, problem, remedy string) {
	switch {
	case s == "":
		return "", "has an empty domain", "give a domain such as example.com"
	case len(s) > maxInput:
		return "", "has a domain that is too long", "a domain has at most 253 octets"
	case s[0] == '[':
		return "", "has an address literal for a domain", "use a domain name; mail to bare IP addresses is not sent"
	case s[len(s)-1] == '.':
		return "", "has a domain with a final dot", "remove the dot"
	}
	ascii = s
	if !isASCII(s) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(s); err != nil {
			return "", "has a domain that is no valid internationalised name", "check its spelling, or give it in its xn-- form"
		}
	}
	ascii = strings.ToLower(ascii)
	return ascii, checkDomain(ascii), "check the spelling of the domain"
}

func checkDomain(d string) (problem string) {
	if len(d) > MaxDomain {
		return fmt.Sprintf("has a domain of %d octets, above 253", len(d))
	}
	labels, last := 0, ""
	for label := range strings.SplitSeq(d, ".") {
		if problem := checkLabel(label); problem != "" {
			return problem
		}
		labels, last = labels+1, label
	}
	switch {
	case labels < 2:
		return "has a domain without a dot"
	case strings.Trim(last, "0123456789") == "":
		return "has a domain whose last label is a number"
	}
	return ""
}

// checkLabel is the LDH rule of RFC 5890 section 2.3.1; a label that claims to
// be an A-label must also decode to a valid U-label.
func checkLabel(label string) (problem string) {
	switch {
	case label == "":
		return "has an empty label in its domain"
	case len(label) > MaxLabel:
		return fmt.Sprintf("has a domain label of %d octets, above 63", len(label))
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a domain label that begins or ends with a hyphen"
	}
	for i := range len(label) {
		if !isLDH(label[i]) {
			return fmt.Sprintf("has the character %q in its domain", label[i])
		}
	}
	if strings.HasPrefix(label, "xn--") {
		if again, err := idna.Lookup.ToASCII(label); err != nil || again != label {
			return fmt.Sprintf("has the domain label %q, which encodes no valid name", label)
		}
	}
	return ""
}

func isLDH(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}
