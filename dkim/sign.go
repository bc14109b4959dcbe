package dkim

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// coverage says how a header field is covered by our signatures.
type coverage struct {
	name  string
	lower string
	// over lists the field once more than it occurs, so that the signature
	// breaks when one is added (RFC 6376 section 8.15). These are the fields a
	// reader sees and answers to: another of them would replay our mail with a
	// face of someone else's choice.
	over bool
}

// covered are the fields we sign, in the order of the h= tag. Fields of the
// lower half are listed only when the message has them. The List-Unsubscribe
// pair must be covered for one-click unsubscription (RFC 8058 section 4).
var covered = [...]coverage{
	{"From", "from", true},
	{"To", "to", true},
	{"Subject", "subject", true},
	{"Date", "date", true},
	{"Reply-To", "reply-to", true},
	{"Message-ID", "message-id", false},
	{"MIME-Version", "mime-version", false},
	{"Content-Type", "content-type", false},
	{"Content-Transfer-Encoding", "content-transfer-encoding", false},
	{"List-Unsubscribe", "list-unsubscribe", false},
	{"List-Unsubscribe-Post", "list-unsubscribe-post", false},
	{"List-Id", "list-id", false},
	{"Feedback-ID", "feedback-id", false},
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
	keys, err := kr.mustFind(fromDomain)
	if err != nil {
		return nil, err
	}
	w := workspaces.Get().(*workspace)
	defer w.release()
	bodyHash, err := w.read(message)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(message)+signatureRoom*len(keys))
	if out, err = w.appendSignatures(out, keys, bodyHash, time.Now()); err != nil {
		return nil, err
	}
	return append(out, message...), nil
}

// SignHeader appends to dst the DKIM-Signature fields, each ending in CRLF, that
// Sign would put on top of a message with this header block and a body of this
// hash. The header ends with the CRLF of its last field; the empty line may follow,
// and nothing behind it. The t= tag is now. The caller asked BodyHash.Err.
func (kr *Keyring) SignHeader(dst, header []byte, bodyHash [sha256.Size]byte, fromDomain string, now time.Time) ([]byte, error) {
	keys, err := kr.mustFind(fromDomain)
	if err != nil {
		return nil, err
	}
	w := workspaces.Get().(*workspace)
	defer w.release()
	if err := checkLineEnds(header); err != nil {
		return nil, err
	}
	rest, _, err := w.header.read(header)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("dkim: %d octets stand behind the header's empty line; give the header alone", len(rest))
	}
	return w.appendSignatures(dst, keys, bodyHash, now)
}

// mustFind is Find that misses no key.
func (kr *Keyring) mustFind(fromDomain string) ([]*Key, error) {
	keys := kr.Find(fromDomain)
	if keys == nil {
		return nil, fmt.Errorf("%w %q; make one with veredus dkim keygen and name it under dkim.domains", ErrNoKey, fromDomain)
	}
	return keys, nil
}

// read takes a whole message, after checking that nothing on its way will have to
// mend it and break the signature.
func (w *workspace) read(message []byte) (bodyHash [sha256.Size]byte, err error) {
	top := message
	if i := bytes.Index(message, []byte("\r\n\r\n")); i >= 0 {
		top = message[:i+len("\r\n\r\n")]
	}
	if err := checkLineEnds(top); err != nil {
		return bodyHash, err
	}
	if _, ended, err := w.header.read(top); err != nil {
		return bodyHash, err
	} else if !ended {
		return bodyHash, errors.New("dkim: the message has no empty line after its header; add one, even when the body is empty")
	}
	w.body.Reset()
	w.body.Write(message[len(top):])
	if w.body.Err() != nil {
		return bodyHash, bareError(message)
	}
	return w.body.Sum(), nil
}
