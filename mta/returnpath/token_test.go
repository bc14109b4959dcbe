package returnpath

import (
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func key(id byte) Key {
	k := Key{ID: id}
	for i := range k.Secret {
		k.Secret[i] = byte(i) ^ id
	}
	return k
}

func mustKeys(t testing.TB, current Key, older ...Key) *Keys {
	t.Helper()
	k, err := NewKeys(current, older...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func anyRef() *rapid.Generator[Ref] {
	return rapid.Custom(func(t *rapid.T) Ref {
		return Ref{
			Handover: rapid.Uint64().Draw(t, "handover"),
			Domain:   rapid.Uint32().Draw(t, "domain"),
			Lane:     rapid.Uint8().Draw(t, "lane"),
			Order:    rapid.Uint64().Draw(t, "order"),
			Delivery: rapid.Uint64().Draw(t, "delivery"),
		}
	})
}

var wellFormed = regexp.MustCompile(`^[a-z2-7]{1,63}$`)

func TestEveryRefComesBackInAnyCase(t *testing.T) {
	keys := mustKeys(t, key(1))
	rapid.Check(t, func(t *rapid.T) {
		ref := anyRef().Draw(t, "ref")
		token := keys.Token(ref)
		if !wellFormed.MatchString(token) {
			t.Fatalf("token %q of %+v", token, ref)
		}
		if again := keys.Token(ref); again != token {
			t.Fatalf("token changed from %q to %q", token, again)
		}
		for _, text := range []string{token, strings.ToUpper(token), strings.ToUpper(token[:5]) + token[5:]} {
			if got, err := keys.Parse(text); err != nil || got != ref {
				t.Fatalf("Parse(%q) = %+v, %v; want %+v", text, got, err, ref)
			}
		}
	})
}

func TestTheSmallestAndTheLargestRef(t *testing.T) {
	keys := mustKeys(t, key(1))
	for _, ref := range []Ref{
		{},
		{math.MaxUint64, math.MaxUint32, math.MaxUint8, math.MaxUint64, math.MaxUint64},
		{1 << 63, 0, 0, 1 << 63, 1 << 63},
		{1<<35 - 1, 1<<21 - 1, 127, 1<<28 - 1, 1<<35 - 1},
	} {
		token := keys.Token(ref)
		got, err := keys.Parse(token)
		if err != nil || got != ref || !wellFormed.MatchString(token) {
			t.Errorf("%+v: token %q (%d characters), back %+v, %v", ref, token, len(token), got, err)
		}
	}
}

func TestAnyFlippedBitIsRefused(t *testing.T) {
	keys := mustKeys(t, key(1), key(2))
	rapid.Check(t, func(t *rapid.T) {
		token := []byte(keys.Token(anyRef().Draw(t, "ref")))
		at := rapid.IntRange(0, len(token)-1).Draw(t, "at")
		bit := rapid.IntRange(0, 7).Draw(t, "bit")
		was := token[at]
		token[at] ^= 1 << bit
		if strings.EqualFold(string(was), string(token[at])) {
			t.Skip("only the case changed")
		}
		if ref, err := keys.Parse(string(token)); !errors.Is(err, ErrForged) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("octet %d of %q changed from %q: accepted as %+v", at, token, was, ref)
		}
	})
}

func TestAnyOtherCharacterIsRefused(t *testing.T) {
	keys := mustKeys(t, key(1))
	for _, ref := range []Ref{{1, 2, 3, 4, 5}, {math.MaxUint64, 7, 1, math.MaxUint64, math.MaxUint64}} {
		token := keys.Token(ref)
		for at := range token {
			for c := range 256 {
				changed := token[:at] + string([]byte{byte(c)}) + token[at+1:]
				if strings.EqualFold(changed, token) {
					continue
				}
				if got, err := keys.Parse(changed); err == nil {
					t.Fatalf("%q accepted as %+v", changed, got)
				}
			}
		}
	}
}

func TestAnOlderKeyIsStillAcceptedAndAForeignOneIsNot(t *testing.T) {
	wide := Ref{math.MaxUint64, 9, 1, math.MaxUint64, math.MaxUint64}
	for _, ref := range []Ref{{Handover: 7, Delivery: 9}, wide} {
		token := mustKeys(t, key(1)).Token(ref)
		if got, err := mustKeys(t, key(2), key(1)).Parse(token); err != nil || got != ref {
			t.Errorf("after rotation: %+v, %v", got, err)
		}
		if _, err := mustKeys(t, key(2)).Parse(token); !errors.Is(err, ErrForged) {
			t.Errorf("key gone: %v, want ErrForged", err)
		}
		sameID := key(1)
		sameID.Secret[0]++
		if _, err := mustKeys(t, sameID).Parse(token); !errors.Is(err, ErrForged) {
			t.Errorf("other secret under the same id: %v, want ErrForged", err)
		}
	}
}

func TestTextsThatNeverWereTokens(t *testing.T) {
	keys := mustKeys(t, key(1))
	for _, text := range []string{"", "a", "ada", "postmaster", strings.Repeat("a", 27), strings.Repeat("a", 62), strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 10000), "aeaqcaibaeaqcaib=", "a\r\nb"} {
		if ref, err := keys.Parse(text); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrForged) {
			t.Errorf("Parse(%.80q) = %+v, %v", text, ref, err)
		}
	}
}

