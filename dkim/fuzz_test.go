package dkim

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// Whatever Sign accepts must verify.
func FuzzSign(f *testing.F) {
	f.Add([]byte(header + "Hi\r\n"))
	f.Add([]byte("From:a@b\r\n\r\n \t\r\n \r\n\r\n"))
	f.Add([]byte("From:\r\n a@b\r\nSubject :\t x \r\n\t \r\nDKIM-Signature: v=1\r\n\r\n"))
	k := must(NewKey("example.com", "e", edKey()))
	r := must(NewKey("example.com", "r", rsa1024()))
	kr := must(NewKeyring([]*Key{k, r}))
	f.Fuzz(func(t *testing.T, message []byte) {
		signed, err := kr.Sign(message, "example.com")
		if err != nil {
			return
		}
		if !bytes.HasSuffix(signed, message) {
			t.Fatal("signing changed the message")
		}
		verdicts, err := Verify(signed, zone(k, r))
		if err != nil {
			return // more header than Verify reads
		}
		for _, v := range verdicts[:2] {
			if v.Result != Pass {
				t.Errorf("%+v", v)
			}
		}
	})
}

// Neither a stranger's message nor his key record may do harm.
func FuzzVerify(f *testing.F) {
	k := must(NewKey("example.com", "r", rsa1024()))
	kr := must(NewKeyring([]*Key{k}))
	f.Add(must(kr.Sign([]byte(header+"Hi\r\n"), "example.com")), Record(k))
	f.Add([]byte("DKIM-Signature: v=1; a=rsa-sha256; b=; bh=; d=x; h=from; s=y\r\n\r\n"), "p=")
	f.Fuzz(func(_ *testing.T, message []byte, record string) {
		_, _ = Verify(message, func(string) ([]string, error) { return []string{record}, nil })
	})
}

func FuzzCheck(f *testing.F) {
	k := must(NewKey("example.com", "r", rsa1024()))
	f.Add(Record(k))
	f.Add("v=DKIM1; h=sha1:sha256; t=y:s; s=*; p=MIGf")
	f.Fuzz(func(t *testing.T, record string) {
		findings := Check(t.Context(), k, func(context.Context, string) ([]string, error) { return []string{record}, nil })
		if len(findings) == 0 {
			t.Error("no finding")
		}
		for _, found := range findings {
			if strings.ContainsRune(found.Text, '\x1b') {
				t.Errorf("a control character reached the terminal: %q", found.Text)
			}
		}
	})
}
