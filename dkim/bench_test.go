package dkim

import (
	"bytes"
	"strings"
	"testing"
)

// BenchmarkSign signs a message of 10 KB.
func BenchmarkSign(b *testing.B) {
	message := []byte(header + strings.Repeat("All work and no play makes a dull test.\r\n", 245))
	rsaKey := newKey(b, "example.com", "r", rsa2048())
	for _, c := range []struct {
		name string
		kr   *Keyring
	}{
		{"RSA-2048", newKeyring(b, rsaKey)},
		{"RSA-2048 and Ed25519", newKeyring(b, rsaKey, newKey(b, "example.com", "e", edKey()))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if _, err := c.kr.Sign(message, "news.example.com"); err != nil {
					b.Fatal(err)
				}
			}
		})
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