func TestKeysAreChecked(t *testing.T) {
	many := make([]Key, MaxKeys)
	for i := range many {
		many[i] = key(byte(i + 1))
	}
	for name, err := range map[string]error{
		"id is given twice": second(NewKeys(key(1), key(1))),
		"is empty":          second(NewKeys(Key{ID: 1})),
		"keys given":        second(NewKeys(key(99), many...)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func second(_ *Keys, err error) error { return err }

func FuzzParse(f *testing.F) {
	keys, err := NewKeys(key(1), key(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(keys.Token(Ref{1, 2, 3, 4, 5}))
	f.Add(keys.Token(Ref{math.MaxUint64, 2, 3, math.MaxUint64, 5}))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := keys.Parse(text)
		if err == nil && !strings.EqualFold(keys.Token(ref), text) {
			t.Fatalf("%q accepted as %+v, whose token is %q", text, ref, keys.Token(ref))
		}
	})
}

func BenchmarkToken(b *testing.B) {
	keys := mustKeys(b, key(1))
	b.ReportAllocs()
	var buf []byte
	ref := Ref{Handover: 1 << 30, Domain: 1 << 16, Lane: 1, Order: 1 << 20, Delivery: 1 << 30}
	for b.Loop() {
		buf = keys.AppendToken(buf[:0], ref)
	}
}

func BenchmarkParse(b *testing.B) {
	keys := mustKeys(b, key(1))
	token := keys.Token(Ref{Handover: 1 << 30, Domain: 1 << 16, Lane: 1, Order: 1 << 20, Delivery: 1 << 30})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Parse(token); err != nil {
			b.Fatal(err)
		}
	}
}

// A Message-ID goes around in every answer and archive: who knows it does not know the
// return path.
func TestAMessageIDIsNoReturnPath(t *testing.T) {
	k, err := NewKeys(Key{ID: 3, Secret: [32]byte{7}})
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []Ref{{Handover: 1, Domain: 2, Order: 3, Delivery: 4}, {Handover: math.MaxUint64, Domain: math.MaxUint32, Lane: 255, Order: math.MaxUint64, Delivery: math.MaxUint64}} {
		path, id := k.Token(ref), k.MessageID(ref)
		if len(path) != len(id) || path == id {
			t.Errorf("return path %s, Message-ID %s", path, id)
		}
		if _, err := k.Parse(id); err != ErrForged {
			t.Errorf("a Message-ID as return path: %v", err)
		}
		for _, token := range []string{path, id} {
			if got, err := k.ParseAny(token); got != ref || err != nil {
				t.Errorf("%s: %+v, %v", token, got, err)
			}
		}
	}
}
