package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// policy is a parsed SPF record.
type policy struct {
	mechanisms []mechanism
	redirect   string // domain-spec; without effect where there is "all"
}

// mechanism is one of its terms.
type mechanism struct {
	text         string // as written
	name         string
	result       spfResult // of a match
	spec         string    // domain-spec; empty: this domain
	network      netip.Prefix
	bits4, bits6 int // prefix lengths of a and mx
}

var qualifiers = map[byte]spfResult{'+': spfPass, '-': spfFail, '~': spfSoftFail, '?': spfNeutral}

// parseSPF reads a record (RFC 7208 section 4.6 and 12). A mistake anywhere makes all of it void.
func parseSPF(text string) (*policy, error) {
	p := &policy{}
	seen := map[string]bool{}
	for _, term := range strings.Fields(text)[1:] {
		name, value, isModifier := cutModifier(term)
		if !isModifier {
			m, err := parseMechanism(term)
			if err != nil {
				return nil, err
			}
			p.mechanisms = append(p.mechanisms, m)
			continue
		}
		if name != "redirect" && name != "exp" {
			continue // unknown modifiers are passed over (section 6)
		}
		if seen[name] || value == "" {
			return nil, fmt.Errorf("%q is empty, or there twice", clip(term, 80))
		}
		seen[name] = true
		if name == "redirect" {
			p.redirect = value
		}
	}
	return p, nil
}

// cutModifier splits name=value. A mechanism has ":" or "/" before any "=".
func cutModifier(term string) (name, value string, ok bool) {
	i := strings.IndexAny(term, "=:/")
	if i <= 0 || term[i] != '=' {
		return "", "", false
	}
	return strings.ToLower(term[:i]), term[i+1:], true
}

func parseMechanism(term string) (m mechanism, err error) {
	m = mechanism{text: clip(term, 80), result: spfPass, bits4: 32, bits6: 128}
	rest := term
	if r, ok := qualifiers[rest[0]]; ok {
		m.result, rest = r, rest[1:]
	}
	end := strings.IndexAny(rest, ":/")
	if end < 0 {
		end = len(rest)
	}
	m.name = strings.ToLower(rest[:end])
	arg := rest[end:]
	switch m.name {
	case "all":
		if arg != "" {
			err = fmt.Errorf("%q: all takes nothing", m.text)
		}
	case "include", "exists":
		m.spec, err = m.domain(arg)
	case "ip4", "ip6":
		err = m.parseNetwork(arg)
	case "a", "mx", "ptr":
		err = m.parseHost(arg)
	default:
		err = fmt.Errorf("%q is no mechanism", m.text)
	}
	return m, err
}

// domain is the domain-spec that must be there.
func (m *mechanism) domain(arg string) (string, error) {
	if len(arg) < 2 || arg[0] != ':' {
		return "", fmt.Errorf("%q names no domain", m.text)
	}
	return arg[1:], nil
}

// parseHost reads [":" domain-spec] ["/" bits] ["//" bits].
func (m *mechanism) parseHost(arg string) (err error) {
	if strings.HasPrefix(arg, ":") {
		end := hostEnd(arg)
		if m.spec, err = m.domain(arg[:end]); err != nil {
			return err
		}
		arg = arg[end:]
	}
	if arg == "" {
		return nil
	}
	if m.name == "ptr" {
		return fmt.Errorf("%q: ptr takes no prefix length", m.text)
	}
	four, six, both := strings.Cut(arg, "//")
	if four != "" {
		if m.bits4, err = m.bits(strings.TrimPrefix(four, "/"), 32); err != nil {
			return err
		}
	}
	if both {
		m.bits6, err = m.bits(six, 128)
	}
	return err
}

// hostEnd is where a domain-spec ends: at the first slash outside of a macro.
func hostEnd(arg string) int {
	inside := false
	for i := range len(arg) {
		switch c := arg[i]; {
		case c == '{':
			inside = true
		case c == '}':
			inside = false
		case c == '/' && !inside:
			return i
		}
	}
	return len(arg)
}

func (m *mechanism) bits(text string, most int) (int, error) {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || int(n) > most {
		return 0, fmt.Errorf("%q has no prefix length from 0 to %d", m.text, most)
	}
	return int(n), nil
}

