package dkim

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Key pairs are slow to make, so tests share them.
var (
	rsa1024 = sync.OnceValue(func() crypto.Signer { return must(GenerateRSA(1024)) })
	rsa2048 = sync.OnceValue(func() crypto.Signer { return must(GenerateRSA(2048)) })
	edKey   = sync.OnceValue(func() crypto.Signer { return must(GenerateEd25519()) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey(t testing.TB, domain, selector string, signer crypto.Signer) *Key {
	t.Helper()
	k, err := NewKey(domain, selector, signer)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newKeyring(t testing.TB, keys ...*Key) *Keyring {
	t.Helper()
	kr, err := NewKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	return kr
}

// zone answers TXT look-ups with the records of keys.
func zone(keys ...*Key) func(string) ([]string, error) {
	return func(name string) ([]string, error) {
		for _, k := range keys {
			if RecordName(k) == name {
				return []string{Record(k)}, nil
			}
		}
		return nil, errors.New("no such record")
	}
}

const header = "From: Ana <ana@news.example.com>\r\n" +
	"To: bo@example.net\r\n" +
	"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
	"Date: Mon, 02 Jan 2006 15:04:05 -0700\r\n" +
	"Message-ID: <1@news.example.com>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/alternative;\r\n boundary=\"b\"\r\n" +
	"List-Unsubscribe: <https://news.example.com/u?x=1>\r\n" +
	"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" +
	"Feedback-ID: spring:default:bulk:news\r\n" +
	"X-Mailer: none\r\n\r\n"

// bodies are what canonicalisation stumbles over.
var bodies = map[string]string{
	"plain":             "Hello.\r\n",
	"empty":             "",
	"one empty line":    "\r\n",
	"empty lines":       "\r\n\r\n\r\n",
	"trailing empties":  "Hello.\r\n\r\n\r\n",
	"no final line end": "Hello.",
	"white space":       "  a \t b \r\n \t\r\n\tc\r\n",
	"only white space":  " \t \r\n  \r\n",
	"dots":              ".\r\n..\r\n.a\r\n",
	"eight bit":         "Gr\xc3\xbc\xc3\x9fe \xff\r\n",
	"long":              strings.Repeat("All work and no play makes a dull test.\r\n", 3000),
}

func TestSignedMailVerifies(t *testing.T) {
	rsaKey, ed := newKey(t, "example.com", "r1", rsa2048()), newKey(t, "example.com", "e1", edKey())
	kr := newKeyring(t, ed, rsaKey)
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			message := []byte(header + body)
			signed, err := kr.Sign(message, "news.example.com")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasSuffix(signed, message) {
				t.Error("signing changed the message")
			}
			verdicts, err := Verify(signed, zone(rsaKey, ed))
			if err != nil || len(verdicts) != 2 {
				t.Fatalf("%d verdicts, error %v, want 2", len(verdicts), err)
			}
			for i, v := range verdicts {
				if v.Result != Pass || v.Domain != "example.com" || v.Time.IsZero() {
					t.Errorf("signature %d: %+v", i, v)
				}
			}
		})
	}
}

func TestSignaturesAreOrderedAndRelaxed(t *testing.T) {
	kr := newKeyring(t, newKey(t, "example.com", "e1", edKey()), newKey(t, "example.com", "r1", rsa1024()))
	signed, err := kr.Sign([]byte(header+"Hi\r\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	added, _, _ := bytes.Cut(signed, []byte("From: Ana"))
	first, second, _ := strings.Cut(string(added[1:]), "DKIM-Signature:")
	for i, want := range []struct{ field, tag string }{{first, "a=rsa-sha256;"}, {second, "a=ed25519-sha256;"}} {
		for _, tag := range []string{want.tag, "c=relaxed/relaxed;", "d=example.com;", "t="} {
			if !strings.Contains(want.field, tag) {
				t.Errorf("signature %d has no %s: %s", i, tag, want.field)
			}
		}
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(added), "\r\n"), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("line of %d octets: %q", len(line), line)
		}
	}
}

func TestTheHeaderListCoversWhatItShould(t *testing.T) {
	var f fields
	if _, _, err := f.read([]byte(header)); err != nil {
		t.Fatal(err)
	}
	names, err := f.appendNames(nil)
	if err != nil {
		t.Fatal(err)
	}
	list, want := strings.Split(string(names), ":"), strings.Fields("From From To To Subject Subject Date Date Reply-To Message-ID MIME-Version Content-Type List-Unsubscribe List-Unsubscribe-Post Feedback-ID")
	if !slices.Equal(list, want) {
		t.Errorf("got  %v\nwant %v", list, want)
	}
}

func TestTamperingBreaksTheSignature(t *testing.T) {
	k := newKey(t, "example.com", "r1", rsa1024())
	kr := newKeyring(t, k, newKey(t, "example.com", "e1", edKey()))
	signed, err := kr.Sign([]byte(header+"Pay Ana 10 euros.\r\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	for name, change := range map[string]func(string) string{
		"body":                  replace("10 euros", "90 euros"),
		"subject":               replace("Subject: ", "Subject: Re: "),
		"unsubscribe":           replace("u?x=1", "u?x=2"),
		"one-click":             replace("One-Click", "Two-Clicks"),
		"feedback id":           replace("spring", "summer"),
		"From added on top":     func(s string) string { return "From: eve@example.org\r\n" + s },
		"From added at the end": replace("X-Mailer", "From: eve@example.org\r\nX-Mailer"),
		"Subject added":         func(s string) string { return "Subject: You won\r\n" + s },
		"To added":              func(s string) string { return "To: all@example.org\r\n" + s },
		"Reply-To added":        func(s string) string { return "Reply-To: eve@example.org\r\n" + s },
	} {
		t.Run(name, func(t *testing.T) {
			changed := change(string(signed))
			if changed == string(signed) {
				t.Fatal("the change changed nothing")
			}
			verdicts, err := Verify([]byte(changed), zone(kr.Find("example.com")...))
			if err != nil || len(verdicts) != 2 {
				t.Fatalf("%d verdicts, error %v", len(verdicts), err)
			}
			for _, v := range verdicts {
				if v.Result != Fail {
					t.Errorf("result %s (%v), want fail", v.Result, v.Err)
				}
			}
		})
	}
	unsigned := strings.Replace(string(signed), "X-Mailer: none", "X-Mailer: other", 1)
	if v, err := Verify([]byte(unsigned), zone(k)); err != nil || v[0].Result != Pass {
		t.Errorf("a change to an unsigned field broke the signature: %v %v", v, err)
	}
}

func TestUnsignableMailIsRefused(t *testing.T) {
	kr := newKeyring(t, newKey(t, "example.com", "r1", rsa1024()))
	for name, c := range map[string]struct{ message, want string }{
		"empty":        {"", "empty line"},
		"no body mark": {"From: a@example.com\r\n", "empty line"},
		"no From":      {"To: a@example.com\r\n\r\n", "0 From fields"},
		"two Froms":    {"From: a@example.com\r\nfrom : b@example.com\r\n\r\n", "2 From fields"},
		"bare LF":      {"From: a@example.com\nTo: b@example.com\r\n\r\n", "octet 19"},
		"bare CR":      {"From: a@example.com\r\n\r\nx\ry\r\n", "octet 24"},
		"CR at end":    {"From: a@example.com\r\n\r\nx\r", "octet 24"},
		"LF CR":        {"From: a@example.com\r\n\r\nx\n\r", "octet 24"},
		"no colon":     {"From: a@example.com\r\nHello\r\n\r\n", "line 2"},
		"folded start": {" x\r\nFrom: a@example.com\r\n\r\n", "line 1"},
		"many fields":  {"From: a@example.com\r\n" + strings.Repeat("Subject: x\r\n", 200) + "\r\n", "200 Subject fields"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := kr.Sign([]byte(c.message), "example.com")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, error %v; want an error with %q", out, err, c.want)
			}
		})
	}
	if _, err := kr.Sign([]byte(header), "example.org"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a domain without key: %v, want ErrNoKey", err)
	}
	var none *Keyring
	if _, err := none.Sign([]byte(header), "example.org"); !errors.Is(err, ErrNoKey) {
		t.Errorf("no keyring: %v, want ErrNoKey", err)
	}
}

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key store is away")
}

