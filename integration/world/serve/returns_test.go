package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
)

// arrival is one mail at the sender's inbound listener.
type arrival struct {
	from, to string
	content  []byte
}

// listener is the sender's inbound side: it takes every mail, but for addresses
// that it refuses or puts off once.
type listener struct {
	addr   string
	refuse map[string]int // by recipient: reply code, from 500 for good, else once
	mu     sync.Mutex
	mails  []arrival
}

func listen(t *testing.T, refuse map[string]int) *listener {
	t.Helper()
	l := &listener{refuse: refuse}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = socket.Addr().String()
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &visit{l: l}, nil }))
	s.EnableSMTPUTF8 = true
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(socket)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return l
}

func (l *listener) arrived() []arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]arrival{}, l.mails...)
}

// visit is one connection to a listener.
type visit struct {
	l *listener
	arrival
}

func (v *visit) Reset()                                      {}
func (v *visit) Logout() error                               { return nil }
func (v *visit) Mail(from string, _ *smtp.MailOptions) error { v.from = from; return nil }

func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	code := v.l.refuse[to]
	if code == 0 {
		v.to = to
		return nil
	}
	if code < 500 {
		delete(v.l.refuse, to)
	}
	return &smtp.SMTPError{Code: code, Message: "not now, or never"}
}

func (v *visit) Data(r io.Reader) error {
	var err error
	if v.content, err = io.ReadAll(r); err != nil {
		return err
	}
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	v.l.mails = append(v.l.mails, v.arrival)
	return nil
}

// quick is a world of one receiver that sends back at once.
func quick(r world.Receiver, to string) Config {
	cfg := alone(r)
	cfg.World.Magic.ReturnDelay = world.Duration(time.Millisecond)
	cfg.ReturnTo = to
	return cfg
}

// settled waits until nothing is to be sent back any more.
func settled(t *testing.T, w *World) map[world.Fate]ReturnCounts {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.WaitReturns(ctx); err != nil {
		t.Fatal(err)
	}
	return w.Ledger().Returns
}

const unsubscribable = "From: <news@sender.example>\r\nTo: <reader@x.example>\r\nSubject: hello\r\nMessage-ID: <%s@sender.example>\r\n" +
	"List-Unsubscribe: %s\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nHello.\r\n.."

// deliver sends one message with a List-Unsubscribe field.
func (c *client) deliver(code int, to, unsubscribe string) {
	c.t.Helper()
	c.say(250, "MAIL FROM:<token-of-"+strings.ReplaceAll(to, "@", "-at-")+"@bounce.sender.example>")
	c.say(250, "RCPT TO:<"+to+">")
	c.say(354, "DATA")
	c.say(code, fmt.Sprintf(unsubscribable, to, unsubscribe)+"\r\n.")
}

// Each magic mailbox of each kind of provider sends its mail over SMTP.
func TestWhatMailboxesSendBack(t *testing.T) {
	classifier := inbound.NewClassifier(bounce.Default(), nil)
	kinds := map[world.Fate]inbound.Kind{
		world.FateOOBUnknown: inbound.KindBounce, world.FateOOBFull: inbound.KindBounce, world.FateComplaint: inbound.KindComplaint,
		world.FateUnsubscribe: inbound.KindUnsubscribe, world.FateAutoReply: inbound.KindAutoReply,
	}
	for _, dialect := range []string{"postfix", "exim", "outlook", "gmail", "yahoo", "orange"} {
		t.Run(dialect, func(t *testing.T) {
			l := listen(t, nil)
			w := start(t, quick(world.Receiver{Dialect: dialect}, l.addr))
			c := greet(t, addressOf(t, w, "x.example"))
			for fate := range kinds {
				c.deliver(250, string(fate)+"@x.example", "<mailto:unsubscribe@bounce.sender.example?subject=sealed>")
			}
			c.deliver(250, "ok@x.example", "<mailto:unsubscribe@bounce.sender.example>")
			counts := settled(t, w)
			for fate := range kinds {
				if got := counts[fate]; got != (ReturnCounts{Due: 1, Sent: 1, Accepted: 1}) {
					t.Errorf("%s: %+v", fate, got)
				}
			}
			got := map[string]string{}
			for _, a := range l.arrived() {
				r := classifier.Classify(inbound.Parse(a.content, inbound.Limits{}), inbound.Envelope{Recipient: a.to, Unsubscribe: strings.HasPrefix(a.to, "unsubscribe@")})
				if len(r.Recipients) == 1 {
					got[r.Recipients[0].Address] = r.Kind.String()
				}
				if r.Kind == inbound.KindBounce || r.Kind == inbound.KindAutoReply {
					if a.from != "" || a.to != "token-of-"+strings.Replace(r.Recipients[0].Address, "@", "-at-", 1)+"@bounce.sender.example" {
						t.Errorf("%s from <%s> to <%s>", r.Kind, a.from, a.to)
					}
				}
			}
			for fate, kind := range kinds {
				// Orange hides who complains, but not in the mail complained about.
				who := string(fate) + "@x.example"
				if fate == world.FateComplaint && dialect == "orange" {
					who = "reader@x.example"
				}
				if got[who] != kind.String() {
					t.Errorf("%s: %q, want %s (all: %v)", who, got[who], kind, got)
				}
			}
		})
	}
}

