package dkim

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"
)

// msgauth signs with go-msgauth, which shares no code with our signing.
func msgauth(t interface{ Fatal(...any) }, k *Key, message []byte, names []string) []byte {
	var out bytes.Buffer
	err := dkim.Sign(&out, bytes.NewReader(message), &dkim.SignOptions{
		Domain: k.Domain, Selector: k.Selector, Signer: k.Signer, Hash: crypto.SHA256,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		HeaderKeys: names,
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// blankSigner makes signatures of the usual size at no cost.
type blankSigner struct{ crypto.Signer }

var blank = make([]byte, 256)

func (blankSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return blank, nil }

var bodyHashTag = regexp.MustCompile(`bh=([^;]*);`)

// bodyHashes returns the values of the bh= tags.
func bodyHashes(signed []byte) (list []string) {
	for _, m := range bodyHashTag.FindAllSubmatch(signed, -1) {
		list = append(list, string(m[1]))
	}
	return list
}

// pieces are what bodies and header values are made of: all that canonicalisation
// looks at, and words around the eight octets that are judged at once.
var pieces = []string{
	" ", "  ", "\t", " \t ", "\r\n", "\r\n\r\n", " \r\n", "\t\r\n", "\r\n ", "\r\n\r\n\r\n\r\n",
	"a", "word", "eight888", "a!b", "!", "\x00", "\x1f", "\x0b", "\x7f", "\xc3\xbc", "\xff", ".", "--boundary",
	"a b c d e f g h", "seven77 ", "6six66  six", strings.Repeat("x", 76), strings.Repeat("=20 long ", 300), strings.Repeat("y", 1023), strings.Repeat("\r\n", 700),
}

var bodyGenerator = rapid.Custom(func(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 30).Draw(t, "body"), "")
})

// headerGenerator makes header blocks with one From field, other fields any number
// of times, in odd but legal dress.
var headerGenerator = rapid.Custom(func(t *rapid.T) string {
	names := []string{"To", "subject", "DATE", "Reply-To", "reply-to", "Message-ID", "MIME-Version", "Content-Type", "List-Unsubscribe", "List-Id", "X-Mailer", "X", "Received", "DKIM-Signature", "Fromage"}
	space := rapid.SampledFrom([]string{"", " ", "\t", "  ", " \t", "\r\n ", "\r\n\t", "\r\n \r\n  ", " \r\n "})
	word := rapid.SampledFrom([]string{"a", "Gr\xc3\xbc\xc3\x9fe", "<b@c.example>", ":", "x;y=z", "\x0b", "\xff", strings.Repeat("long", 50)})
	one := func(name string) string {
		var b strings.Builder
		b.WriteString(name + rapid.SampledFrom([]string{"", " ", "\t "}).Draw(t, "before the colon") + ":")
		for range rapid.IntRange(0, 5).Draw(t, "words") {
			b.WriteString(space.Draw(t, "space") + word.Draw(t, "word"))
		}
		return b.String() + space.Draw(t, "last") + "\r\n"
	}
	list := []string{one("From")}
	for range rapid.IntRange(0, 15).Draw(t, "fields") {
		at := rapid.IntRange(0, len(list)).Draw(t, "at")
		list = slices.Insert(list, at, one(rapid.SampledFrom(names).Draw(t, "name")))
	}
	return strings.Join(list, "")
})

// Our signature fields are those of go-msgauth, octet by octet.
func TestSignaturesAreThoseOfGoMsgauth(t *testing.T) {
	r, e := newKey(t, "example.com", "r1", rsa1024()), newKey(t, "example.com", "a.selector.that-is-so-long-that-its-line-is-folded", edKey())
	kr := newKeyring(t, r, e)
	rapid.Check(t, func(rt *rapid.T) {
		top, body := headerGenerator.Draw(rt, "header"), bodyGenerator.Draw(rt, "body")
		message := []byte(top + "\r\n" + body)
		var f fields
		if _, _, err := f.read([]byte(top)); err != nil {
			rt.Fatal(err)
		}
		names, err := f.appendNames(nil)
		if err != nil {
			rt.Fatal(err)
		}
		want, now := []byte("before"), time.Time{}
		for _, k := range []*Key{r, e} {
			signed := msgauth(rt, k, message, strings.Split(string(names), ":"))
			if at := timeOf(signed); k == e && !at.Equal(now) {
				rt.Skip("a second ended between two signatures")
			} else {
				now = at
			}
			want = append(want, bytes.TrimSuffix(signed, message)...)
		}

		h := NewBodyHash()
		h.Write([]byte(body))
		end := rapid.SampledFrom([]string{"", "\r\n"}).Draw(rt, "empty line")
		got, err := kr.SignHeader([]byte("before"), []byte(top+end), h.Sum(), "example.com", now)
		if err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("error %v\ngot  %q\nwant %q", err, got, want)
		}

		whole, err := kr.Sign(message, "example.com")
		if err != nil {
			rt.Fatal(err)
		}
		h.Reset()
		h.Write([]byte(body))
		want, err = kr.SignHeader(nil, []byte(top), h.Sum(), "example.com", timeOf(whole))
		if want = append(want, message...); err != nil || !bytes.Equal(whole, want) {
			rt.Fatalf("Sign: error %v\ngot  %q\nwant %q", err, whole, want)
		}
	})
}

