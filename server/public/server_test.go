package public

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
)

// network is a listener in memory.
type network struct {
	conns chan net.Conn
	once  sync.Once
	shut  chan struct{}
}

func newNetwork() *network { return &network{conns: make(chan net.Conn), shut: make(chan struct{})} }

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.shut:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { n.once.Do(func() { close(n.shut) }); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 443} }

func (n *network) dial() *memnet.Conn {
	client, server := memnet.Pipe(1 << 16)
	n.conns <- server
	return client
}

// serve runs a server until the test's end.
func serve(t *testing.T, h http.Handler, o ServerOptions, l net.Listener) *Server {
	t.Helper()
	s, err := NewServer(h, o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

func request(method, path, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: u\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", method, path, urlencoded, len(body), body)
}

// answers reads what a connection says until its end: the status lines.
func answers(t *testing.T, c net.Conn) (lines []string) {
	t.Helper()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if strings.HasPrefix(line, "HTTP/") {
			lines = append(lines, strings.TrimSpace(line))
		}
		if err != nil {
			return lines
		}
	}
}

// Whoever dawdles loses the connection, at the times that the limits say.
func TestSlowClientsAreCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		then string // every second
		want time.Duration
	}{
		"says nothing":      {"", "", headerWait},
		"dribbles headers":  {"POST /u/x HTTP/1.1\r\n", "X: y\r\n", headerWait},
		"dribbles its body": {"POST %s HTTP/1.1\r\nHost: u\r\nContent-Length: 1000\r\n\r\n", "x", requestWait},
		"stays":             {"GET %s HTTP/1.1\r\nHost: u\r\n\r\n", "", idleWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *Options) { o.Now = nil })
				n := newNetwork()
				serve(t, w, ServerOptions{}, n)
				conn := n.dial()
				defer conn.Close()
				began := time.Now()
				if strings.Contains(c.says, "%s") {
					c.says = fmt.Sprintf(c.says, w.path(claim))
				}
				_, _ = io.WriteString(conn, c.says)
				stop := make(chan struct{})
				var dribble sync.WaitGroup
				dribble.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Second):
							_, _ = io.WriteString(conn, c.then)
						}
					}
				})
				_, _ = io.Copy(io.Discard, conn)
				// net/http lingers half a second behind an answer to a request that it has not read wholly.
				if took := time.Since(began); took < c.want || took > c.want+time.Second {
					t.Errorf("cut off after %v, want %v", took, c.want)
				}
				close(stop)
				dribble.Wait()
				w.untouched()
			})
		})
	}
}

func TestOneClientCannotTakeAllConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Now = nil })
		n := newNetwork()
		s := serve(t, w, ServerOptions{MaxPerClient: 3}, n)
		if s.o.MaxConnections != DefaultMaxConnections {
			t.Error(s.o.MaxConnections)
		}
		var held []*memnet.Conn
		for range 3 {
			held = append(held, n.dial())
		}
		synctest.Wait()
		extra := n.dial()
		if _, err := extra.Read(make([]byte, 1)); err == nil {
			t.Error("the fourth connection lives")
		}
		_ = held[0].Close()
		synctest.Wait()
		next := n.dial()
		_, _ = io.WriteString(next, strings.Replace(request("POST", w.path(claim), form), "\r\n", "\r\nConnection: close\r\n", 1))
		if got := answers(t, next); len(got) != 1 || got[0] != "HTTP/1.1 200 OK" {
			t.Error(got)
		}
		for _, c := range held[1:] {
			_ = c.Close()
		}
		w.results(Unsubscribed)
	})
}

func TestHostileRequests(t *testing.T) {
	for name, c := range map[string]struct{ says, want string }{
		"garbage":           {"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"HTTP/2":            {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"large header":      {"GET / HTTP/1.1\r\nHost: u\r\nX: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large"},
		"large path":        {"GET /u/" + strings.Repeat("A", 2*maxHeaderBytes) + " HTTP/1.1\r\nHost: u\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large"},
		"two lengths":       {"POST %s HTTP/1.1\r\nHost: u\r\nContent-Length: 26\r\nContent-Length: 27\r\n\r\n" + form, "HTTP/1.1 400 Bad Request"},
		"a longer body":     {"POST %s HTTP/1.1\r\nHost: u\r\nContent-Length: 9999999999\r\n\r\n" + strings.Repeat("x", maxBody+1), "HTTP/1.1 413 Request Entity Too Large"},
		"OPTIONS *":         {"OPTIONS * HTTP/1.1\r\nHost: u\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"another's proxy":   {"GET http://other.example/ HTTP/1.1\r\nHost: u\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"CONNECT":           {"CONNECT other.example:443 HTTP/1.1\r\nHost: u\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"an escaped token":  {"GET /u/%%41%%0d%%0aX:y HTTP/1.1\r\nHost: u\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"chunks that break": {"POST %s HTTP/1.1\r\nHost: u\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + form, "HTTP/1.1 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *Options) { o.Now = nil })
				n := newNetwork()
				serve(t, w, ServerOptions{}, n)
				conn := n.dial()
				defer conn.Close()
				says := strings.Replace(c.says, "%s", w.path(claim), 1)
				says = strings.ReplaceAll(says, "%%", "%")
				go func() { _, _ = io.WriteString(conn, says) }()
				if got := answers(t, conn); len(got) == 0 || got[0] != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				w.untouched()
			})
		})
	}
}

func TestRequestsOnOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Now = nil })
		n := newNetwork()
		s := serve(t, w, ServerOptions{}, n)
		conn := n.dial()
		path := w.path(claim)
		_, _ = io.WriteString(conn, request("GET", path, "")+request("HEAD", path, "")+request("POST", path, form)+request("POST", path, form)+request("GET", "/x", ""))
		synctest.Wait()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		want := "HTTP/1.1 200 OK HTTP/1.1 200 OK HTTP/1.1 200 OK HTTP/1.1 200 OK HTTP/1.1 404 Not Found"
		if got := strings.Join(answers(t, conn), " "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		w.results(Shown, Shown, Unsubscribed, Repeated, NotFound)
	})
}

// Stopping waits for an unsubscribe under way.
func TestShutdownWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Now = nil })
		w.takes = 4 * time.Second
		n := newNetwork()
		s := serve(t, w, ServerOptions{}, n)
		conn := n.dial()
		_, _ = io.WriteString(conn, request("POST", w.path(claim), form))
		synctest.Wait()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		w.results(Unsubscribed)
		if got := answers(t, conn); len(got) != 1 || got[0] != "HTTP/1.1 200 OK" {
			t.Error(got)
		}
	})
}

// certify writes a certificate of a name.
func certify(t *testing.T, dir, name string, changed time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "u.crt"), filepath.Join(dir, "u.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		err := errors.Join(os.WriteFile(path, pem.EncodeToMemory(block), 0o600), os.Chtimes(path, changed, changed))
		if err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestOverTLS(t *testing.T) {
	w := newWorld(t)
	cert, key := certify(t, t.TempDir(), "u.shop.example", time.Now())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, w, ServerOptions{Cert: cert, Key: key}, l)
	roots := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	a, err := client.Post("https://u.shop.example"+w.path(claim), urlencoded, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode != 200 || a.Proto != "HTTP/1.1" {
		t.Error(a.Status, a.Proto)
	}
	old := &tls.Config{RootCAs: roots, ServerName: "u.shop.example", MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", l.Addr().String(), old); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is taken")
	}
	w.results(Unsubscribed)
}

func TestARenewedCertificateIsTaken(t *testing.T) {
	dir := t.TempDir()
	cert, key := certify(t, dir, "old.example", start)
	c, err := loadCertificate(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func(after time.Duration) string {
		c.checked = c.checked.Add(-after)
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.Subject.CommonName
	}
	certify(t, dir, "new.example", start.Add(time.Hour))
	for _, step := range []struct {
		what   string
		change func() error
		after  time.Duration
		want   string
	}{
		{"at once", nil, 0, "old.example"},
		{"a minute later", nil, certificateCheck, "new.example"},
		{"while it is written", func() error { return os.WriteFile(cert, []byte("half"), 0o600) }, certificateCheck, "new.example"},
		{"while it is not there", func() error { return os.Remove(key) }, certificateCheck, "new.example"},
	} {
		if step.change != nil {
			if err := step.change(); err != nil {
				t.Fatal(err)
			}
		}
		if got := shown(step.after); got != step.want {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
	if _, err := NewServer(http.NotFoundHandler(), ServerOptions{Cert: cert, Key: key}); err == nil || !strings.Contains(err.Error(), "public.tls") {
		t.Error(err)
	}
}

func TestClosedListenersAreReported(t *testing.T) {
	s, err := NewServer(http.NotFoundHandler(), ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork()
	_ = n.Close()
	if err := s.Serve(n); err == nil {
		t.Error("a listener that broke is not reported")
	}
	l := &fairListener{Listener: n, most: 1, open: map[netip.Prefix]int{}}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