func TestReturnsWaitForAnAddress(t *testing.T) {
	l := listen(t, nil)
	w := start(t, quick(world.Receiver{}, ""))
	greet(t, addressOf(t, w, "x.example")).mail(250, "oob-full@x.example", "w1")
	if got := w.Ledger().Returns[world.FateOOBFull]; got != (ReturnCounts{Due: 1, Waiting: 1}) {
		t.Errorf("without an address: %+v", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.WaitReturns(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting in vain: %v", err)
	}
	if err := w.SetReturnTo(l.addr); err != nil {
		t.Fatal(err)
	}
	if got := settled(t, w)[world.FateOOBFull]; got != (ReturnCounts{Due: 1, Sent: 1, Accepted: 1}) || len(l.arrived()) != 1 {
		t.Errorf("with an address: %+v, %d mails", got, len(l.arrived()))
	}
}

func TestOnlyThisMachineGetsMail(t *testing.T) {
	w := start(t, quick(world.Receiver{}, ""))
	for _, to := range []string{"192.0.2.1:25", "mx.example.com:25", "127.0.0.1", "0.0.0.0:25", "[::ffff:10.0.0.1]:25"} {
		if err := w.SetReturnTo(to); err == nil || !strings.Contains(err.Error(), "return_to") {
			t.Errorf("%s: %v", to, err)
		}
	}
	for _, to := range []string{"127.0.0.1:2525", "[::1]:2525", "localhost:2525", ""} {
		if err := w.SetReturnTo(to); err != nil || w.ReturnTo() != to {
			t.Errorf("%s: %v", to, err)
		}
	}
	s := newReturnSender()
	err := s.mail(t.Context(), "192.0.2.1:25", &parcel{})
	var refused *refusal
	if !errors.As(err, &refused) {
		t.Errorf("dialled: %v", err)
	}
}

func TestAnswersAreCounted(t *testing.T) {
	l := listen(t, map[string]int{
		"token-of-autoreply-at-x.example@bounce.sender.example":     550,
		"token-of-oob-unknown-at-x.example@bounce.sender.example":   451,
		"token-of-oob-unknown+1-at-x.example@bounce.sender.example": 421,
	})
	w := start(t, quick(world.Receiver{}, l.addr))
	c := greet(t, addressOf(t, w, "x.example"))
	for _, local := range []string{"autoreply", "oob-unknown", "oob-unknown+1", "unsubscribe"} {
		c.deliver(250, local+"@x.example", "<https://elsewhere.example/u>")
	}
	c.say(250, "MAIL FROM:<>")
	c.say(250, "RCPT TO:<complaint@x.example>")
	c.say(354, "DATA")
	c.say(250, fmt.Sprintf(message, "null")+".")
	want := map[world.Fate]ReturnCounts{
		world.FateAutoReply:   {Due: 1, Sent: 1, Refused: 1},
		world.FateOOBUnknown:  {Due: 2, Sent: 2, Accepted: 2},
		world.FateUnsubscribe: {Due: 1, Nothing: 1},
		world.FateComplaint:   {Due: 1, Nothing: 1},
	}
	got := settled(t, w)
	for fate, counts := range want {
		if got[fate] != counts {
			t.Errorf("%s: %+v, want %+v", fate, got[fate], counts)
		}
	}
	if words := strings.Join(w.Ledger().ReturnFailures, "\n"); !strings.Contains(words, "autoreply: 550") || !strings.Contains(words, "List-Unsubscribe") {
		t.Errorf("failures:\n%s", words)
	}
}

func TestOneClick(t *testing.T) {
	var mu sync.Mutex
	posts := map[string]int{}
	web := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		posts[r.URL.Path]++
		switch {
		case r.Method != http.MethodPost || string(body) != "List-Unsubscribe=One-Click" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Cookie") != "":
			t.Errorf("%s %s %q", r.Method, r.Header, body)
		case r.URL.Path == "/gone":
			rw.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/moved":
			http.Redirect(rw, r, "/elsewhere", http.StatusFound)
		case r.URL.Path == "/busy" && posts["/busy"] == 1:
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(web.Close)
	w := start(t, quick(world.Receiver{Dialect: "gmail"}, "")) // a link needs no inbound listener
	c := greet(t, addressOf(t, w, "x.example"))
	for i, path := range []string{"/fine", "/gone", "/moved", "/busy"} {
		c.deliver(250, fmt.Sprintf("unsubscribe+%d@x.example", i), "<"+web.URL+path+">, <mailto:u@bounce.sender.example>")
	}
	got := settled(t, w)[world.FateUnsubscribe]
	if got != (ReturnCounts{Due: 4, Sent: 4, Accepted: 2, Refused: 2, OneClick: 4}) {
		t.Errorf("%+v\n%v", got, w.Ledger().ReturnFailures)
	}
	mu.Lock()
	defer mu.Unlock()
	if posts["/fine"] != 1 || posts["/busy"] != 2 || posts["/elsewhere"] != 0 {
		t.Errorf("requests: %v", posts)
	}
}

func TestNothingComesBackUnlessConfirmed(t *testing.T) {
	l := listen(t, nil)
	w := start(t, quick(world.Receiver{Quirks: []world.Quirk{{Kind: world.QuirkEarlyReply}}}, l.addr))
	c := greet(t, addressOf(t, w, "x.example"))
	c.say(250, "MAIL FROM:<b@sender.example>")
	c.say(250, "RCPT TO:<complaint@x.example>")
	c.say(354, "DATA")
	c.want(250) // before the content
	c.send(fmt.Sprintf(message, "e1") + ".")
	c.say(250, "NOOP")
	if got := settled(t, w); len(got) != 0 || len(l.arrived()) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestReturnsAreBounded(t *testing.T) {
	r, err := newReturns(time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	list := []world.Return{{Fate: world.FateAutoReply, Recipient: "a@x.example", ReturnPath: "b@s.example"}}
	for range maxReturns + 3 {
		r.reserve(list)
		r.submit(list, nil, time.Now())
	}
	r.reserve(list)
	r.forget(list)
	counts, _ := r.snapshot()
	if got := counts[world.FateAutoReply]; got != (ReturnCounts{Due: maxReturns + 3, Waiting: maxReturns, Dropped: 3}) {
		t.Errorf("%+v", got)
	}
}

func TestTriesEnd(t *testing.T) {
	r, err := newReturns(time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	list := []world.Return{{Fate: world.FateAutoReply, Recipient: "a@x.example", ReturnPath: "b@s.example"}}
	r.reserve(list)
	p := &parcel{fate: world.FateAutoReply, tries: 1}
	begin := time.Now()
	r.settle(p, io.ErrUnexpectedEOF)
	if wait := p.due.Sub(begin); wait < firstReturnPause || len(r.queue) != 1 {
		t.Errorf("the second try after %v, %d queued", wait, len(r.queue))
	}
	p.tries = returnTries
	r.settle(p, io.ErrUnexpectedEOF)
	counts, failures := r.snapshot()
	if got := counts[world.FateAutoReply]; got != (ReturnCounts{Due: 1, GivenUp: 1}) || len(failures) != 1 {
		t.Errorf("%+v %v", got, failures)
	}
}

func TestReturnsOverTheControlEndpoint(t *testing.T) {
	l := listen(t, nil)
	cfg := quick(world.Receiver{}, "")
	cfg.ControlListen = "127.0.0.1:0"
	w := start(t, cfg)
	post := func(body string) int {
		t.Helper()
		resp, err := http.Post("http://"+w.ControlAddr()+"/return_to", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	greet(t, addressOf(t, w, "x.example")).mail(250, "autoreply@x.example", "c1")
	if code := post(`{"to":"203.0.113.1:25"}`); code != http.StatusBadRequest {
		t.Errorf("a foreign address: %d", code)
	}
	if code := post(`{"to":"` + l.addr + `"}`); code != http.StatusNoContent {
		t.Errorf("an address: %d", code)
	}
	settled(t, w)
	var ledger Snapshot
	resp, err := http.Get("http://" + w.ControlAddr() + "/ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&ledger); err != nil || ledger.Returns[world.FateAutoReply].Accepted != 1 {
		t.Errorf("%v %+v", err, ledger.Returns)
	}
	if got := w.controlConfig().ReturnTo; got != l.addr {
		t.Errorf("config: %q", got)
	}
}
