package route

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

const (
	maxName  = 253 // octets of a name in text form, RFC 1035 section 2.3.4
	maxLabel = 63  // octets of a label, RFC 1035 section 2.3.4
)

// Normalize returns domain in lower case and without a trailing dot, after
// checking that it is a domain mail may be addressed to: letters, digits and
// hyphens (RFC 5321 section 2.3.5; internationalised names as A-labels, RFC
// 5890), labels of 1 to 63 octets, 253 octets in all. Address literals, IP
// addresses and localhost (RFC 6761 section 6.3) are refused: none of them is a
// question for the DNS. Single labels pass, since some top-level domains and
// closed networks receive mail.
func Normalize(domain string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(domain, "."))
	if strings.HasPrefix(name, "[") {
		return "", errors.New("address literals are not supported; use a domain name")
	}
	if err := checkName(name, false); err != nil {
		return "", err
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if last == "localhost" {
		return "", errors.New("localhost names only this machine; use a domain that others can resolve")
	}
	if strings.Trim(last, "0123456789") == "" {
		return "", errors.New("the last label is a number, as in an IP address; use a domain name")
	}
	return name, nil
}

// normalizeName does the same for a name that is no mail domain.
func normalizeName(name string) (string, error) {
	plain := strings.ToLower(strings.TrimSuffix(name, "."))
	return plain, checkName(plain, true)
}

// checkName checks a lower-case name without trailing dot. Mail hosts and TXT
// names may hold underscores; recipient domains may not.
func checkName(name string, underscore bool) error {
	if name == "" {
		return errors.New("it is empty; give a domain name")
	}
	if len(name) > maxName {
		return fmt.Errorf("it has %d octets; at most %d are allowed", len(name), maxName)
	}
	for rest, more := name, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if err := checkLabel(label, underscore); err != nil {
			return err
		}
	}
	return nil
}

func checkLabel(label string, underscore bool) error {
	switch {
	case label == "":
		return errors.New("it has an empty label; remove the surplus dot")
	case len(label) > maxLabel:
		return fmt.Errorf("a label has %d octets; at most %d are allowed", len(label), maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q begins or ends with a hyphen", label)
	}
	for i := range len(label) {
		if !isNameByte(label[i], underscore) {
			return fmt.Errorf("label %q holds %q; only letters, digits and hyphens are allowed (write international names as A-labels, xn--...)", label, label[i])
		}
	}
	return nil
}

func isNameByte(c byte, underscore bool) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || underscore && c == '_'
}

// OrganizationalDomain returns the registrable domain of a lower-case domain by
// the public suffix list (the organisational domain of RFC 7489 section 3.2):
// example.co.uk for a.b.example.co.uk. A public suffix or a single label is its
// own organisational domain.
func OrganizationalDomain(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}
