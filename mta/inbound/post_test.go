package inbound

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta/bounce"
)

const (
	bounceDomain = "bounce.sender.example"
	oursTo       = "ann@corp.example.net" // the recipient of the message that ours names
)

// book is a ledger that knows one message and keeps what it was told.
type book struct {
	mu       sync.Mutex
	told     []Return
	applied  map[ReturnKind]bool
	fail     error
	hold     chan struct{} // Return waits for it, if there is one
	unknown  bool
	unsealed []string
}

func (b *book) Return(ctx context.Context, r Return) (Effect, error) {
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return 0, b.fail
	}
	b.told = append(b.told, r)
	switch {
	case b.unknown || r.Ref != ours:
		return UnknownMessage, nil
	case r.Confirm && !slices.Contains(r.Recipients, oursTo):
		return OtherRecipient, nil
	case b.applied[r.Kind]:
		return Repeated, nil
	}
	if b.applied == nil {
		b.applied = map[ReturnKind]bool{}
	}
	b.applied[r.Kind] = true
	return Applied, nil
}

// sealedToken is the unsubscribe token that the book opens.
const sealedToken = "AQABq83vSealedTokenOfAnnAndHerList_-42"

func (b *book) Unsubscribe(_ context.Context, token string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return false, b.fail
	}
	if token == sealedToken {
		b.unsealed = append(b.unsealed, token)
	}
	return token == sealedToken, nil
}

func (b *book) failing(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

// returns is what the book was told.
func (b *book) returns() []Return {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.told)
}

// post is a server on a listener in memory.
type post struct {
	*Server
	t        testing.TB
	book     *book
	folder   *Folder
	incoming *incoming
	token    string // of the message ours
	served   chan error

	mu   sync.Mutex
	seen []Observation
}

// open starts a server; change may change its options.
func open(t testing.TB, change func(*ServerOptions)) *post {
	t.Helper()
	folder, err := OpenFolder(t.TempDir(), FolderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	keys := testKeys(t, 1)
	p := &post{t: t, book: &book{}, folder: folder, token: keys.Token(ours), incoming: &incoming{conns: make(chan net.Conn), closed: make(chan struct{})}, served: make(chan error, 1)}
	classifier := NewClassifier(bounce.Default(), keys)
	o := ServerOptions{
		Hostname: "mx.sender.example", Domains: func() []string { return []string{bounceDomain} }, Tokens: keys,
		Classifier: func() *Classifier { return classifier }, Ledger: p.book, Links: p.book, Unprocessed: folder, Observe: p.observe,
	}
	if change != nil {
		change(&o)
	}
	if p.Server, err = NewServer(o); err != nil {
		t.Fatal(err)
	}
	go func() { p.served <- p.Serve(p.incoming) }()
	return p
}

// end closes the server, which must have nothing left to do.
func (p *post) end() {
	p.t.Helper()
	if err := p.Close(context.Background()); err != nil {
		p.t.Error(err)
	}
	if err := <-p.served; !errors.Is(err, ErrServerClosed) {
		p.t.Errorf("Serve: %v, want ErrServerClosed", err)
	}
	if held := p.gate.holding(); held != 0 {
		p.t.Errorf("%d octets of room were not given back", held)
	}
}

func (p *post) observe(o Observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.Duration = 0
	p.seen = append(p.seen, o)
}

func (p *post) observed() []Observation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// saw fails unless exactly these things were observed, in this order.
func (p *post) saw(want ...Observation) {
	p.t.Helper()
	if got := p.observed(); !slices.Equal(got, want) {
		p.t.Errorf("observed %+v,\nwant %+v", got, want)
	}
}

// incoming is a listener in memory.
type incoming struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (i *incoming) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.closed:
		return nil, net.ErrClosed
	}
}

func (i *incoming) Close() error {
	i.once.Do(func() { close(i.closed) })
	return nil
}

func (i *incoming) Addr() net.Addr { return &net.TCPAddr{} }

// sender is a client of the post.
type sender struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

// from is a connection that comes from an address.
type from struct {
	*memnet.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// dial connects from an address.
func (p *post) dial(ip string) *sender {
	p.t.Helper()
	client, server := memnet.Pipe(64 << 10)
	p.incoming.conns <- from{server, &net.TCPAddr{IP: net.ParseIP(ip), Port: 40000}}
	return &sender{client, p.t, bufio.NewReader(client)}
}

// sender connects, and reads the greeting and the reply to EHLO.
func (p *post) sender() *sender {
	p.t.Helper()
	s := p.dial("192.0.2.7")
	s.expect("220")
	s.say("EHLO mx.example.net", "250")
	return s
}

// say sends a line and expects a reply that begins so; it returns the reply.
func (s *sender) say(line, want string) string {
	s.t.Helper()
	s.send(line + "\r\n")
	return s.expect(want)
}

func (s *sender) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.Conn, text); err != nil {
		s.t.Fatalf("send %.40q: %v", text, err)
	}
}

// expect reads a reply, all lines of it.
func (s *sender) expect(want string) string {
	s.t.Helper()
	var all strings.Builder
	for {
		line, err := s.br.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			s.t.Fatalf("wanted %q, got %q and %v", want, all.String(), err)
		}
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if !strings.HasPrefix(all.String(), want) {
		s.t.Errorf("wanted %q, got %q", want, all.String())
	}
	return all.String()
}

// gone expects that the server closed the connection.
func (s *sender) gone() {
	s.t.Helper()
	if rest, err := io.ReadAll(s.br); err != nil || len(rest) > 0 {
		s.t.Errorf("after the end: %q, %v", rest, err)
	}
}

// mail sends one mail from the null sender and returns the reply to it.
func (s *sender) mail(to, content, want string) string {
	s.t.Helper()
	return s.mailFrom("", to, content, want)
}

func (s *sender) mailFrom(sender, to, content, want string) string {
	s.t.Helper()
	s.say("MAIL FROM:<"+sender+">", "250")
	s.say("RCPT TO:<"+to+">", "250")
	s.say("DATA", "354")
	s.send(crlf(content))
	return s.say("\r\n.", want)
}

// crlf gives a text the line ends of SMTP, and hides its dots.
func crlf(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	return strings.ReplaceAll(text, "\r\n.", "\r\n..")
}
