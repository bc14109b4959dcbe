package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAcceptsWhatCanBeMailed(t *testing.T) {
	for _, tc := range []struct {
		in, wire, folded string
		utf8             bool
	}{
		{"ada@example.com", "ada@example.com", "ada@example.com", false},
		{"Ada.Lovelace@Example.COM", "Ada.Lovelace@example.com", "ada.lovelace@example.com", false},
		{"a+tag=x!#$%&'*/?^_`{|}~-@x.co", "a+tag=x!#$%&'*/?^_`{|}~-@x.co", "a+tag=x!#$%&'*/?^_`{|}~-@x.co", false},
		{`"a@b..c"@example.com`, `"a@b..c"@example.com`, `"a@b..c"@example.com`, false},
		{`"a\"b\\"@example.com`, `"a\"b\\"@example.com`, `"a\"b\\"@example.com`, false},
		{"ada@b\u00fccher.example", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example", false},
		{"ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example", false},
		{"ada@\u4f8b\u5b50\u3002\u4e2d\u56fd", "ada@xn--fsqu00a.xn--fiqs8s", "ada@xn--fsqu00a.xn--fiqs8s", false},
		{"J\u00f6rg@example.de", "J\u00f6rg@example.de", "j\u00f6rg@example.de", true},
		{"ada@r3---sn.example.com", "ada@r3---sn.example.com", "ada@r3---sn.example.com", false},
		{"1@1.x1", "1@1.x1", "1@1.x1", false},
		{strings.Repeat("a", 64) + "@example.com", strings.Repeat("a", 64) + "@example.com", strings.Repeat("a", 64) + "@example.com", false},
	} {
		a, err := Parse(tc.in)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if a.String() != tc.wire || a.Folded() != tc.folded || a.UTF8 != tc.utf8 {
			t.Errorf("Parse(%q) = %q folded %q utf8 %v", tc.in, a, a.Folded(), a.UTF8)
		}
	}
}

func TestParseRefusesAndSaysWhy(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tc := range []struct{ in, problem string }{
		{"", "is empty"},
		{"ada", "has no @"},
		{"@example.com", "nothing before"},
		{"ada@", "nothing after"},
		{"a@b@example.com", "more than one @"},
		{"ada @example.com", "U+0020"},
		{" ada@example.com", "U+0020"},
		{"ada@example.com\r\nRCPT TO:<x@y.z>", "U+000D"},
		{"ada\n@example.com", "U+000A"},
		{"ada\x00@example.com", "U+0000"},
		{"ada\x7f@example.com", "U+007F"},
		{"<ada@example.com>", "U+003C"},
		{"ada@example.com>", "U+003E"},
		{`"a b"@example.com`, "U+0020"},
		{`"a>b"@example.com`, "U+003E"},
		{"ada\u00a0x@example.com", "U+00A0"},
		{"ada\u200b@example.com", "U+200B"},
		{"ada\u2028@example.com", "U+2028"},
		{"ada\xff@example.com", "not valid UTF-8"},
		{".ada@example.com", "dot at the edge"},
		{"ada.@example.com", "dot at the edge"},
		{"a..b@example.com", "two in a row"},
		{"a,b@example.com", `','`},
		{"a(b)@example.com", `'('`},
		{"a:b@example.com", `':'`},
		{`a"b@example.com`, `'"'`},
		{`"ab@example.com`, "quoted local part"},
		{`"ab"c@example.com`, "quoted local part"},
		{`"ab\"@example.com`, "quoted local part"},
		{"J\u0075\u0308rg@example.de", "normalisation form C"},
		{long + "a@example.com", "65 octets"},
		{"ada@localhost", "without a dot"},
		{"ada@example.com.", "final dot"},
		{"ada@.example.com", "empty label"},
		{"ada@example..com", "empty label"},
		{"ada@-example.com", "hyphen"},
		{"ada@example-.com", "hyphen"},
		{"ada@exa_mple.com", `'_'`},
		{"ada@example.123", "is a number"},
		{"ada@192.0.2.1", "is a number"},
		{"ada@[192.0.2.1]", "address literal"},
		{"ada@[IPv6:2001:db8::1]", "address literal"},
		{"ada@" + long + ".com", "64 octets"},
		{"ada@" + strings.Repeat("abcdefghi.", 25) + "abcd", "254 octets"},
		{"ada@xn--zz--zz--zz.example", "encodes no valid name"},
		{"ada@xn--.example", "hyphen"},
		{"ada@b\u00fccher_x.example", "internationalised"},
		{"ada@" + strings.Repeat("x", 5000) + ".com", "octets long"},
	} {
		a, err := Parse(tc.in)
		var refused *Error
		if !errors.As(err, &refused) {
			t.Errorf("Parse(%q) = %q, %v", tc.in, a, err)
			continue
		}
		if !strings.Contains(err.Error(), tc.problem) || refused.Remedy == "" || len(err.Error()) > 500 {
			t.Errorf("Parse(%q): %v; want %q", tc.in, err, tc.problem)
		}
	}
}

func TestTwoSpellingsOfOneMailboxFoldTogether(t *testing.T) {
	for _, pair := range [][2]string{
		{"Ada@Example.com", "ada@EXAMPLE.COM"},
		{"ada@b\u00fccher.example", "ADA@xn--bcher-kva.EXAMPLE"},
		{"ada@B\u00dcCHER.example", "ada@b\u00fccher.example"},
	} {
		a, err1 := Parse(pair[0])
		b, err2 := Parse(pair[1])
		if err1 != nil || err2 != nil || a.Folded() != b.Folded() {
			t.Errorf("%q and %q: %q, %q (%v, %v)", pair[0], pair[1], a.Folded(), b.Folded(), err1, err2)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ada@example.com", `"a@b"@example.com`, "j\u00f6rg@b\u00fccher.example", "a@[1.2.3.4]", "a@b", "a@xn--bcher-kva.de",
		"a@\u4f8b\u5b50\u3002\u4e2d\u56fd", "a@x.\u0661", "\"\\\"@\"@x.com", "a@\u00df.de", "a@fa\u00df.de", "a@\u200dx.com", "a@xn--zca.de",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		wire := a.String()
		if strings.ContainsAny(wire, " <>\r\n\x00\t") || len(a.Local) > MaxLocal || len(a.Domain) > MaxDomain {
			t.Fatalf("accepted %q as %q", s, wire)
		}
		again, err := Parse(wire)
		if err != nil || again != a {
			t.Fatalf("%q parsed to %q, which parses to %q (%v)", s, wire, again, err)
		}
		if folded, err := Parse(a.Folded()); err == nil && folded.Folded() != a.Folded() {
			t.Fatalf("%q folds to %q and then to %q", s, a.Folded(), folded.Folded())
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, in := range []string{"ada.lovelace+news@mail.example.com", "ada@b\u00fccher.example"} {
		b.Run(in[:4], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
