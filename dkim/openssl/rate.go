package openssl

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// SigningRate signs with a new RSA-2048 key of libcrypto for about d, in one thread,
// and returns the signatures per second of wall time and the CPU time of each, user
// and system, as the kernel counts it for the thread. On an idle processor one is the
// inverse of the other; it is the figure of "openssl speed rsa2048", with the cost of
// our call on top. d must be long enough for a few hundred signatures, some 100 ms.
func SigningRate(d time.Duration) (perSecond float64, cpuPerSign time.Duration, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return 0, 0, fmt.Errorf("openssl: make a key: %w", err)
	}
	s, err := New(key)
	if err != nil {
		return 0, 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return s.rate(d)
}

func (s *Signer) rate(d time.Duration) (perSecond float64, cpuPerSign time.Duration, err error) {
	digest := sha256.Sum256(nil)
	begin, cpu, ok := time.Now(), time.Duration(0), false
	if cpu, ok = cpuOfThread(); !ok {
		return 0, 0, errors.New("openssl: the CPU time of a thread cannot be read")
	}
	signed := 0
	for time.Since(begin) < d || signed == 0 {
		if _, err := s.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			return 0, 0, err
		}
		signed++
	}
	elapsed := time.Since(begin)
	after, _ := cpuOfThread()
	if s.Failures() > 0 {
		return 0, 0, errors.New("openssl: libcrypto failed to sign")
	}
	return float64(signed) / elapsed.Seconds(), (after - cpu) / time.Duration(signed), nil
}