// parseNetwork reads the network of ip4 and ip6.
func (m *mechanism) parseNetwork(arg string) error {
	text := strings.TrimPrefix(arg, ":")
	bare, length, cut := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(bare)
	if err != nil || !strings.HasPrefix(arg, ":") || addr.Is4() != (m.name == "ip4") || addr.Zone() != "" {
		return fmt.Errorf("%q has no %s address", m.text, m.name)
	}
	bits := addr.BitLen()
	if cut {
		if bits, err = m.bits(length, bits); err != nil {
			return err
		}
	}
	m.network = netip.PrefixFrom(addr, bits)
	return nil
}

// expand replaces the macros of a domain-spec (RFC 7208 section 7).
func (s *sender) expand(spec, domain string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(spec); i++ {
		if spec[i] != '%' {
			out.WriteByte(spec[i])
			continue
		}
		i++
		switch {
		case i < len(spec) && spec[i] == '%':
			out.WriteByte('%')
		case i < len(spec) && spec[i] == '_':
			out.WriteByte(' ')
		case i < len(spec) && spec[i] == '-':
			out.WriteString("%20")
		case i < len(spec) && spec[i] == '{':
			end := strings.IndexByte(spec[i:], '}')
			if end < 0 {
				return "", permanent("%q: a macro does not end", clip(spec, 80))
			}
			value, err := s.macro(spec[i+1:i+end], domain)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			i += end
		default:
			return "", permanent("%q: a %% that begins no macro", clip(spec, 80))
		}
	}
	return fit(out.String()), nil
}

// fit drops labels from the left until the name is short enough (section 7.3).
func fit(name string) string {
	name = strings.TrimSuffix(name, ".")
	for len(name) > 253 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return name
		}
		name = rest
	}
	return name
}

// macro is the value of letter [digits] ["r"] [delimiters].
func (s *sender) macro(text, domain string) (string, error) {
	if text == "" {
		return "", permanent("an empty macro")
	}
	value, err := s.letter(text[0], domain)
	if err != nil {
		return "", err
	}
	rest := text[1:]
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	keep := 128
	if digits > 0 {
		if keep, err = strconv.Atoi(rest[:digits]); err != nil || keep == 0 {
			return "", permanent("%%{%s}: no number of labels", clip(text, 40))
		}
	}
	rest = rest[digits:]
	reverse := strings.HasPrefix(strings.ToLower(rest), "r")
	if reverse {
		rest = rest[1:]
	}
	if strings.Trim(rest, ".-+,/_=") != "" {
		return "", permanent("%%{%s} is no macro", clip(text, 40))
	}
	if rest == "" {
		rest = "."
	}
	parts := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(rest, r) })
	if reverse {
		slices.Reverse(parts)
	}
	return strings.Join(parts[max(0, len(parts)-keep):], "."), nil
}

func (s *sender) letter(c byte, domain string) (string, error) {
	switch c | 0x20 {
	case 'd':
		return domain, nil
	case 'o':
		return s.domain, nil
	case 'h':
		return s.helo, nil
	case 'v':
		if s.ip.Is4() {
			return "in-addr", nil
		}
		return "ip6", nil
	case 'i':
		return dotted(s.ip), nil
	case 's', 'l', 'p':
		return "", &spfError{spfUnknown, fmt.Sprintf("the policy of %s asks for %%{%c}, which differs from mail to mail", domain, c)}
	}
	return "", permanent("%%{%c} is no macro of a domain", c)
}

// dotted writes an address as the macro i: IPv6 by nibbles.
func dotted(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	reverse, err := dns.ReverseAddr(ip.String())
	if err != nil {
		return ip.String()
	}
	nibbles := strings.Split(strings.TrimSuffix(reverse, ".ip6.arpa."), ".")
	slices.Reverse(nibbles)
	return strings.Join(nibbles, ".")
}

// suggestSPF is a record that lets the sources pass: the one that is there with what is
// missing in front, or a new one.
func suggestSPF(existing string, missing []netip.Addr) string {
	terms := []string{"v=spf1"}
	for _, a := range missing {
		if a = a.Unmap(); a.Is4() {
			terms = append(terms, "ip4:"+a.String())
		} else {
			terms = append(terms, "ip6:"+a.String())
		}
	}
	if old := strings.Fields(existing); len(old) > 0 {
		return strings.Join(append(terms, old[1:]...), " ")
	}
	return strings.Join(append(terms, "-all"), " ")
}
