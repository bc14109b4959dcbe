package dkim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// Result is the outcome of checking one signature (RFC 8601 section 2.7.1).
type Result string

// The results a Verdict can have.
const (
	Pass      Result = "pass"      // the signature is good
	Fail      Result = "fail"      // the message was changed, or the key is another
	PermError Result = "permerror" // the signature or the key's record is unusable
	TempError Result = "temperror" // the key could not be looked up; ask again later
)

// Verdict is what was found about one signature.
type Verdict struct {
	Result Result
	Domain string    // the d= tag
	Fields []string  // the h= tag
	Time   time.Time // the t= tag; zero when there is none
	Err    error     // why the result is not Pass
}

const (
	// maxSignatures is how many signatures of a message are looked at.
	maxSignatures = 10
	// maxHeader and maxHeaderLines bound the work that an unsigned stranger's
	// header can cause.
	maxHeader      = 256 << 10
	maxHeaderLines = 4096
)

// Verify checks the signatures of a message, the first ten, and returns one
// verdict each, in order. No signature gives no verdict. The error means that
// the message could not be read at all. lookupTXT returns the TXT records of a
// name, the strings of each joined; its errors count as "no such record" unless
// they have a method Temporary() bool that says true.
func Verify(message []byte, lookupTXT func(string) ([]string, error)) ([]Verdict, error) {
	header, _, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	if lines := bytes.Count(header, []byte{'\n'}); len(header) > maxHeader || lines > maxHeaderLines {
		return nil, fmt.Errorf("dkim: the header has %d octets in %d lines; at most %d in %d are read", len(header), lines, maxHeader, maxHeaderLines)
	}
	options := &dkim.VerifyOptions{LookupTXT: lookupTXT, MaxVerifications: maxSignatures}
	found, err := dkim.VerifyWithOptions(bytes.NewReader(message), options)
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		return nil, fmt.Errorf("dkim: verify: %w", err)
	}
	verdicts := make([]Verdict, 0, len(found))
	for _, v := range found {
		verdicts = append(verdicts, Verdict{
			Result: result(v.Err),
			Domain: v.Domain,
			Fields: v.HeaderKeys,
			Time:   v.Time,
			Err:    v.Err,
		})
	}
	return verdicts, nil
}

func result(err error) Result {
	switch {
	case err == nil:
		return Pass
	case dkim.IsTempFail(err):
		return TempError
	case dkim.IsPermFail(err):
		return PermError
	default:
		return Fail
	}
}
