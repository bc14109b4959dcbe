package openssl

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// Keys are slow to make, so tests share them.
var keys = map[int]func() *rsa.PrivateKey{
	1024: sync.OnceValue(func() *rsa.PrivateKey { return generate(1024) }),
	2048: sync.OnceValue(func() *rsa.PrivateKey { return generate(2048) }),
	3072: sync.OnceValue(func() *rsa.PrivateKey { return generate(3072) }),
}

func generate(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

// newSigner skips the test where there is no libcrypto: Go signs there.
func newSigner(t testing.TB, bits int) (*Signer, *rsa.PrivateKey) {
	t.Helper()
	key := keys[bits]()
	s, err := New(key)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func sign(t testing.TB, s crypto.Signer, digest []byte) []byte {
	t.Helper()
	signature, err := s.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func TestSignaturesAreThoseOfGo(t *testing.T) {
	for bits := range keys {
		s, key := newSigner(t, bits)
		if !key.PublicKey.Equal(s.Public()) {
			t.Error("another public key")
		}
		for i := range 50 {
			digest := sha256.Sum256([]byte{byte(i)})
			if !bytes.Equal(sign(t, s, digest[:]), sign(t, key, digest[:])) {
				t.Errorf("%d bits, digest %x: another signature", bits, digest)
			}
		}
		if s.Failures() > 0 {
			t.Errorf("%d bits: Go made %d of the signatures", bits, s.Failures())
		}
	}
}

func TestTheVersionIsNamed(t *testing.T) {
	newSigner(t, 1024)
	if v, err := Version(); err != nil || !strings.HasPrefix(v, "OpenSSL 3.") {
		t.Errorf("%q, %v", v, err)
	}
}

// What is not a DKIM signature is Go's business, its errors included.
func TestOtherSchemesAreSignedByGo(t *testing.T) {
	s, key := newSigner(t, 2048)
	digest := make([]byte, 64)
	for name, c := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"SHA-512":      {digest, crypto.SHA512},
		"no hash":      {digest[:11], crypto.Hash(0)},
		"short digest": {digest[:31], crypto.SHA256},
	} {
		got, err := s.Sign(rand.Reader, c.digest, c.opts)
		want, wantErr := key.Sign(rand.Reader, c.digest, c.opts)
		if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %x, error %v; Go: %x, error %v", name, got, err, want, wantErr)
		}
	}
	pss := &rsa.PSSOptions{Hash: crypto.SHA256}
	signature, err := s.Sign(rand.Reader, digest[:32], pss)
	if err == nil {
		err = rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digest[:32], signature, pss)
	}
	if err != nil {
		t.Errorf("PSS: %v", err)
	}
}

// A key in a bubble of fake time, and one outside, wait for the same library.
func TestSigningInABubble(t *testing.T) {
	s, key := newSigner(t, 1024)
	digest := sha256.Sum256(nil)
	want := sign(t, key, digest[:])
	work := func() {
		for range 200 {
			if !bytes.Equal(sign(t, s, digest[:]), want) {
				t.Error("another signature")
			}
		}
	}
	var outside sync.WaitGroup
	for range 4 {
		outside.Go(work)
	}
	synctest.Test(t, func(*testing.T) {
		for range 4 {
			go work()
		}
	})
	outside.Wait()
}

// Keys that only an error of ours could bring here do no harm.
func TestBrokenKeysAreRefused(t *testing.T) {
	_, key := newSigner(t, 1024)
	p, q := key.Primes[0], key.Primes[1]
	one, two := big.NewInt(1), big.NewInt(2)
	for name, k := range map[string]*rsa.PrivateKey{
		"empty":         {},
		"no primes":     {PublicKey: key.PublicKey, D: key.D},
		"one prime":     {PublicKey: key.PublicKey, D: key.D, Primes: []*big.Int{p}},
		"zero prime":    {PublicKey: key.PublicKey, D: key.D, Primes: []*big.Int{p, new(big.Int)}},
		"even":          {PublicKey: rsa.PublicKey{N: new(big.Int).Add(key.N, one), E: key.E}, D: key.D, Primes: []*big.Int{p, q}},
		"other D":       {PublicKey: key.PublicKey, D: new(big.Int).Add(key.D, two), Primes: []*big.Int{p, q}},
		"other E":       {PublicKey: rsa.PublicKey{N: key.N, E: 1}, D: key.D, Primes: []*big.Int{p, q}},
		"other factors": {PublicKey: key.PublicKey, D: key.D, Primes: []*big.Int{new(big.Int).Add(p, two), q}},
		"too large":     {PublicKey: rsa.PublicKey{N: new(big.Int).Lsh(one, 20000), E: 65537}, D: key.D, Primes: []*big.Int{p, q}},
	} {
		if s, err := New(k); err == nil || s != nil {
			t.Errorf("%s: a signer", name)
		}
	}
}

func TestSigningRate(t *testing.T) {
	newSigner(t, 1024)
	perSecond, cpu, err := SigningRate(1)
	if err != nil || perSecond <= 0 || cpu <= 0 {
		t.Errorf("%v signatures/s, %v each, %v", perSecond, cpu, err)
	}
}

func FuzzDigests(f *testing.F) {
	s, key := newSigner(f, 2048)
	f.Add([]byte(nil))
	f.Add([]byte(strings.Repeat("\xff", 32)))
	f.Fuzz(func(t *testing.T, seed []byte) {
		digest := sha256.Sum256(seed)
		if len(seed) == len(digest) {
			copy(digest[:], seed)
		}
		if !bytes.Equal(sign(t, s, digest[:]), sign(t, key, digest[:])) || s.Failures() > 0 {
			t.Errorf("digest %x: another signature", digest)
		}
	})
}

// FuzzNew gives numbers that are no key, or nearly one.
func FuzzNew(f *testing.F) {
	_, key := newSigner(f, 1024)
	p, q := key.Primes[0], key.Primes[1]
	f.Add(key.N.Bytes(), key.E, key.D.Bytes(), p.Bytes(), q.Bytes())
	f.Add([]byte{15}, 3, []byte{3}, []byte{3}, []byte{5})
	f.Add(key.N.Bytes(), 3, key.D.Bytes(), q.Bytes(), []byte{})
	f.Fuzz(func(t *testing.T, n []byte, e int, d, p, q []byte) {
		if len(n)+len(d)+len(p)+len(q) > 4096 {
			return
		}
		number := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
		s, err := New(&rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: number(n), E: e}, D: number(d), Primes: []*big.Int{number(p), number(q)},
		})
		if err == nil {
			sign(t, s, make([]byte, 32))
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s, key := newSigner(b, 2048)
	for _, c := range []struct {
		name string
		crypto.Signer
	}{{"OpenSSL", s}, {"Go", key}} {
		b.Run(c.name, func(b *testing.B) {
			digest := sha256.Sum256(nil)
			b.ReportAllocs()
			for b.Loop() {
				sign(b, c.Signer, digest[:])
			}
		})
		b.Run(c.name+" in 200 goroutines", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(100)
			b.RunParallel(func(pb *testing.PB) {
				digest := sha256.Sum256(nil)
				for pb.Next() {
					sign(b, c.Signer, digest[:])
				}
			})
		})
	}
}

func BenchmarkNew(b *testing.B) {
	_, key := newSigner(b, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(key); err != nil {
			b.Fatal(err)
		}
	}
}
