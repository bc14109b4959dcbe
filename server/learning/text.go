package learning

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

const (
	// maxReply caps the text that is kept of a reply, in octets.
	maxReply = 2 << 10
	// maxProviders is how many providers of a text are told apart.
	maxProviders = 10
	// other stands for no known provider, and for those beyond maxProviders.
	other = "other"
)

// String is the id as it stands in resource names: 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// parseID is the inverse of String.
func parseID(s string) (id ID, ok bool) {
	if len(s) != 2*len(id) || strings.ToLower(s) != s {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

func idOf(normalised string) ID {
	sum := sha256.Sum256([]byte(normalised))
	return ID(sum[:])
}

// newText is a text said once; ok is false for a reply without words, which
// nobody can qualify.
func newText(reply smtpc.Reply, provider string, at time.Time) (t Text, ok bool) {
	reply.Text = capReply(reply.Text)
	normalised := bounce.Normalise(reply.Text)
	if normalised == "" {
		return t, false
	}
	return Text{
		ID: idOf(normalised), Normalised: normalised, First: reply, Count: 1,
		Providers: map[string]int64{providerKey(provider): 1}, FirstTime: at, LastTime: at,
	}, true
}

// capReply cuts a reply at maxReply and makes it UTF-8. What is not UTF-8 is read
// as Latin-1, as the rules read it.
func capReply(text string) string {
	if len(text) <= maxReply && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 {
			r = rune(text[i])
		}
		if b.Len()+utf8.RuneLen(r) > maxReply {
			break
		}
		b.WriteRune(r)
		i += size
	}
	return b.String()
}

// isCut reports whether the reply may have gone on behind what was kept of it.
func (t *Text) isCut() bool { return len(t.First.Text) > maxReply-utf8.UTFMax }

func providerKey(provider string) string {
	if provider == "" {
		return other
	}
	return provider
}

// add counts what was said again.
func (t *Text) add(u *Text) {
	t.Count += u.Count
	for name, n := range u.Providers {
		if _, known := t.Providers[name]; !known && len(t.Providers) >= maxProviders {
			name = other
		}
		t.Providers[name] += n
	}
	if u.LastTime.After(t.LastTime) {
		t.LastTime = u.LastTime
	}
}

// providers are the names, most frequent first.
func (t *Text) providers() []string {
	return slices.SortedFunc(maps.Keys(t.Providers), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.Providers[b], t.Providers[a]), cmp.Compare(a, b))
	})
}

// input is the first reply as the rules take it: said by the provider that says it most.
func (t *Text) input() bounce.Input {
	in := bounce.Input{Reply: t.First}
	if names := t.providers(); len(names) > 0 && names[0] != other {
		in.Provider = names[0]
	}
	return in
}

// statusBy is what became of the text under the rules that give v.
func (t *Text) statusBy(v bounce.Verdict) Status {
	switch {
	case t.Status != 0:
		return t.Status
	case strings.HasPrefix(v.Rule, "iana:"), strings.HasPrefix(v.Rule, "class:"):
		return ToQualify
	}
	return Keep
}

// before orders texts by how often they were said, most often first.
func before(countA int64, a ID, countB int64, b ID) bool {
	return countA > countB || countA == countB && bytes.Compare(a[:], b[:]) < 0
}
