// Package public is the listener that readers and their mail providers reach: hosted one-click
// unsubscribes (RFC 8058), and nothing else.
//
//	GET  /u/{token}   a plain page with a button; changes nothing, since scanners and
//	                  prefetchers follow every link in a mail (RFC 8058 section 1)
//	POST /u/{token}   takes the address off the list at once; may be repeated
//
// A Handler answers, a Server puts it on a port. There are no cookies, no scripts and no
// redirects (RFC 8058 section 3.1), and no answer tells a stranger an address.
package public

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/unsubscribe"
	"github.com/veredus/veredus/server/address"
)

// Limits of the handler.
const (
	maxActing  = 256              // unsubscribes under way at a time
	actingWait = 5 * time.Second  // how long another waits for its turn
	storeWait  = 15 * time.Second // how long one may take to become durable
	retryAfter = 2 * time.Minute  // when to come back after a failure of ours
)

// Suppressor takes addresses off lists; an address.Store is one.
type Suppressor interface {
	// Unsubscribe returns once the suppression is durable. Repeating it changes nothing and
	// answers applied false.
	Unsubscribe(ctx context.Context, u address.Unsubscription) (applied bool, err error)
}

// Result is what became of a request, in a word for metrics.
type Result string

// The results.
const (
	Shown        Result = "shown"        // the page with the button
	Unsubscribed Result = "unsubscribed" // the suppression is durable
	Repeated     Result = "repeated"     // it was before
	Invalid      Result = "invalid"      // no token of ours
	Malformed    Result = "malformed"    // a POST that is not RFC 8058's
	NotFound     Result = "not_found"    // another path
	NotAllowed   Result = "not_allowed"  // another method
	Limited      Result = "limited"      // too many requests of one client
	Overloaded   Result = "overloaded"   // too many unsubscribes at a time
	Failed       Result = "failed"       // the store could not
)

// Options are what a Handler is made of. Keys and Suppressor are required.
type Options struct {
	// Keys are asked at every request, so that a new key counts at once.
	Keys       func() *unsubscribe.Keys
	Suppressor Suppressor
	// Path is the path of public.url, empty or beginning with a slash. Requests may have it or not: some
	// proxies take it away.
	Path string
	// Observe is told of each request and each mail with its result and how long it took: for Unsubscribed
	// the time until the suppression was durable. May be nil.
	Observe func(Result, time.Duration)
	// ClientRate is how many requests per second one client may make, in bursts of ten seconds' worth; 0
	// means DefaultClientRate. Clients at loopback and private addresses are proxies, and not limited.
	ClientRate int
	// Now stamps unsubscribes; nil is time.Now.
	Now func() time.Time
	// Log is told of failures; nil discards them.
	Log *slog.Logger
}

// DefaultClientRate is far above what a mailbox provider sends, whose one-click requests
// all come from a few addresses, and far below what one machine can be made busy with.
const DefaultClientRate = 200

// Handler answers requests. It is safe for concurrent use.
type Handler struct {
	o       Options
	clients *clients
	acting  chan struct{} // a place for each unsubscribe under way
}

// NewHandler makes a handler.
func NewHandler(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Result, time.Duration) {}
	}
	if o.ClientRate <= 0 {
		o.ClientRate = DefaultClientRate
	}
	return &Handler{o: o, clients: newClients(o.ClientRate), acting: make(chan struct{}, maxActing)}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := h.o.Now()
	p, result := h.answer(w, r, began)
	h.o.Observe(result, h.o.Now().Sub(began))
	p.write(w)
}

// answer decides what a request gets, and acts where it asks for it.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, now time.Time) (page, Result) {
	if !h.clients.allow(now, r.RemoteAddr) {
		return limitedPage, Limited
	}
	token, found := h.token(r.URL.Path)
	if !found {
		return notFoundPage, NotFound
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.show(token)
	case http.MethodPost:
		return h.post(w, r, token, now)
	}
	return notAllowedPage, NotAllowed
}

