package dkim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Keyring is an unchanging set of keys, safe for concurrent use. A nil Keyring
// has none.
type Keyring struct {
	byDomain map[string][]*Key
}

// NewKeyring makes a set of keys, which may hold several for one domain: all of
// them sign. It refuses two keys under one record name, and a domain that has
// only Ed25519 keys, since several large receivers cannot verify these.
func NewKeyring(keys []*Key) (*Keyring, error) {
	kr := &Keyring{byDomain: make(map[string][]*Key)}
	seen := make(map[string]bool)
	for _, k := range keys {
		if k == nil {
			return nil, errors.New("dkim: a key of the keyring is nil")
		}
		if seen[RecordName(k)] {
			return nil, fmt.Errorf("dkim: two keys for %s; give each key of domain %s a selector of its own", RecordName(k), k.Domain)
		}
		seen[RecordName(k)] = true
		kr.byDomain[k.Domain] = append(kr.byDomain[k.Domain], k)
	}
	for domain, set := range kr.byDomain {
		slices.SortStableFunc(set, rsaFirst)
		if set[0].Algorithm() != algRSA {
			return nil, fmt.Errorf("dkim: domain %s has only Ed25519 keys, which several large receivers cannot verify; add an RSA key of %d bits", domain, GoodRSABits)
		}
	}
	return kr, nil
}

// rsaFirst puts the signature that everyone verifies on top.
func rsaFirst(a, b *Key) int {
	return strings.Compare(b.Algorithm(), a.Algorithm())
}

// Find returns the keys that sign mail from fromDomain, RSA before Ed25519: its
// own, else those of its closest parent that has any; nil when there are none.
// The result is shared and must not be changed.
func (kr *Keyring) Find(fromDomain string) []*Key {
	if kr == nil {
		return nil
	}
	for name, more := plainName(fromDomain), true; more; _, name, more = strings.Cut(name, ".") {
		if keys := kr.byDomain[name]; keys != nil {
			return keys
		}
	}
	return nil
}