var timeTag = regexp.MustCompile(` t=([0-9]+);`)

// timeOf returns the t= tag of the topmost signature.
func timeOf(signed []byte) time.Time {
	return time.Unix(must(strconv.ParseInt(string(timeTag.FindSubmatch(signed)[1]), 10, 64)), 0)
}

// Bodies hash alike however they are cut, and wherever a copy goes on.
func TestBodyHashTakesAnyPieces(t *testing.T) {
	k := newKey(t, "example.com", "r1", blankSigner{rsa1024()})
	rapid.Check(t, func(rt *rapid.T) {
		body := []byte(bodyGenerator.Draw(rt, "body"))
		h, other := NewBodyHash(), NewBodyHash()
		other.Write([]byte("something  else\r\n "))
		for rest := body; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "cut")
			h.Write(rest[:n])
			rest = rest[n:]
			if rapid.Bool().Draw(rt, "copy") {
				other.CopyFrom(h)
				h.Write([]byte("  this copy\r\nis of no use"))
				h, other = other, h
			}
		}
		checkHash(rt, k, h, body)
		h.Reset()
		h.Write(body)
		checkHash(rt, k, h, body)
	})
}

// checkHash compares with the bh= tag of go-msgauth.
func checkHash(t rapid.TB, k *Key, h *BodyHash, body []byte) {
	t.Helper()
	if err := h.Err(); err != nil {
		t.Fatal(err)
	}
	sum := h.Sum()
	got := base64.StdEncoding.EncodeToString(sum[:])
	want := bodyHashes(msgauth(t, k, append([]byte("From: a\r\n\r\n"), body...), []string{"From"}))
	if got != want[0] {
		t.Fatalf("hash %s, want %s, of %q", got, want[0], body)
	}
}

func FuzzBodyHash(f *testing.F) {
	for _, body := range bodies {
		f.Add([]byte(body), uint64(1))
	}
	f.Add([]byte(strings.Join(pieces, "")), uint64(2))
	f.Add([]byte("a\rb"), uint64(3))
	k := must(NewKey("example.com", "r1", blankSigner{rsa1024()}))
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		h := NewBodyHash()
		for rest := body; len(rest) > 0; {
			n := 1 + random.IntN(len(rest))
			h.Write(rest[:n])
			rest = rest[n:]
		}
		err := h.Err()
		if lone := checkLineEnds(body); (err == nil) != (lone == nil) {
			t.Fatalf("Err says %v of a body that has %v", err, lone)
		}
		if err == nil {
			checkHash(t, k, h, body)
		}
	})
}

func TestBodyHashNotesLoneLineEnds(t *testing.T) {
	for body, want := range map[string]string{
		"a\rb": "octet 1;", "a\nb": "octet 1;", "a\r\r\n": "octet 1;", "\n": "octet 0;", "a\r\n\r": "octet 3,", "\r \n": "octet 0;", "a\r\n": "", "": "",
	} {
		for cut := range len(body) + 1 {
			h := NewBodyHash()
			h.Write([]byte(body[:cut]))
			h.Write([]byte(body[cut:]))
			if err := h.Err(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%q cut at %d: %v, want %q", body, cut, err, want)
			}
		}
	}
}

func TestSignHeaderRefusesWhatSignDoes(t *testing.T) {
	kr := newKeyring(t, newKey(t, "example.com", "r1", rsa1024()))
	for name, c := range map[string]struct{ header, want string }{
		"empty":       {"", "0 From fields"},
		"two Froms":   {"From: a\r\nFROM: b\r\n", "2 From fields"},
		"a body":      {"From: a\r\n\r\nHello\r\n", "7 octets stand behind"},
		"no last end": {"From: a", "has no end"},
		"bare LF":     {"From: a\nTo: b\r\n", "octet 7"},
		"odd name":    {"From: a\r\nSubj ect: b\r\n", "line 2"},
		"empty name":  {"From: a\r\n: b\r\n", "line 2"},
		"name in 8":   {"From: a\r\n\xc5\xbfubject: b\r\n", "line 2"},
	} {
		if _, err := kr.SignHeader(nil, []byte(c.header), [32]byte{}, "example.com", time.Now()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// Signing a message needs no memory but its result and what the key makes.
func TestSigningAllocatesLittle(t *testing.T) {
	kr := newKeyring(t, newKey(t, "example.com", "r1", blankSigner{rsa1024()}))
	message := []byte(header + bodies["long"])
	top, begin, h := []byte(header), NewBodyHash(), NewBodyHash()
	begin.Write([]byte("Dear"))
	dst, now := make([]byte, 0, 2048), time.Unix(1, 0)
	if n := testing.AllocsPerRun(100, func() {
		h.CopyFrom(begin)
		h.Write(message)
		dst, _ = kr.SignHeader(dst[:0], top, h.Sum(), "example.com", now)
	}); n > 3 && !raced {
		t.Errorf("%v allocations", n)
	}
}
