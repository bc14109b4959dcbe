package serve

import (
	"bytes"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/veredus/veredus/integration/world"
)

// maxSignatures is how many signatures of a message are looked at.
const maxSignatures = 5

// verifier checks DKIM signatures on goroutines of its own. Its queue is short:
// when it is full, receiving waits.
type verifier struct {
	ledger *ledger
	zone   *zone
	every  int
	count  atomic.Int64
	queue  chan verification
	done   sync.WaitGroup
}

type verification struct {
	receipt *receipt
	body    *body
}

func newVerifier(l *ledger, z *zone, every, workers int) *verifier {
	v := &verifier{ledger: l, zone: z, every: every, queue: make(chan verification, 4*workers)}
	for range workers {
		v.done.Go(v.work)
	}
	return v
}

// submit takes over an accepted message after its reply, and frees its body.
func (v *verifier) submit(r *receipt, b *body) {
	if v.every < 0 || v.count.Add(1)%int64(v.every) != 0 {
		b.free()
		v.ledger.settle(r, dkimUnchecked, "")
		return
	}
	v.queue <- verification{r, b}
}

func (v *verifier) work() {
	for job := range v.queue {
		verdict, reason := v.verify(job.body.data)
		job.body.free()
		v.ledger.settle(job.receipt, verdict, reason)
	}
}

// close waits for the queue to empty. Nothing may be submitted any more.
func (v *verifier) close() {
	close(v.queue)
	v.done.Wait()
}

// verify judges a message's signatures against the keys the world publishes. All
// must verify, since the sender under test is to add no broken one, and one must
// be aligned with the From domain as DMARC's relaxed mode asks (RFC 7489 section
// 3.1.1), here: equal to it or a parent of it.
func (v *verifier) verify(content []byte) (verdict, reason string) {
	results, err := dkim.VerifyWithOptions(bytes.NewReader(content), &dkim.VerifyOptions{
		LookupTXT: v.zone.lookupTXT, MaxVerifications: maxSignatures,
	})
	if err != nil {
		return dkimFail, err.Error()
	}
	if len(results) == 0 {
		return dkimNone, ""
	}
	from, err := fromDomain(content)
	if err != nil {
		return dkimFail, err.Error()
	}
	aligned := false
	for _, r := range results {
		if r.Err != nil {
			return dkimFail, fmt.Sprintf("signature of %s: %v", r.Domain, r.Err)
		}
		domain := strings.ToLower(r.Domain)
		aligned = aligned || from == domain || strings.HasSuffix(from, "."+domain)
	}
	if !aligned {
		return dkimFail, fmt.Sprintf("no signature is aligned with the From domain %s", from)
	}
	return dkimPass, ""
}

// fromDomain is the domain of the message's From field.
func fromDomain(content []byte) (string, error) {
	value := world.HeaderField(content, "from", maxField)
	if value == "" {
		return "", errors.New("the message has no From field")
	}
	addr, err := mail.ParseAddress(value)
	if err != nil {
		return "", fmt.Errorf("the From field %q: %w", value, err)
	}
	return strings.ToLower(addr.Address[strings.LastIndexByte(addr.Address, '@')+1:]), nil
}
