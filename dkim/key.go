// Package dkim signs mail (RFC 6376, RFC 8463) and looks after the keys.
//
// Load each key with LoadKeyFile, put them into a Keyring, and have it sign each
// message just before it is sent: Sign takes a whole message; SignHeader takes the
// header alone and the hash of a body that a BodyHash made as it was written. Record
// and RecordName say what to publish in the DNS, Check compares the DNS with a key,
// and Verify checks what was signed.
package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/veredus/veredus/dkim/openssl"
)

const (
	// MinRSABits is the least size that verifiers accept (RFC 8301 section 3.2).
	MinRSABits = 1024
	// GoodRSABits is the least size that signers should use (RFC 8301 section
	// 3.2) and that the large mailbox providers ask for.
	GoodRSABits = 2048
	// MaxRSABits is the largest size that verifiers must handle (RFC 8301
	// section 3.2).
	MaxRSABits = 4096
)

// Key is a signing key with its place in the DNS. It is read-only once made and
// safe for concurrent use as far as its Signer is.
type Key struct {
	Domain   string        // the d= tag: lower case, A-labels, no trailing dot
	Selector string        // the s= tag, lower case
	Signer   crypto.Signer // its public key is an *rsa.PublicKey or an ed25519.PublicKey
	Warnings []string      // what to mend although the key works
	// Slow says why Go signs with a loaded RSA key although libcrypto would be
	// faster; nil when libcrypto does, and for all other keys.
	Slow error
}

// Option changes how a key is loaded.
type Option func(*loading)

type loading struct{ goOnly bool }

// WithGo has Go make the signatures of an RSA key, for tests and comparisons. Without
// it libcrypto makes them where it is there and agrees with Go.
func WithGo() Option { return func(l *loading) { l.goOnly = true } }

var errGoOnly = errors.New("dkim: Go was asked for")

// NewKey makes a key from a signer, which may keep the private half elsewhere.
// It refuses RSA keys below MinRSABits and warns below GoodRSABits.
func NewKey(domain, selector string, signer crypto.Signer) (*Key, error) {
	if signer == nil {
		return nil, fmt.Errorf("dkim: key of selector %q, domain %q: no signer", selector, domain)
	}
	k := &Key{Domain: plainName(domain), Selector: plainName(selector), Signer: signer}
	if err := checkName(k.Domain); err != nil {
		return nil, fmt.Errorf("dkim: domain %q: %w", domain, err)
	}
	if err := checkName(k.Selector); err != nil {
		return nil, fmt.Errorf("dkim: selector %q: %w", selector, err)
	}
	if name := RecordName(k); len(name) > maxName {
		return nil, fmt.Errorf("dkim: the record name %s has %d octets, more than %d; shorten the selector", name, len(name), maxName)
	}
	switch pub := signer.Public().(type) {
	case *rsa.PublicKey:
		if err := k.judgeRSA(pub.N.BitLen()); err != nil {
			return nil, err
		}
		return k, nil
	case ed25519.PublicKey:
		return k, nil
	default:
		return nil, fmt.Errorf("dkim: key of %s is a %T; DKIM knows RSA and Ed25519, make one with: veredus dkim keygen", RecordName(k), pub)
	}
}

// judgeRSA refuses or warns of a size outside RFC 8301's bounds.
func (k *Key) judgeRSA(bits int) error {
	switch {
	case bits < MinRSABits:
		return fmt.Errorf("dkim: RSA key of %s has %d bits; verifiers refuse less than %d (RFC 8301), make one of %d", RecordName(k), bits, MinRSABits, GoodRSABits)
	case bits < GoodRSABits:
		k.warn("the RSA key has %d bits; mailbox providers expect %d, replace it", bits, GoodRSABits)
	case bits > MaxRSABits:
		k.warn("the RSA key has %d bits; verifiers need not accept more than %d (RFC 8301), use %d", bits, MaxRSABits, GoodRSABits)
	}
	return nil
}

func (k *Key) warn(format string, args ...any) {
	k.Warnings = append(k.Warnings, fmt.Sprintf(format, args...))
}

// Algorithm returns the k= tag of the key: "rsa" or "ed25519".
func (k *Key) Algorithm() string {
	if _, ok := k.Signer.Public().(ed25519.PublicKey); ok {
		return algEd25519
	}
	return algRSA
}

const (
	algRSA     = "rsa"
	algEd25519 = "ed25519"
)

