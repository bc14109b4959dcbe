package smtpc

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mxrules"
)

// A script is what a server does, one step a line:
//
//	S: text      say text and CRLF; adjacent S: and s: lines go out in one write
//	s: text      say text as it stands, with Go escapes
//	C: text      the client must say exactly this line
//	DATA         the client must send content; it is kept, dots unstuffed
//	CHUNK n      the client must send n octets; they are kept as content
//	TLS          run a TLS handshake as the server
//	TLS-BROKEN   answer the handshake with garbage
//	WAIT d       let time pass
//	FLOOD text   say text, with Go escapes, over and over until the client is gone
//	TRICKLE d    say one octet every d until the client is gone
//	SWALLOW n    read n octets
//	HALFCLOSE    end our direction only
//	CLOSE        close; RESET: close with a reset
//	STALL        read nothing until the client is gone (the default at the end is EOF)
//	EOF          read until the client is gone; it must say nothing more
//
// "---" starts the script of the next connection.
type server struct {
	t       testing.TB
	scripts [][]string
	window  int
	tls     *tls.Config

	mu      sync.Mutex
	dials   int
	heard   []string // content of each DATA, and nothing else
	running sync.WaitGroup
}

const testWindow = 256 << 10

func newServer(t testing.TB, script string) *server {
	sv := &server{t: t, window: testWindow, tls: serverTLS("mx.example.com")}
	for part := range strings.SplitSeq(script, "---\n") {
		var steps []string
		for line := range strings.Lines(part) {
			if line = strings.TrimLeft(strings.TrimSuffix(line, "\n"), "\t"); line != "" {
				steps = append(steps, line)
			}
		}
		sv.scripts = append(sv.scripts, steps)
	}
	return sv
}

func (sv *server) dial(context.Context) (net.Conn, error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.dials == len(sv.scripts) {
		return nil, errors.New("connection refused: the script has no further connection")
	}
	client, end := memnet.Pipe(sv.window)
	steps := sv.scripts[sv.dials]
	sv.dials++
	sv.running.Go(func() { sv.play(end, steps) })
	return client, nil
}

// wait returns the contents received once all connections are over.
func (sv *server) wait() []string {
	sv.running.Wait()
	if sv.dials != len(sv.scripts) {
		sv.t.Errorf("%d connections made, the script has %d", sv.dials, len(sv.scripts))
	}
	return sv.heard
}

type player struct {
	*server
	raw  *memnet.Conn
	conn net.Conn
	r    *bufio.Reader
	say  []byte
}

func (sv *server) play(raw *memnet.Conn, steps []string) {
	p := &player{server: sv, raw: raw, conn: raw, r: bufio.NewReader(raw)}
	defer raw.Close()
	for i, step := range steps {
		verb, arg, _ := strings.Cut(step, " ")
		if verb != "S:" && verb != "s:" {
			p.flush()
		}
		if err := p.step(verb, arg); err != nil {
			sv.t.Errorf("script step %d %q: %v", i+1, step, err)
			return
		}
	}
	p.flush()
	if err := p.step("EOF", ""); err != nil {
		sv.t.Errorf("after the script: %v", err)
	}
}

func (p *player) flush() {
	if len(p.say) > 0 {
		_, _ = p.conn.Write(p.say) // a client that left is seen by the next step
		p.say = nil
	}
}

func (p *player) step(verb, arg string) error {
	switch verb {
	case "S:":
		p.say = append(p.say, arg+"\r\n"...)
	case "s:":
		text, err := strconv.Unquote(`"` + arg + `"`)
		p.say = append(p.say, text...)
		return err
	case "C:":
		return p.expect(arg)
	case "DATA":
		return p.data()
	case "CHUNK":
		return p.chunk(arg)
	case "TLS":
		return p.startTLS()
	case "TLS-BROKEN":
		_, _ = p.r.Peek(1)
		_, _ = p.raw.Write([]byte("this is no TLS record at all\r\n")) // the client may be gone
	case "HALFCLOSE":
		return p.raw.CloseWrite()
	case "RESET":
		_ = p.raw.SetLinger(0)
		return p.raw.Close()
	case "CLOSE":
		return p.raw.Close()
	default:
		return p.hostile(verb, arg)
	}
	return nil
}

