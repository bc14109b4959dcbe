package unsubscribe

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/returnpath"
)

// alphabet is every character of a token.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func key(id uint16, fill byte) Key {
	k := Key{ID: id}
	for i := range k.Secret {
		k.Secret[i] = fill + byte(i)
	}
	return k
}

func keys(t testing.TB, list ...Key) *Keys {
	t.Helper()
	k, err := New(list...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, k *Keys, c Claim) string {
	t.Helper()
	token, err := k.Seal(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claim is an ordinary one.
var claim = Claim{
	Address: "ada@brand.example", Tenant: "default", List: "news.brand.example", Delivery: "spring",
	Message: returnpath.Ref{Handover: 7, Domain: 3, Lane: 1, Order: 123456, Delivery: 9},
}

func TestATokenSaysWhatWasSealed(t *testing.T) {
	k := keys(t, key(1, 7), key(300, 9))
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string, most int) string {
			return rapid.StringOfN(rapid.Rune(), 0, most, most).Draw(t, label)
		}
		c := Claim{
			Address: text("address", 318), Tenant: text("tenant", 63), List: text("list", 255), Delivery: text("delivery", 63),
			Message: returnpath.Ref{
				Handover: rapid.Uint64().Draw(t, "handover"), Domain: rapid.Uint32().Draw(t, "domain"), Lane: rapid.Uint8().Draw(t, "lane"),
				Order: rapid.Uint64().Draw(t, "order"), Delivery: rapid.Uint64().Draw(t, "delivery number"),
			},
		}
		token, err := k.Seal(c)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := k.Seal(c); again != token {
			t.Fatalf("the same claim gives %s and %s", token, again)
		}
		if strings.Trim(token, alphabet) != "" || strings.Trim(token, "-_") != token {
			t.Fatalf("%q cannot stand in a link", token)
		}
		if got, err := k.Open(token); err != nil || got != c {
			t.Fatalf("%v, %v, want %v", got, err, c)
		}
	})
}

// A link in a mail that is years old must still open, so the form never changes under its version.
func TestTheFormOfTokensStays(t *testing.T) {
	k := keys(t, key(258, 1))
	for _, c := range []struct {
		claim Claim
		token string
	}{
		{claim, goldenFull},
		{Claim{Address: "ada@brand.example", Tenant: "default"}, goldenShort},
	} {
		if got := seal(t, k, c.claim); got != c.token {
			t.Errorf("%+v seals to %s, want %s", c.claim, got, c.token)
		}
		if got, err := k.Open(c.token); err != nil || got != c.claim {
			t.Errorf("%s opens to %+v, %v", c.token, got, err)
		}
	}
}

func TestEveryChangedCharacterIsNoticed(t *testing.T) {
	k := keys(t, key(1, 1), key(2, 2))
	for _, c := range []Claim{claim, {Address: "a@b.example"}, {Address: "ab@b.example"}} {
		token := seal(t, k, c)
		for i := range token {
			for _, other := range alphabet + "=\n+/" {
				changed := token[:i] + string(other) + token[i+1:]
				if changed == token {
					continue
				}
				if _, err := k.Open(changed); err != ErrInvalid {
					t.Fatalf("%s with %q at %d: %v", token, other, i, err)
				}
			}
			if _, err := k.Open(token[:i]); err != ErrInvalid {
				t.Fatalf("%s cut to %d: %v", token, i, err)
			}
			if _, err := k.Open(token[:i] + "\r\n" + token[i:]); err != ErrInvalid {
				t.Fatalf("%s with a line end at %d: %v", token, i, err)
			}
		}
		for _, other := range []string{
			strings.ToUpper(token), strings.ToLower(token), token + "A", token + "=", " " + token, token + token, "A" + token, token + ".",
		} {
			if _, err := k.Open(other); err != ErrInvalid {
				t.Fatalf("%q: %v", other, err)
			}
		}
	}
}

