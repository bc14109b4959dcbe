package dkim

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Severity grades a Finding.
type Severity string

// The severities, mildest first.
const (
	Info    Severity = "info"    // as it should be
	Warning Severity = "warning" // signatures verify, but something should be mended
	Failure Severity = "error"   // receivers cannot verify our signatures
	Unknown Severity = "unknown" // the DNS gave no answer; nothing is known
)

// Finding is one result of Check.
type Finding struct {
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`             // what was found
	Remedy   string   `json:"remedy,omitempty"` // what to do about it
}

// Check compares the record that the DNS has for a key with the key and returns
// what it finds, at least one Finding. lookupTXT returns the TXT records of a
// name, the strings of each joined; an error of it that has a method
// Temporary() bool saying true means that nothing is known, any other that the
// record is missing. Check waits for nothing but lookupTXT.
func Check(ctx context.Context, k *Key, lookupTXT func(context.Context, string) ([]string, error)) []Finding {
	found := keyFindings(k)
	name := RecordName(k)
	publish := fmt.Sprintf("publish at %s the TXT record: %s", name, Record(k))
	records, err := lookupTXT(ctx, name)
	switch {
	case err != nil && (isTemporary(err) || ctx.Err() != nil):
		return append(found, Finding{Unknown, fmt.Sprintf("%s could not be looked up: %v", name, err), "try again; if it stays so, check dns.server and the name servers of " + k.Domain})
	case err != nil:
		return append(found, Finding{Failure, fmt.Sprintf("%s has no record: %v", name, err), publish})
	case len(records) == 0:
		return append(found, Finding{Failure, fmt.Sprintf("%s has no TXT record", name), publish})
	case len(records) > 1:
		return append(found, Finding{Failure, fmt.Sprintf("%s has %d TXT records; which one a receiver takes is undefined (RFC 6376 section 3.6.2.2)", name, len(records)), "remove all but one; " + publish})
	}
	return append(found, recordFindings(k, records[0], publish)...)
}

func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func keyFindings(k *Key) []Finding {
	var found []Finding
	for _, w := range k.Warnings {
		found = append(found, Finding{Severity: Warning, Text: w})
	}
	return found
}

// recordFindings compares one record with the key (RFC 6376 section 3.6.1). The
// first thing that makes verification fail hides the rest, as it does for a
// receiver.
func recordFindings(k *Key, record, publish string) []Finding {
	tags, err := parseTags(record)
	if err != nil {
		return []Finding{{Failure, fmt.Sprintf("the record is malformed: %v: %q", err, clip(record)), publish}}
	}
	if text := refusal(k, tags); text != "" {
		return []Finding{{Failure, text, publish}}
	}
	found := []Finding{{Severity: Info, Text: fmt.Sprintf("%s publishes this key", RecordName(k))}}
	if _, ok := tags["v"]; ok && !startsWithVersion(record) {
		found = append(found, Finding{Warning, "the v= tag is not the first of the record; some receivers ignore it then", publish})
	}
	if slices.Contains(list(tags["t"]), "y") {
		found = append(found, Finding{Warning, "the record says t=y: the domain is testing DKIM, and receivers treat its mail as unsigned", "remove t=y from the record"})
	}
	return found
}

// refusal says why a receiver with this record cannot verify the key's
// signatures, or "".
func refusal(k *Key, tags map[string]string) string {
	p, published := tags["p"]
	algorithm := cmp.Or(tags["k"], algRSA)
	_, limitsHash := tags["h"]
	_, limitsService := tags["s"]
	services := list(tags["s"])
	switch v, ok := tags["v"]; {
	case ok && v != "DKIM1":
		return fmt.Sprintf("the record has v=%q; it must be DKIM1", clip(v))
	case !published:
		return "the record has no p= tag, so no key"
	case p == "":
		return "the key is revoked: the record's p= tag is empty"
	case algorithm != k.Algorithm():
		return fmt.Sprintf("the record says k=%q, but the key is %s", clip(algorithm), k.Algorithm())
	case !samePublicKey(k, p):
		return "the record's p= tag holds another key; either the DNS or the key file is out of date"
	case limitsHash && !slices.Contains(list(tags["h"]), "sha256"):
		return fmt.Sprintf("the record allows only the hashes h=%q; signatures use sha256", clip(tags["h"]))
	case limitsService && !slices.Contains(services, "*") && !slices.Contains(services, "email"):
		return fmt.Sprintf("the record limits the key to s=%q; it must allow email", clip(tags["s"]))
	}
	return ""
}

// samePublicKey compares the p= tag with the key. An RSA key may be published
// bare, too (RFC 6376 erratum 3017).
func samePublicKey(k *Key, p string) bool {
	if p == publicKey(k) {
		return true
	}
	pub, ok := k.Signer.Public().(*rsa.PublicKey)
	if !ok {
		return false
	}
	der, err := base64.StdEncoding.DecodeString(p)
	if err != nil {
		return false
	}
	bare, err := x509.ParsePKCS1PublicKey(der)
	return err == nil && pub.Equal(bare)
}

// parseTags reads a tag-list (RFC 6376 section 3.2). Values come without any
// white space.
func parseTags(record string) (map[string]string, error) {
	tags := make(map[string]string)
	for part := range strings.SplitSeq(record, ";") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not tag=value", clip(part))
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Errorf("the tag %q is there twice", clip(name))
		}
		tags[name] = strings.Join(strings.Fields(value), "")
	}
	return tags, nil
}

func startsWithVersion(record string) bool {
	name, _, _ := strings.Cut(record, "=")
	return strings.TrimSpace(name) == "v"
}

// list splits a colon-separated value.
func list(value string) []string { return strings.Split(value, ":") }

// clip keeps a stranger's text short in our messages.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.ToValidUTF8(s, "")
}
