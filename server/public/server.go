package public

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Limits of the listener. A request is a few hundred octets either way, so that whoever takes
// longer is broken or hostile.
const (
	headerWait     = 5 * time.Second
	requestWait    = 10 * time.Second
	answerWait     = 40 * time.Second // above requestWait, actingWait and storeWait together
	idleWait       = 30 * time.Second
	maxHeaderBytes = 16 << 10

	// DefaultMaxConnections and DefaultMaxPerClient are how many connections are open at a time,
	// from all and from one client. Proxies at loopback and private addresses are not counted
	// as one client.
	DefaultMaxConnections = 2000
	DefaultMaxPerClient   = 100
)

// ServerOptions say how a Handler is served; all may be left out.
type ServerOptions struct {
	// Cert and Key are PEM files; without them it serves plain HTTP, for a proxy that ends TLS. They are
	// read again when they change, so that a renewed certificate needs no restart.
	Cert, Key string
	// MaxConnections and MaxPerClient bound open connections; 0 is the default.
	MaxConnections, MaxPerClient int
	// Log is told of what goes wrong; nil discards it.
	Log *slog.Logger
}

// Server puts a Handler on a port. HTTP/1.1 only: one request is all that a client has to say.
type Server struct {
	http *http.Server
	o    ServerOptions
}

// NewServer reads the certificate and makes the server.
func NewServer(h http.Handler, o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.MaxPerClient <= 0 {
		o.MaxPerClient = DefaultMaxPerClient
	}
	s := &Server{o: o, http: &http.Server{
		Handler:   h,
		Protocols: new(http.Protocols),
		// OPTIONS * is answered like any other path that is not there.
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            headerWait,
		ReadTimeout:                  requestWait,
		WriteTimeout:                 answerWait,
		IdleTimeout:                  idleWait,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}}
	s.http.Protocols.SetHTTP1(true)
	if o.Cert == "" && o.Key == "" {
		return s, nil
	}
	files, err := loadCertificate(o.Cert, o.Key, o.Log)
	if err != nil {
		return nil, err
	}
	s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.get}
	return s, nil
}

// Serve answers on a listener until Shutdown, then returns nil. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	l = netutil.LimitListener(&fairListener{Listener: l, most: s.o.MaxPerClient, open: map[netip.Prefix]int{}}, s.o.MaxConnections)
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(l, "", "")
	} else {
		err = s.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("public listener: %w", err)
}

// Shutdown takes no more requests and waits for those under way; when ctx ends first it cuts
// them off and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// fairListener closes what one client opens beyond its share, so that it cannot hold all
// connections with requests that never end.
type fairListener struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[netip.Prefix]int
}

// Accept implements net.Listener.
func (l *fairListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client, limited := clientOf(conn.RemoteAddr().String())
		if !limited {
			return conn, nil
		}
		if l.take(client) {
			return &fairConn{Conn: conn, release: sync.OnceFunc(func() { l.give(client) })}, nil
		}
		_ = conn.Close()
	}
}

func (l *fairListener) take(client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client] >= l.most {
		return false
	}
	l.open[client]++
	return true
}

func (l *fairListener) give(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client]--; l.open[client] <= 0 {
		delete(l.open, client)
	}
}

// fairConn gives its place back when it is closed.
type fairConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *fairConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