func TestASignersFailureIsReported(t *testing.T) {
	kr := newKeyring(t, newKey(t, "example.com", "r1", brokenSigner{rsa1024()}))
	_, err := kr.Sign([]byte(header), "example.com")
	if err == nil || !strings.Contains(err.Error(), "the key store is away") || !strings.Contains(err.Error(), "r1._domainkey.example.com") {
		t.Errorf("error %v", err)
	}
}

func TestFindTakesTheClosestDomain(t *testing.T) {
	com := newKey(t, "example.com", "s", rsa1024())
	b := newKey(t, "b.example.com", "s", rsa1024())
	ed := newKey(t, "B.Example.com.", "Ed", edKey())
	kr := newKeyring(t, ed, com, b)
	for domain, want := range map[string][]*Key{
		"example.com":       {com},
		"x.example.com":     {com},
		"b.example.com":     {b, ed},
		"a.b.example.com":   {b, ed},
		"A.B.EXAMPLE.com":   {b, ed},
		"notb.example.com":  {com},
		"badexample.com":    nil,
		"com":               nil,
		"":                  nil,
		"example.com.evil":  nil,
		"x.y.z.example.com": {com},
	} {
		if got := kr.Find(domain); !slices.Equal(got, want) {
			t.Errorf("Find(%q) = %v, want %v", domain, names(got), names(want))
		}
	}
}