func (p *player) hostile(verb, arg string) error {
	switch verb {
	case "WAIT", "TRICKLE":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		time.Sleep(d) // virtual time
		for verb == "TRICKLE" {
			if _, err := p.conn.Write([]byte("2")); err != nil {
				return nil
			}
			time.Sleep(d)
		}
	case "FLOOD":
		text, err := strconv.Unquote(`"` + arg + `"`)
		for err == nil {
			if _, gone := p.conn.Write([]byte(text)); gone != nil {
				return nil
			}
		}
		return err
	case "SWALLOW":
		var n int64
		if _, err := fmt.Sscan(arg, &n); err != nil {
			return err
		}
		_, err := io.CopyN(io.Discard, p.r, n)
		return err
	case "STALL":
		p.raw.AwaitPeerEnd()
		p.r.Reset(strings.NewReader(""))
	case "EOF":
		return p.expectEOF()
	default:
		return fmt.Errorf("no such verb %q", verb)
	}
	return nil
}

func (p *player) expect(want string) error {
	line, err := p.r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("client gone: %w after %q", err, line)
	}
	if line != want+"\r\n" {
		return fmt.Errorf("client said %q, want %q", line, want+"\r\n")
	}
	return nil
}

func (p *player) expectEOF() error {
	rest, _ := io.ReadAll(p.r)
	if len(rest) > 0 {
		return fmt.Errorf("client said more: %.200q", rest)
	}
	return nil
}

func (p *player) data() error {
	var content strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("content cut after %q: %w", line, err)
		}
		if line == ".\r\n" {
			break
		}
		content.WriteString(strings.TrimPrefix(line, "."))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, content.String())
	return nil
}

func (p *player) chunk(arg string) error {
	n, err := strconv.Atoi(arg)
	content := make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(p.r, content)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, string(content))
	return err
}

func (p *player) startTLS() error {
	conn := tls.Server(p.raw, p.tls)
	p.conn, p.r = conn, bufio.NewReader(conn)
	if err := conn.Handshake(); err != nil && !errors.Is(err, io.EOF) {
		p.r = bufio.NewReader(strings.NewReader("")) // the client's refusal is the test's matter
	}
	return nil
}

// certificate makes a self-signed certificate, valid in real and in synctest's time.
func certificate(names ...string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: names[0]},
		DNSNames:              names,
		NotBefore:             time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

var mxCertificate = sync.OnceValue(func() tls.Certificate { return certificate("mx.example.com") })

func serverTLS(name string) *tls.Config {
	if name == "mx.example.com" {
		return &tls.Config{Certificates: []tls.Certificate{mxCertificate()}}
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate(name)}}
}

// trusted is a client configuration that trusts the script server's certificate.
func trusted() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(mxCertificate().Leaf)
	return &tls.Config{RootCAs: roots}
}

func testConfig() Config {
	return Config{LocalName: "out.veredus.example", Host: "mx.example.com", TLS: mxrules.TLSNone}
}

// greeted is the preface of most scripts: a plain server that pipelines.
const greeted = `
	S: 220 mx.example.com ESMTP
	C: EHLO out.veredus.example
	S: 250-mx.example.com
	S: 250-PIPELINING
	S: 250-SIZE 100000
	S: 250 8BITMIME
`

// stepwise is the same without pipelining.
const stepwise = `
	S: 220 mx.example.com ESMTP
	C: EHLO out.veredus.example
	S: 250-mx.example.com
	S: 250 SIZE 100000
`

const (
	testFrom    = "b-1@bounce.veredus.example"
	testTo      = "ann@example.com"
	testMessage = "Subject: hi\r\n\r\nHello.\r\n"
)

// group is MAIL, RCPT and DATA for testMessage.
const group = `
	C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=23
	C: RCPT TO:<ann@example.com>
	C: DATA
`

func testEnvelope() Envelope { return Envelope{From: testFrom, To: testTo} }

// describe is a result in one line.
func describe(r Result) string {
	text := fmt.Sprintf("%s: %s", r.Reply.Phase, r.Reply)
	for _, flag := range []struct {
		on   bool
		name string
	}{{r.Delivered, "delivered"}, {r.Uncertain, "uncertain"}, {r.Local, "local"}, {r.Lost, "lost"}, {r.HungUp, "hung up"}, {!r.Began, "unsaid"}, {!r.Usable, "closed"}} {
		if flag.on {
			text += " [" + flag.name + "]"
		}
	}
	if r.Broke != Stepwise {
		text += " [broke " + r.Broke.String() + "]"
	}
	return text
}
