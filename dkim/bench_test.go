package dkim

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"
)

// tenKilobytes are bodies as bulk mail has them.
var tenKilobytes = map[string]string{
	"text":     strings.Repeat("All work and no play makes a dull test.\r\n", 250),
	"HTML":     strings.Repeat("      <tr>\r\n        <td style=3D\"padding: 4px\">a <b>word</b></td>\r\n      </tr>\r\n", 125),
	"base64":   strings.Repeat("QWxsIHdvcmsgYW5kIG5vIHBsYXkgbWFrZXMgYSBkdWxsIHRlc3QuQWxsIHdvcmsgYW5kIG5vIHBs\r\n", 131),
	"one word": strings.Repeat("x", 10240),
}

// BenchmarkBodyHash canonicalises and hashes a body of 10 KB; "sum" hashes alone.
func BenchmarkBodyHash(b *testing.B) {
	for name, body := range tenKilobytes {
		b.Run(name, func(b *testing.B) {
			h, p := NewBodyHash(), []byte(body)
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				h.Reset()
				h.Write(p)
				h.Sum()
			}
		})
	}
	b.Run("sum", func(b *testing.B) {
		p := []byte(tenKilobytes["text"])
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			sha256.Sum256(p)
		}
	})
}

// BenchmarkSign signs a message of 10 KB: whole, and without the key operation.
func BenchmarkSign(b *testing.B) {
	message := []byte(header + tenKilobytes["text"])
	pem := must(MarshalPEM(rsa2048()))
	load := func(options ...Option) *Key { return must(LoadKey("example.com", "r", pem, options...)) }
	fast, slow, none := load(), load(WithGo()), newKey(b, "example.com", "r", blankSigner{rsa2048()})
	ed := newKey(b, "example.com", "e", edKey())
	ours := func(keys ...*Key) func() {
		kr := newKeyring(b, keys...)
		return func() { must(kr.Sign(message, "news.example.com")) }
	}
	names := strings.Split("From:From:To:To:Subject:Subject:Date:Date:Reply-To:Message-ID:MIME-Version:Content-Type:List-Unsubscribe:List-Unsubscribe-Post:Feedback-ID", ":")
	theirs := func(k *Key) func() { return func() { msgauth(b, k, message, names) } }
	for _, c := range []struct {
		name string
		sign func()
	}{
		{"no key operation", ours(none)},
		{"no key operation, go-msgauth", theirs(none)},
		{"libcrypto if there", ours(fast)},
		{"libcrypto if there, and Ed25519", ours(fast, ed)},
		{"Go", ours(slow)},
		{"Go, go-msgauth", theirs(slow)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				c.sign()
			}
		})
	}
}

// BenchmarkSignHeader signs what the composer has: a header and a body's hash that
// goes on behind a static beginning. There is no key operation in it.
func BenchmarkSignHeader(b *testing.B) {
	kr := newKeyring(b, newKey(b, "example.com", "r", blankSigner{rsa2048()}))
	begin, h := NewBodyHash(), NewBodyHash()
	begin.Write([]byte(tenKilobytes["HTML"]))
	top, end, now := []byte(header), []byte("<p>Dear Ana</p>\r\n"), time.Unix(1_000_000_000, 0)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		h.CopyFrom(begin)
		h.Write(end)
		dst = must(kr.SignHeader(dst[:0], top, h.Sum(), "example.com", now))
	}
}

func BenchmarkFind(b *testing.B) {
	kr := newKeyring(b, newKey(b, "example.com", "r", rsa1024()))
	b.ReportAllocs()
	for b.Loop() {
		if kr.Find("mail.news.example.com") == nil {
			b.Fatal("no key")
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	k := newKey(b, "example.com", "r", rsa2048())
	signed, err := newKeyring(b, k).Sign([]byte(header+string(bytes.Repeat([]byte("All work and no play.\r\n"), 430))), "example.com")
	if err != nil {
		b.Fatal(err)
	}
	lookup := zone(k)
	b.ReportAllocs()
	for b.Loop() {
		if v, err := Verify(signed, lookup); err != nil || v[0].Result != Pass {
			b.Fatal(v, err)
		}
	}
}