func names(keys []*Key) (list []string) {
	for _, k := range keys {
		list = append(list, RecordName(k))
	}
	return list
}

func TestKeyringRefusesWhatWouldMislead(t *testing.T) {
	rsaKey := newKey(t, "example.com", "s", rsa1024())
	for name, c := range map[string]struct {
		keys []*Key
		want string
	}{
		"same record twice": {[]*Key{rsaKey, newKey(t, "EXAMPLE.com", "S", edKey())}, "two keys for s._domainkey.example.com"},
		"only Ed25519":      {[]*Key{newKey(t, "example.com", "e", edKey())}, "only Ed25519"},
		"nil":               {[]*Key{rsaKey, nil}, "nil"},
	} {
		if _, err := NewKeyring(c.keys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestVerifyTellsFailuresApart(t *testing.T) {
	k := newKey(t, "example.com", "r1", rsa1024())
	signed, err := newKeyring(t, k).Sign([]byte(header+"Hi\r\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	answer := func(records []string, err error) func(string) ([]string, error) {
		return func(string) ([]string, error) { return records, err }
	}
	for name, c := range map[string]struct {
		lookup func(string) ([]string, error)
		want   Result
	}{
		"good":         {zone(k), Pass},
		"missing":      {zone(), PermError},
		"no records":   {answer(nil, nil), PermError},
		"two records":  {answer([]string{Record(k), Record(k)}, nil), PermError},
		"revoked":      {answer([]string{"v=DKIM1; p="}, nil), PermError},
		"rubbish":      {answer([]string{"p=!!"}, nil), PermError},
		"no answer":    {answer(nil, temporary{}), TempError},
		"another key":  {answer([]string{Record(newKey(t, "example.com", "r1", rsa2048()))}, nil), Fail},
		"another kind": {answer([]string{Record(newKey(t, "example.com", "r1", edKey()))}, nil), PermError},
	} {
		verdicts, err := Verify(signed, c.lookup)
		if err != nil || len(verdicts) != 1 || verdicts[0].Result != c.want {
			t.Errorf("%s: %+v, error %v, want %s", name, verdicts, err, c.want)
		}
	}
	if verdicts, err := Verify([]byte(header), zone(k)); err != nil || len(verdicts) != 0 {
		t.Errorf("an unsigned message: %v, error %v", verdicts, err)
	}
}

type temporary struct{}

func (temporary) Error() string   { return "timed out" }
func (temporary) Timeout() bool   { return true }
func (temporary) Temporary() bool { return true }

func TestVerifyBoundsItsWork(t *testing.T) {
	k := newKey(t, "example.com", "r1", rsa1024())
	signed, err := newKeyring(t, k).Sign([]byte(header+"Hi\r\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	field, _, _ := bytes.Cut(signed, []byte("From: Ana"))
	many := append(bytes.Repeat(field, 50), signed...)
	if verdicts, err := Verify(many, zone(k)); err != nil || len(verdicts) != maxSignatures {
		t.Errorf("%d verdicts, error %v, want %d", len(verdicts), err, maxSignatures)
	}
	folded := "From: a@example.com\r\n" + strings.Repeat(" \r\n", maxHeaderLines+1) + "\r\n"
	if _, err := Verify([]byte(folded), zone(k)); err == nil {
		t.Error("a header of too many lines was read")
	}
}

func TestCheckComparesTheRecordWithTheKey(t *testing.T) {
	k := newKey(t, "example.com", "r1", rsa2048())
	ed := newKey(t, "example.com", "e1", edKey())
	p := "; p=" + publicKey(k)
	for name, c := range map[string]struct {
		key     *Key
		records []string
		err     error
		worst   Severity
		want    string
	}{
		"good":             {k, []string{Record(k)}, nil, Info, "publishes this key"},
		"good, Ed25519":    {ed, []string{Record(ed)}, nil, Info, "publishes this key"},
		"good, no k":       {k, []string{"v=DKIM1" + p}, nil, Info, "publishes this key"},
		"good, only p":     {k, []string{"p=" + publicKey(k)}, nil, Info, "publishes this key"},
		"good, spaced":     {k, []string{" v = DKIM1 ; k = rsa ; p = " + strings.Join(ZoneStrings(publicKey(k)), " \t") + " ; "}, nil, Info, "publishes this key"},
		"good, limits":     {k, []string{"v=DKIM1; h=sha1:sha256; s=tlsrpt:email; t=s; n=note" + p}, nil, Info, "publishes this key"},
		"good, any s":      {k, []string{"v=DKIM1; s=*" + p}, nil, Info, "publishes this key"},
		"missing":          {k, nil, nil, Failure, "has no TXT record"},
		"nxdomain":         {k, nil, errors.New("no such name"), Failure, "has no record"},
		"no answer":        {k, nil, temporary{}, Unknown, "could not be looked up"},
		"several":          {k, []string{Record(k), "v=spf1 -all"}, nil, Failure, "2 TXT records"},
		"revoked":          {k, []string{"v=DKIM1; p="}, nil, Failure, "revoked"},
		"no p":             {k, []string{"v=DKIM1; k=rsa"}, nil, Failure, "no p= tag"},
		"other key":        {k, []string{Record(newKey(t, "example.com", "r1", rsa1024()))}, nil, Failure, "another key"},
		"p not base64":     {k, []string{"v=DKIM1; p=!!!"}, nil, Failure, "another key"},
		"other algorithm":  {k, []string{Record(ed)}, nil, Failure, `k="ed25519"`},
		"Ed25519 as rsa":   {ed, []string{"v=DKIM1; p=" + publicKey(ed)}, nil, Failure, `k="rsa"`},
		"version":          {k, []string{"v=DKIM2" + p}, nil, Failure, `v="DKIM2"`},
		"version late":     {k, []string{"k=rsa; v=DKIM1" + p}, nil, Warning, "not the first"},
		"testing":          {k, []string{"v=DKIM1; t=s:y" + p}, nil, Warning, "t=y"},
		"only sha1":        {k, []string{"v=DKIM1; h=sha1" + p}, nil, Failure, "sha256"},
		"not for mail":     {k, []string{"v=DKIM1; s=tlsrpt" + p}, nil, Failure, "must allow email"},
		"no tags":          {k, []string{"hello"}, nil, Failure, "malformed"},
		"a tag twice":      {k, []string{"v=DKIM1; p=" + p}, nil, Failure, "twice"},
		"an escape inside": {k, []string{"v=\x1b[2J" + p}, nil, Failure, `\x1b[2J`},
	} {
		t.Run(name, func(t *testing.T) {
			findings := Check(t.Context(), c.key, func(_ context.Context, name string) ([]string, error) {
				if name != RecordName(c.key) {
					t.Errorf("looked up %q", name)
				}
				return c.records, c.err
			})
			last := findings[len(findings)-1]
			if last.Severity != c.worst || !strings.Contains(last.Text, c.want) {
				t.Errorf("got %+v, want %s with %q", last, c.worst, c.want)
			}
			if last.Severity != Info && last.Remedy == "" {
				t.Errorf("no remedy: %+v", last)
			}
		})
	}
}

func TestCheckRepeatsTheWarningsOfTheKey(t *testing.T) {
	k := newKey(t, "example.com", "r1", rsa1024())
	findings := Check(t.Context(), k, func(context.Context, string) ([]string, error) { return []string{Record(k)}, nil })
	if len(findings) != 2 || findings[0].Severity != Warning || !strings.Contains(findings[0].Text, "1024 bits") {
		t.Errorf("findings %+v", findings)
	}
}

func TestKeysSurviveAFile(t *testing.T) {
	for name, signer := range map[string]crypto.Signer{"RSA": rsa2048(), "Ed25519": edKey()} {
		data, err := MarshalPEM(signer)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := WriteKeyFile(path, data); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v, want 0600", name, info.Mode(), err)
		}
		k, err := LoadKeyFile("example.com", "s", path)
		if err != nil {
			t.Fatal(err)
		}
		if Record(k) != Record(newKey(t, "example.com", "s", signer)) || len(k.Warnings) > 0 {
			t.Errorf("%s: read back as %s, warnings %v", name, Record(k), k.Warnings)
		}
		if err := WriteKeyFile(path, []byte("other")); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: the second write gave %v, want ErrExist", name, err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, data) {
			t.Errorf("%s: the key file was overwritten", name)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if k, err = LoadKeyFile("example.com", "s", path); err != nil || len(k.Warnings) != 1 {
			t.Errorf("%s: an open key file gave warnings %v, error %v", name, k.Warnings, err)
		}
	}
	if _, err := LoadKeyFile("example.com", "s", filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestZoneStringsFitATextRecord(t *testing.T) {
	k := newKey(t, "example.com", "s", rsa2048())
	parts := ZoneStrings(Record(k))
	if len(parts) != 2 || len(parts[0]) != 255 || strings.Join(parts, "") != Record(k) {
		t.Errorf("parts %q", parts)
	}
	want := fmt.Sprintf("s._domainkey.example.com. IN TXT ( %q %q )", parts[0], parts[1])
	if got := ZoneLine(k); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
