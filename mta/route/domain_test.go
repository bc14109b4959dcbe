package route

import (
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	longest := strings.Repeat(label63+".", 3) + strings.Repeat("b", 61)
	for in, want := range map[string]string{
		"example.com":        "example.com",
		"Example.COM.":       "example.com",
		"xn--bcher-kva.de":   "xn--bcher-kva.de",
		"a-b.3com.example":   "a-b.3com.example",
		"1.2.3.4.example":    "1.2.3.4.example",
		"ai":                 "ai",
		"localhost.example":  "localhost.example",
		longest:              longest,
		longest + ".":        longest,
		label63 + ".example": label63 + ".example",
	} {
		if got, err := Normalize(in); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"":                        "empty",
		".":                       "empty",
		"a..b":                    "empty label",
		".a":                      "empty label",
		"a.b..":                   "empty label",
		"-a.example":              "hyphen",
		"a-.example":              "hyphen",
		"a_b.example":             "'_'",
		"a b.example":             "' '",
		"a\x00.example":           `'\x00'`,
		"a\r\n.example":           `'\r'`,
		"bücher.example":          "A-labels",
		"a@b.example":             "'@'",
		label63 + "a.example":     "64 octets",
		longest + "b":             "254 octets",
		"[192.0.2.1]":             "address literals",
		"[IPv6:2001:db8::1]":      "address literals",
		"192.0.2.1":               "IP address",
		"example.123":             "IP address",
		"localhost":               "localhost",
		"LocalHost.":              "localhost",
		"mail.localhost":          "localhost",
		strings.Repeat("a.", 1e6): "octets",
	} {
		if got, err := Normalize(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Normalize(%.40q) = %.40q, %v; want an error with %q", in, got, err, want)
		}
	}
}

func TestOrganizationalDomain(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":                       "example.com",
		"a.b.example.com":                   "example.com",
		"a.example.co.uk":                   "example.co.uk",
		"co.uk":                             "co.uk",
		"com":                               "com",
		"mx1.google.test":                   "google.test",
		"x-com.mail.protection.outlook.com": "outlook.com",
		"":                                  "",
	} {
		if got := OrganizationalDomain(in); got != want {
			t.Errorf("OrganizationalDomain(%q) = %q, want %q", in, got, want)
		}
	}
}
