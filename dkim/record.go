package dkim

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// RecordName returns the DNS name of the key's record, without trailing dot:
// selector._domainkey.domain (RFC 6376 section 3.6.2.1).
func RecordName(k *Key) string {
	return k.Selector + "._domainkey." + k.Domain
}

// Record returns the value of the TXT record that publishes the key (RFC 6376
// section 3.6.1, RFC 8463 section 4). It is longer than one string of a TXT
// record may be; see ZoneStrings.
func Record(k *Key) string {
	return "v=DKIM1; k=" + k.Algorithm() + "; p=" + publicKey(k)
}

// publicKey returns the p= tag: the bare key of Ed25519, the
// SubjectPublicKeyInfo of RSA.
func publicKey(k *Key) string {
	if pub, ok := k.Signer.Public().(ed25519.PublicKey); ok {
		return base64.StdEncoding.EncodeToString(pub)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Signer.Public())
	if err != nil {
		panic(fmt.Sprintf("dkim: key of %s was not made by NewKey: %v", RecordName(k), err))
	}
	return base64.StdEncoding.EncodeToString(der)
}

// ZoneStrings cuts a record's value into strings of at most 255 octets, the most
// that one string of a TXT record holds (RFC 1035 section 3.3). Verifiers join
// them without anything between.
func ZoneStrings(value string) []string {
	const most = 255
	var parts []string
	for len(value) > most {
		parts = append(parts, value[:most])
		value = value[most:]
	}
	return append(parts, value)
}

// ZoneLine returns the key's record as one line of a zone file.
func ZoneLine(k *Key) string {
	return fmt.Sprintf("%s. IN TXT ( \"%s\" )", RecordName(k), strings.Join(ZoneStrings(Record(k)), `" "`))
}
