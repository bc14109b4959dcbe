//go:build !linux || !(amd64 || arm64) || nolibcrypto

package openssl

import (
	"crypto/rsa"
	"time"
)

// native is a key inside the library, which this build cannot open.
type native struct{}

func version() (string, error)                { return "", ErrUnavailable }
func load(*rsa.PrivateKey) (*native, error)   { return nil, ErrUnavailable }
func (*native) sign([]byte) ([]byte, error)   { return nil, ErrUnavailable }
func (*native) free()                         {}
func cpuOfThread() (d time.Duration, ok bool) { return 0, false }
