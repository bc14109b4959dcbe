package dkim

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// coverage says how a header field is covered by our signatures.
type coverage struct {
	name string
	// over lists the field once more than it occurs, so that the signature
	// breaks when one is added (RFC 6376 section 8.15). These are the fields a
	// reader sees and answers to: another of them would replay our mail with a
	// face of someone else's choice.
	over bool
}

// covered are the fields we sign, in the order of the h= tag. Fields of the
// lower half are listed only when the message has them. The List-Unsubscribe
// pair must be covered for one-click unsubscription (RFC 8058 section 4).
var covered = []coverage{
	{"From", true},
	{"To", true},
	{"Subject", true},
	{"Date", true},
	{"Reply-To", true},
	{"Message-ID", false},
	{"MIME-Version", false},
	{"Content-Type", false},
	{"Content-Transfer-Encoding", false},
	{"List-Unsubscribe", false},
	{"List-Unsubscribe-Post", false},
	{"List-Id", false},
	{"Feedback-ID", false},
}

const (
	// maxHeaderList bounds the h= tag, which stands on one line of at most 998
	// octets (RFC 5322 section 2.1.1).
	maxHeaderList = 900
	// signatureRoom is the usual size of a signature field, RSA-2048.
	signatureRoom = 1024
)

// ErrNoKey says that the keyring has no key for a From domain.
var ErrNoKey = errors.New("dkim: no signing key for the From domain")

// Sign returns the message with one DKIM-Signature field on top for each key
// that Find gives for fromDomain, which is the domain of the From field: RSA
// first, Ed25519 second, all relaxed/relaxed with SHA-256. The t= tag is the
// present time; nothing else differs between two signatures of one message.
//
// The message must be complete, with one From field and CRLF line ends only; it
// is not changed. A domain without keys is an error, ErrNoKey, since receivers
// of bulk mail refuse what is not signed.
func (kr *Keyring) Sign(message []byte, fromDomain string) ([]byte, error) {
	keys := kr.Find(fromDomain)
	if keys == nil {
		return nil, fmt.Errorf("%w %q; make one with veredus dkim keygen and name it under dkim.domains", ErrNoKey, fromDomain)
	}
	fields, err := headerList(message)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(message)+signatureRoom*len(keys))
	for _, k := range keys {
		field, err := k.sign(message, fields)
		if err != nil {
			return nil, fmt.Errorf("dkim: sign with the key of %s: %w", RecordName(k), err)
		}
		out = append(out, field...)
	}
	return append(out, message...), nil
}

// sign returns the DKIM-Signature field, ending in CRLF.
func (k *Key) sign(message []byte, fields []string) (string, error) {
	s, err := dkim.NewSigner(&dkim.SignOptions{
		Domain:                 k.Domain,
		Selector:               k.Selector,
		Signer:                 k.Signer,
		Hash:                   crypto.SHA256,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed,
		BodyCanonicalization:   dkim.CanonicalizationRelaxed,
		HeaderKeys:             fields,
	})
	if err != nil {
		return "", err
	}
	_, err = s.Write(message)
	if err := errors.Join(err, s.Close()); err != nil {
		return "", err
	}
	return s.Signature(), nil
}

// headerList returns the names of the h= tag for a message, after checking that
// nothing on its way will have to mend the message and break the signature.
func headerList(message []byte) ([]string, error) {
	if err := checkLineEnds(message); err != nil {
		return nil, err
	}
	counts, err := countFields(message)
	if err != nil {
		return nil, err
	}
	if counts[0] != 1 {
		return nil, fmt.Errorf("dkim: the message has %d From fields; it must have one (RFC 5322 section 3.6)", counts[0])
	}
	list := make([]string, 0, len(covered)+8)
	octets := 0
	for i, c := range covered {
		times := counts[i]
		if c.over {
			times++
		}
		if octets += times * (len(c.name) + 1); octets > maxHeaderList {
			return nil, fmt.Errorf("dkim: the message has %d %s fields; send each field once", counts[i], c.name)
		}
		for range times {
			list = append(list, c.name)
		}
	}
	return list, nil
}

// checkLineEnds refuses a CR or LF that is not part of a CRLF: a server on the
// way would have to refuse or mend it (RFC 5321 section 2.3.8).
func checkLineEnds(message []byte) error {
	pairs := bytes.Count(message, []byte("\r\n"))
	if bytes.Count(message, []byte{'\r'}) == pairs && bytes.Count(message, []byte{'\n'}) == pairs {
		return nil
	}
	return fmt.Errorf("dkim: the message has a bare CR or LF at octet %d; end every line with CRLF", bareAt(message))
}

func bareAt(message []byte) int {
	for i, c := range message {
		loneCR := c == '\r' && (i+1 == len(message) || message[i+1] != '\n')
		loneLF := c == '\n' && (i == 0 || message[i-1] != '\r')
		if loneCR || loneLF {
			return i
		}
	}
	return len(message)
}

// countFields counts how often each field of covered occurs in the header.
func countFields(message []byte) (counts [16]int, err error) {
	for number := 1; ; number++ {
		line, rest, ok := bytes.Cut(message, []byte("\r\n"))
		switch {
		case !ok:
			return counts, errors.New("dkim: the message has no empty line after its header; add one, even when the body is empty")
		case len(line) == 0:
			return counts, nil
		}
		message = rest
		if number > 1 && (line[0] == ' ' || line[0] == '\t') {
			continue
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 {
			return counts, fmt.Errorf("dkim: line %d of the header is no header field (name: value)", number)
		}
		if i := coverageOf(string(bytes.TrimRight(name, " \t"))); i >= 0 {
			counts[i]++
		}
	}
}

// coverageOf returns the place of a field in covered, or -1.
func coverageOf(name string) int {
	for i, c := range covered {
		if strings.EqualFold(c.name, name) {
			return i
		}
	}
	return -1
}
