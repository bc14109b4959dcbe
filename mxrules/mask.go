package mxrules

import "fmt"

// Mask is a pattern on a host or domain name: a name, or a name with wildcards,
// where * stands for any characters, dots too, and ? for one. Letter case and
// one trailing dot do not matter. "*.google.com" does not match "google.com".
type Mask string

// Check reports whether the mask can be matched against names.
func (m Mask) Check() error {
	if m == "" || len(m) > 253 {
		return fmt.Errorf("mask %.40q must have 1 to 253 characters", string(m))
	}
	for i := range len(m) {
		if !maskByte(m[i]) {
			return fmt.Errorf(`mask %.40q has %q; use letters, digits, ".", "-", "_", "*" and "?" (international names as xn-- labels)`, string(m), m[i])
		}
	}
	return nil
}

func maskByte(c byte) bool {
	return nameByte(c) || c == '*' || c == '?'
}

func nameByte(c byte) bool {
	c = lower(c)
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// Match reports whether the whole name matches. It does not allocate, and its
// time is bounded by the product of the two lengths.
func (m Mask) Match(name string) bool {
	p, s := trimDot(string(m)), trimDot(name)
	pi, si := 0, 0
	star, mark := -1, 0 // the last star, and where its text ends so far
	for si < len(s) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, si
			pi++
		case pi < len(p) && (p[pi] == '?' || lower(p[pi]) == lower(s[si])):
			pi++
			si++
		case star >= 0:
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

func trimDot(s string) string {
	if len(s) > 0 && s[len(s)-1] == '.' {
		return s[:len(s)-1]
	}
	return s
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// hasSuffixFold reports whether s ends in suffix, ignoring ASCII case.
func hasSuffixFold(s, suffix string) bool {
	if len(s) < len(suffix) {
		return false
	}
	s = s[len(s)-len(suffix):]
	for i := range len(s) {
		if lower(s[i]) != lower(suffix[i]) {
			return false
		}
	}
	return true
}
