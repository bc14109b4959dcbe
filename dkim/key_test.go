package dkim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/dkim/openssl"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs1(signer crypto.Signer) []byte {
	return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(signer.(*rsa.PrivateKey)))
}

// weakRSA makes a key that crypto/rsa would rather not make.
func weakRSA(t *testing.T, bits int) crypto.Signer {
	t.Setenv("GODEBUG", "rsa1024min=0")
	defer t.Setenv("GODEBUG", "")
	return must(rsa.GenerateKey(rand.Reader, bits))
}

func TestLoadKeyTakesBothForms(t *testing.T) {
	certificate := block("CERTIFICATE", []byte{1})
	for name, c := range map[string]struct {
		data      []byte
		algorithm string
		warning   string
	}{
		"PKCS #1":        {pkcs1(rsa2048()), "rsa", ""},
		"PKCS #8":        {must(MarshalPEM(rsa2048())), "rsa", ""},
		"Ed25519":        {must(MarshalPEM(edKey())), "ed25519", ""},
		"after others":   {append(certificate, pkcs1(rsa2048())...), "rsa", ""},
		"weak but legal": {pkcs1(rsa1024()), "rsa", "1024 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := LoadKey("Example.COM.", "Sel", c.data)
			if err != nil {
				t.Fatal(err)
			}
			if k.Algorithm() != c.algorithm || RecordName(k) != "sel._domainkey.example.com" {
				t.Errorf("%s key for %s", k.Algorithm(), RecordName(k))
			}
			if got := strings.Join(k.Warnings, "; "); !strings.Contains(got, c.warning) || (c.warning == "") != (got == "") {
				t.Errorf("warnings %q, want %q", got, c.warning)
			}
		})
	}
}

// Whichever library signs, the signature is the same.
func TestLoadedKeysSignFastIfTheyCan(t *testing.T) {
	pem := must(MarshalPEM(rsa2048()))
	fast, slow := must(LoadKey("example.com", "s", pem)), must(LoadKey("example.com", "s", pem, WithGo()))
	if slow.Library() != "Go" || slow.Slow == nil {
		t.Errorf("asked for Go, got %s (%v)", slow.Library(), slow.Slow)
	}
	if version, err := openssl.Version(); err == nil && (fast.Library() != version || fast.Slow != nil) {
		t.Errorf("libcrypto is there, but %s signs: %v", fast.Library(), fast.Slow)
	} else if err != nil && (fast.Library() != "Go" || !errors.Is(fast.Slow, openssl.ErrUnavailable)) {
		t.Errorf("libcrypto is not there, but %s signs: %v", fast.Library(), fast.Slow)
	}
	var fields [][]byte
	for _, k := range []*Key{fast, slow} {
		fields = append(fields, must(newKeyring(t, k).SignHeader(nil, []byte(header), [32]byte{}, "example.com", time.Unix(1, 0))))
	}
	if !bytes.Equal(fields[0], fields[1]) {
		t.Errorf("two signatures:\n%s\n%s", fields[0], fields[1])
	}
	if ed := must(LoadKey("example.com", "s", must(MarshalPEM(edKey())))); ed.Library() != "Go" || ed.Slow != nil {
		t.Errorf("Ed25519: %s (%v)", ed.Library(), ed.Slow)
	}
	if other := newKey(t, "example.com", "s", brokenSigner{rsa1024()}); other.Library() != "dkim.brokenSigner" {
		t.Errorf("another signer: %s", other.Library())
	}
}

func TestLoadKeyRefusesWithARemedy(t *testing.T) {
	ec := must(x509.MarshalPKCS8PrivateKey(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))
	encrypted := pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: []byte{1},
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"},
	})
	for name, c := range map[string]struct {
		domain, selector string
		data             []byte
		want             string
	}{
		"512 bits":          {"example.com", "s", pkcs1(weakRSA(t, 512)), "make one of 2048"},
		"1016 bits":         {"example.com", "s", pkcs1(weakRSA(t, 1016)), "has 1016 bits"},
		"ECDSA":             {"example.com", "s", block("PRIVATE KEY", ec), "RSA and Ed25519"},
		"public key":        {"example.com", "s", block("PUBLIC KEY", []byte{1}), `"PUBLIC KEY" block`},
		"OpenSSH":           {"example.com", "s", block("OPENSSH PRIVATE KEY", []byte{1}), "openssl pkcs8"},
		"encrypted PKCS #8": {"example.com", "s", block("ENCRYPTED PRIVATE KEY", []byte{1}), "decrypt it"},
		"encrypted PKCS #1": {"example.com", "s", encrypted, "decrypt it"},
		"cut PKCS #1":       {"example.com", "s", block("RSA PRIVATE KEY", []byte{0x30, 1}), "parse PKCS #1"},
		"cut PKCS #8":       {"example.com", "s", block("PRIVATE KEY", []byte{0x30, 1}), "parse PKCS #8"},
		"not PEM":           {"example.com", "s", []byte("hello"), "no PEM block"},
		"empty":             {"example.com", "s", nil, "no PEM block"},
		"no domain":         {"", "s", pkcs1(rsa1024()), `domain ""`},
		"bad domain":        {"exämple.com", "s", pkcs1(rsa1024()), "A-labels"},
		"injected domain":   {"example.com; x=1", "s", pkcs1(rsa1024()), "domain"},
		"no selector":       {"example.com", "", pkcs1(rsa1024()), `selector ""`},
		"bad selector":      {"example.com", "a b", pkcs1(rsa1024()), `selector "a b"`},
		"long selector":     {"example.com", strings.Repeat("a.", 120) + "a", pkcs1(rsa1024()), "shorten the selector"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := LoadKey(c.domain, c.selector, c.data)
			if err == nil || k != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, error %v; want an error with %q", k, err, c.want)
			}
		})
	}
	if _, err := NewKey("example.com", "s", nil); err == nil {
		t.Error("a key without signer was made")
	}
}

func TestGenerateRSAKeepsToLegalSizes(t *testing.T) {
	for _, bits := range []int{-1, 0, 512, 1023, 4097, 1 << 20} {
		if _, err := GenerateRSA(bits); err == nil {
			t.Errorf("made a key of %d bits", bits)
		}
	}
}

func FuzzLoadKey(f *testing.F) {
	f.Add(pkcs1(rsa1024()))
	f.Add(must(MarshalPEM(edKey())))
	f.Add(block("PUBLIC KEY", []byte{1}))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := LoadKey("example.com", "s", data); err == nil && len(Record(k)) == 0 {
			t.Error("a key without record")
		}
	})
}
