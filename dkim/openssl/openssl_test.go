package openssl

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

func newSigner(t testing.TB, bits int) (*Signer, *rsa.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(key)
	if err != nil {
		t.Skipf("no libcrypto here: %v", err)
	}
	return s, key
}

func BenchmarkSign(b *testing.B) {
	s, key := newSigner(b, 2048)
	for name, signer := range map[string]crypto.Signer{"OpenSSL": s, "Go": key} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var seed [8]byte
			for b.Loop() {
				binary.LittleEndian.PutUint64(seed[:], uint64(b.N))
				digest := sha256.Sum256(seed[:])
				if _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" in parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(100)
			b.RunParallel(func(pb *testing.PB) {
				digest := sha256.Sum256(nil)
				for pb.Next() {
					if _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