// LoadKey reads a private key in PEM form: PKCS #1 ("RSA PRIVATE KEY") or PKCS #8
// ("PRIVATE KEY", RSA or Ed25519). Other blocks before it are passed over. RSA
// signatures come from libcrypto if it can make them; Slow says why not.
func LoadKey(domain, selector string, data []byte, options ...Option) (*Key, error) {
	var l loading
	for _, set := range options {
		set(&l)
	}
	signer, err := parsePEM(data)
	if err != nil {
		return nil, fmt.Errorf("dkim: key of selector %q, domain %q: %w", selector, domain, err)
	}
	k, err := NewKey(domain, selector, signer)
	if err == nil {
		k.quicken(l)
	}
	return k, err
}

// quicken has libcrypto make the signatures, if it can.
func (k *Key) quicken(l loading) {
	key, ok := k.Signer.(*rsa.PrivateKey)
	switch {
	case !ok:
		return
	case l.goOnly:
		k.Slow = errGoOnly
		return
	}
	if fast, err := openssl.New(key); err != nil {
		k.Slow = err
	} else {
		k.Signer = fast
	}
}

// Library names what makes the key's signatures, like "OpenSSL 3.0.19 27 Jan 2026" or
// "Go"; a signer made elsewhere has its type's name.
func (k *Key) Library() string {
	switch k.Signer.(type) {
	case *openssl.Signer:
		name, _ := openssl.Version() // it was opened
		return name
	case *rsa.PrivateKey, ed25519.PrivateKey:
		return "Go"
	default:
		return fmt.Sprintf("%T", k.Signer)
	}
}

// LoadKeyFile is LoadKey for a file. It warns when others than its owner may
// read it.
func LoadKeyFile(domain, selector, path string, options ...Option) (*Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("dkim: read key of selector %q, domain %q: %w", selector, domain, err)
	}
	k, err := LoadKey(domain, selector, data, options...)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, path)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		k.warn("the key file %s may be read by others (mode %04o); run chmod 600 on it", path, info.Mode().Perm())
	}
	return k, nil
}

func parsePEM(data []byte) (crypto.Signer, error) {
	other := ""
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errEncrypted
			}
			return parsePKCS1(block.Bytes)
		case "PRIVATE KEY":
			return parsePKCS8(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncrypted
		}
		other = block.Type
	}
	if other != "" {
		return nil, fmt.Errorf("the file holds a %q block, not a private key in PKCS #1 or PKCS #8; convert it with: openssl pkcs8 -topk8 -nocrypt", other)
	}
	return nil, errors.New("the file holds no PEM block; give the private key as PEM (-----BEGIN PRIVATE KEY-----)")
}

var errEncrypted = errors.New("the key is encrypted; decrypt it with: openssl pkcs8 -topk8 -nocrypt")

func parsePKCS1(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse PKCS #1: %w", err)
	}
	return key, nil
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse PKCS #8: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign; use RSA or Ed25519", key)
	}
	return signer, nil
}

// GenerateRSA makes an RSA key of bits, from MinRSABits to MaxRSABits; 2048 is
// the right size. It takes up to some seconds.
func GenerateRSA(bits int) (crypto.Signer, error) {
	if bits < MinRSABits || bits > MaxRSABits {
		return nil, fmt.Errorf("dkim: RSA keys have %d to %d bits, not %d; use %d", MinRSABits, MaxRSABits, bits, GoodRSABits)
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("dkim: make an RSA key: %w", err)
	}
	return key, nil
}

// GenerateEd25519 makes an Ed25519 key (RFC 8463), for a second signature beside
// an RSA one.
func GenerateEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("dkim: make an Ed25519 key: %w", err)
	}
	return key, nil
}

// MarshalPEM returns a private key made here as PKCS #8 in PEM, as LoadKey
// reads it.
func MarshalPEM(signer crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("dkim: marshal the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// WriteKeyFile writes a key to a new file that only its owner may read. It
// never overwrites: the old key may be the only one that fits the DNS.
func WriteKeyFile(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("dkim: key file %s exists and is not overwritten; choose another path or move it away: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("dkim: create key file: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("dkim: write key file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("dkim: write key file: %w", err)
	}
	return nil
}

const (
	maxName  = 253 // octets of a name in text form, RFC 1035 section 2.3.4
	maxLabel = 63  // octets of a label, RFC 1035 section 2.3.4
)

func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// checkName checks that each label of a lower-case name is letters, digits and
// hyphens (RFC 6376 section 3.1: a selector is made of sub-domains). Underscores
// pass inside labels, since published selectors have them.
func checkName(name string) error {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return fmt.Errorf("label %q has %d octets; each must have 1 to %d", label, len(label), maxLabel)
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("label %q must be letters, digits and inner hyphens (write international names as A-labels, xn--...)", label)
		}
	}
	return nil
}
