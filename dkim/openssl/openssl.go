// Package openssl computes RSA signatures with libcrypto 3, the library of OpenSSL,
// where the machine has it: in a quarter of the time that Go's RSA takes.
//
// New turns a key into a crypto.Signer that calls libcrypto, or says why it cannot;
// Go's own key then does the same work. The library is opened at run time and called
// without cgo (see docs/decisions/009-openssl-signer.md). Builds with the tag
// nolibcrypto, and those for other systems than Linux on amd64 and arm64, have no
// such code and always say ErrUnavailable.
package openssl

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
)

// ErrUnavailable says that this build or this machine has no libcrypto 3.
var ErrUnavailable = errors.New("openssl: libcrypto 3 is not available")

// Version returns what the library says of itself, like "OpenSSL 3.0.19 27 Jan
// 2026". The first call opens it. Without it the error is, or wraps, ErrUnavailable.
func Version() (string, error) { return version() }

// Signer is an RSA key whose signatures libcrypto makes. It is safe for concurrent
// use: as many calls as GOMAXPROCS said when the library was opened run at once, over
// all keys, and others wait as goroutines, so that threads stay few. A call takes as
// long as the key operation and keeps no other goroutine from running.
//
// What libcrypto holds of the key is freed some time after the Signer has become
// unreachable.
type Signer struct {
	key    *rsa.PrivateKey
	native *native
	failed atomic.Uint64
}

var _ crypto.Signer = (*Signer)(nil)

// New gives a key to libcrypto. It makes one signature with both libcrypto and Go,
// and refuses, with the cause, when they are not equal.
func New(key *rsa.PrivateKey) (s *Signer, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("openssl: the call of libcrypto panicked: %v", r)
		}
	}()
	n, err := load(key)
	if err != nil {
		return nil, err
	}
	s = &Signer{key: key, native: n}
	runtime.AddCleanup(s, (*native).free, n)
	if err := s.probe(); err != nil {
		return nil, err
	}
	return s, nil
}

// probe compares libcrypto's signature with Go's: PKCS #1 v1.5 has one only (RFC
// 8017 section 8.2.1).
func (s *Signer) probe() error {
	digest := sha256.Sum256([]byte("veredus compares two signers"))
	want, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("openssl: Go cannot sign with the key: %w", err)
	}
	got, err := s.native.sign(digest[:])
	runtime.KeepAlive(s)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return errors.New("openssl: libcrypto and Go make different signatures with the key")
	}
	return nil
}

// Public returns the *rsa.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return &s.key.PublicKey }

// Sign signs a digest of SHA-256 by PKCS #1 v1.5 in libcrypto. Everything else, and
// what libcrypto fails to sign (see Failures), is signed by Go.
func (s *Signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss || opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return s.key.Sign(random, digest, opts)
	}
	signature, err := s.native.sign(digest)
	runtime.KeepAlive(s) // the native key is freed behind it
	if err != nil {
		s.failed.Add(1)
		return s.key.Sign(random, digest, opts)
	}
	return signature, nil
}

// Failures returns how often Go had to sign because libcrypto failed.
func (s *Signer) Failures() uint64 { return s.failed.Load() }