func TestNothingOfTheClaimCanBeRead(t *testing.T) {
	k := keys(t, key(1, 1))
	token := seal(t, k, claim)
	raw, ok := decode(token)
	if !ok || strings.Contains(string(raw), "ada") || strings.Contains(string(raw), "example") {
		t.Errorf("%q", raw)
	}
	other := claim
	other.Address = "adb@brand.example"
	different := seal(t, k, other)
	if different[4:12] == token[4:12] || different[40:48] == token[40:48] {
		t.Errorf("tokens of like claims are alike: %s and %s", token, different)
	}
}

func TestKeysAreReplaced(t *testing.T) {
	first, second := keys(t, key(1, 1)), keys(t, key(1, 1), key(2, 2))
	old := seal(t, first, claim)
	recent := seal(t, second, claim)
	if old == recent {
		t.Error("a new key makes the same token")
	}
	for _, token := range []string{old, recent} {
		if got, err := second.Open(token); err != nil || got != claim {
			t.Errorf("%s: %v, %v", token, got, err)
		}
	}
	if _, err := first.Open(recent); err != ErrInvalid {
		t.Errorf("a token of an unknown key: %v", err)
	}
	if _, err := keys(t, key(1, 3)).Open(old); err != ErrInvalid {
		t.Errorf("a token of another node's key with the same id: %v", err)
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	for name, list := range map[string][]Key{
		"none": nil, "twice": {key(1, 1), key(1, 2)}, "empty": {{ID: 4}}, "too many": make([]Key, MaxKeys+1),
	} {
		if k, err := New(list...); err == nil || k != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClaimsThatAreTooLong(t *testing.T) {
	k := keys(t, key(1, 1))
	if _, err := k.Seal(Claim{Address: strings.Repeat("x", MaxToken)}); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	largest := Claim{
		Address: strings.Repeat("x", 318), Tenant: strings.Repeat("x", 63), List: strings.Repeat("x", 255), Delivery: strings.Repeat("x", 63),
		Message: returnpath.Ref{Handover: math.MaxUint64, Domain: math.MaxUint32, Lane: math.MaxUint8, Order: math.MaxUint64, Delivery: math.MaxUint64},
	}
	if got, err := k.Open(seal(t, k, largest)); err != nil || got != largest {
		t.Error(err)
	}
}

func TestKeysAreUsedByMany(t *testing.T) {
	k := keys(t, key(1, 1))
	want := seal(t, k, claim)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				if got, err := k.Seal(claim); err != nil || got != want {
					t.Errorf("%s, %v", got, err)
				}
				if got, err := k.Open(want); err != nil || got != claim {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

func FuzzOpen(f *testing.F) {
	k := keys(f, key(1, 1), key(2, 2))
	token := seal(f, k, claim)
	for _, seed := range []string{token, token[:len(token)-1], strings.ToUpper(token), "", "A", "AQAB", "AQAC" + strings.Repeat("A", 30), token + "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := k.Open(text)
		if err != nil {
			if err != ErrInvalid || c != (Claim{}) {
				t.Fatalf("%v, %v", c, err)
			}
			return
		}
		if again, err := k.Seal(c); err != nil || again != text && text != seal(t, keys(t, key(2, 2), key(1, 1)), c) {
			t.Fatalf("%q opens to %+v, which seals to %q, %v", text, c, again, err)
		}
	})
}

// FuzzReadClaim reads what only a key's owner can write: it must not panic either.
func FuzzReadClaim(f *testing.F) {
	f.Add(claim.append(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readClaim(b)
		if err != nil {
			return
		}
		if again, err := readClaim(c.append(nil)); err != nil || again != c {
			t.Fatalf("%+v, %v, want %+v", again, err, c)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k := keys(b, key(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Seal(claim); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	k := keys(b, key(1, 1))
	token := seal(b, k, claim)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(token); err != nil {
			b.Fatal(err)
		}
	}
}

const (
	goldenFull  = "AQEC5dMdzZgUUvDd30K6QMv-l66Mu-75KnS6p0CxxX6yy2SDn3f4S6yhynpyoKkVl_TzaiaJ5voHSTL-LOilsJ6wEll9FanaHIkusR0HlA"
	goldenShort = "AQECKFpglIYNRpmcLqqumzcCvWcdYF38A3Oqdy9RXvLD3KliMcvTnkok60RejkjK-xADnQ"
)