// token is the last part of /u/{token}.
func (h *Handler) token(path string) (string, bool) {
	if h.o.Path != "" {
		if rest, found := strings.CutPrefix(path, h.o.Path); found && strings.HasPrefix(rest, "/") {
			path = rest
		}
	}
	token, found := strings.CutPrefix(path, unsubscribe.Path)
	return token, found && token != "" && !strings.Contains(token, "/")
}

func (h *Handler) show(token string) (page, Result) {
	c, err := h.o.Keys().Open(token)
	if err != nil {
		return invalidPage, Invalid
	}
	return askPage(c), Shown
}

func (h *Handler) post(w http.ResponseWriter, r *http.Request, token string, now time.Time) (page, Result) {
	c, err := h.o.Keys().Open(token)
	if err != nil {
		return invalidPage, Invalid
	}
	how, err := wish(w, r)
	if err != nil {
		return refusal(err), Malformed
	}
	release := h.turn()
	if release == nil {
		return laterPage, Overloaded
	}
	defer release()
	applied, err := h.unsubscribe(r.Context(), c, how, now)
	switch {
	case err != nil:
		return laterPage, Failed
	case !applied:
		return donePage(c), Repeated
	}
	return donePage(c), Unsubscribed
}

// turn waits for a place among those that act; nil when there is none for too long. It waits
// for clients that hung up, too: what they asked for still counts.
func (h *Handler) turn() (release func()) {
	patience := time.NewTimer(actingWait)
	defer patience.Stop()
	select {
	case h.acting <- struct{}{}:
		return func() { <-h.acting }
	case <-patience.C:
		return nil
	}
}

// unsubscribe makes the wish durable. A client that hangs up does not take it back.
func (h *Handler) unsubscribe(ctx context.Context, c unsubscribe.Claim, how string, now time.Time) (applied bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
	defer cancel()
	applied, err = h.o.Suppressor.Unsubscribe(ctx, address.Unsubscription{
		Address: c.Address, Tenant: c.Tenant, List: c.List, Delivery: c.Delivery, Message: messageID(c.Message), Time: now, Text: how,
	})
	if err != nil {
		h.o.Log.Error("an unsubscribe could not be stored", "how", how, "delivery", c.Delivery, "error", err)
	}
	return applied, err
}

// messageID is the message's place as resource names have it; empty when the token names none.
func messageID(ref returnpath.Ref) string {
	if ref == (returnpath.Ref{}) {
		return ""
	}
	return mta.MessageID{Handover: ref.Handover, Domain: ref.Domain, Lane: ref.Lane, Order: ref.Order}.String()
}

// ByMail does what a POST does for a mail to the unsubscribe address. subject is its subject,
// where the mailto: URL put the token; words around it do no harm. ok is false when there is
// no token of ours in it; then nothing happens, whatever the mail says: anyone can write another's address.
func (h *Handler) ByMail(ctx context.Context, subject string) (ok bool, err error) {
	began := h.o.Now()
	result := Invalid
	defer func() { h.o.Observe(result, h.o.Now().Sub(began)) }()
	c, found := h.find(subject)
	if !found {
		return false, nil
	}
	applied, err := h.unsubscribe(ctx, c, "mail to the unsubscribe address", began)
	switch {
	case err != nil:
		result = Failed
		return true, errors.Join(errNotStored, err)
	case applied:
		result = Unsubscribed
	default:
		result = Repeated
	}
	return true, nil
}

var errNotStored = errors.New("the unsubscribe was not stored")

// maxWords is how many words of a subject may be the token.
const maxWords = 16

// find looks for a token among the words of a text.
func (h *Handler) find(text string) (unsubscribe.Claim, bool) {
	keys, left := h.o.Keys(), maxWords
	for word := range strings.FieldsSeq(text) {
		if left--; left < 0 {
			break
		}
		if c, err := keys.Open(word); err == nil {
			return c, true
		}
	}
	return unsubscribe.Claim{}, false
}

// seconds writes a time to wait for a Retry-After header.
func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
