// Package serve puts the receivers of integration/world behind real TCP and a
// real DNS server on loopback, and keeps the ledger of what they received.
//
// Every mail exchanger gets an address of its own in 127.0.0.0/8; all listen on
// one port, and the DNS server leads there. A sender under test needs only the
// DNS server's address and that port. [Start] begins it all, [World.Close] ends
// it. Linux is required, because only Linux takes the whole of 127.0.0.0/8.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/integration/world"
)

// Config says what to serve and where. Only World is needed.
type Config struct {
	// World is the receivers.
	World world.World
	// Limits replaces the limits stated for single receivers, by name.
	Limits map[string]world.Limits
	// SMTPPort is the port of all mail exchangers; 0 takes a free one.
	SMTPPort int
	// DNSListen is the host:port of the DNS server, UDP and TCP. Default
	// "127.0.0.1:0", a free port.
	DNSListen string
	// ControlListen is the host:port of the control endpoint; empty for none. It
	// must be a loopback address.
	ControlListen string
	// Network is where the mail exchangers' addresses come from, a /16 inside
	// 127.0.0.0/8. Default 127.77.0.0/16.
	Network netip.Prefix
	// VerifyEvery checks the DKIM signatures of every n-th accepted message; the
	// others count as unchecked. 0 and 1 check all, a negative number none.
	VerifyEvery int
	// Verifiers is how many goroutines check signatures. Default: one per CPU.
	Verifiers int
	// MaxConnections caps connections over all receivers; more are closed at
	// once. Default 4096.
	MaxConnections int
	// MaxMessageBytes caps a message's content. Default 32 MiB.
	MaxMessageBytes int
	// IdleTimeout ends a connection that sends nothing. Default 5 min (RFC 5321
	// section 4.5.3.2.7).
	IdleTimeout time.Duration
	// ReturnTo is where bounces, complaints and replies are sent to by SMTP: the
	// host:port of the sender's inbound listener, on loopback. While it is empty they
	// wait; see [World.SetReturnTo].
	ReturnTo string
	// Logger receives what goes wrong on our side. Default: nothing.
	Logger *slog.Logger
}

func (cfg *Config) setDefaults() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("the receiving world gives each mail exchanger an address in 127.0.0.0/8, which %s does not offer; run it on Linux", runtime.GOOS)
	}
	if err := cfg.World.Validate(); err != nil {
		return fmt.Errorf("world %q: %w", cfg.World.Name, err)
	}
	if cfg.SMTPPort < 0 || cfg.SMTPPort > 65535 {
		return fmt.Errorf("smtp_port: %d; use 1 to 65535, or 0 for a free port", cfg.SMTPPort)
	}
	if !cfg.Network.IsValid() {
		cfg.Network = netip.MustParsePrefix("127.77.0.0/16")
	}
	if cfg.Network.Bits() != 16 || !cfg.Network.Addr().Is4() || !cfg.Network.Addr().IsLoopback() {
		return fmt.Errorf("network: %s; use a /16 inside 127.0.0.0/8", cfg.Network)
	}
	setDefault(&cfg.DNSListen, "127.0.0.1:0")
	setDefault(&cfg.VerifyEvery, 1)
	setDefault(&cfg.Verifiers, runtime.GOMAXPROCS(0))
	setDefault(&cfg.MaxConnections, 4096)
	setDefault(&cfg.MaxMessageBytes, 32<<20)
	setDefault(&cfg.IdleTimeout, 5*time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// World is a running world. All methods are safe for concurrent use.
type World struct {
	cfg       Config
	port      int
	sites     []*site
	byName    map[string]*site
	zone      *zone
	ledger    *ledger
	verifier  *verifier
	returns   *returns
	tls       *tls.Config
	certPEM   []byte
	dns       *dnsServer
	control   *controlServer
	listeners []net.Listener

	ctx    context.Context
	cancel context.CancelFunc
	conns  sync.WaitGroup
	open   atomic.Int64
	closed sync.Once
}

// Start serves a world until ctx ends or Close is called.
func Start(ctx context.Context, cfg Config) (*World, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	w := &World{cfg: cfg, byName: map[string]*site{}}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := w.start(); err != nil {
		w.Close()
		return nil, err
	}
	context.AfterFunc(ctx, w.Close)
	return w, nil
}

func (w *World) start() (err error) {
	hosts := layOut(&w.cfg.World, w.cfg.Network)
	if err := w.openSites(time.Now()); err != nil {
		return err
	}
	if w.tls, w.certPEM, err = newCertificate(hosts); err != nil {
		return err
	}
	if w.ledger, err = newLedger(w.sites); err != nil {
		return err
	}
	w.zone = newZone(&w.cfg.World, hosts)
	w.verifier = newVerifier(w.ledger, w.zone, w.cfg.VerifyEvery, w.cfg.Verifiers)
	if w.returns, err = newReturns(w.cfg.World.Magic.WithDefaults().ReturnDelay.Std(), w.cfg.ReturnTo); err != nil {
		return err
	}
	if w.port, w.listeners, err = listenAll(hosts, w.cfg.SMTPPort); err != nil {
		return err
	}
	if w.dns, err = serveDNS(w.cfg.DNSListen, w.zone); err != nil {
		return err
	}
	if w.cfg.ControlListen != "" {
		if w.control, err = serveControl(w); err != nil {
			return err
		}
	}
	w.serveHosts(hosts)
	return nil
}

func (w *World) openSites(now time.Time) error {
	for _, r := range w.cfg.World.Receivers {
		model, err := world.NewModel(&w.cfg.World, r.Name, now)
		if err != nil {
			return err
		}
		s := &site{name: r.Name, model: model, audit: world.NewAudit(r.Name, r.Stated), live: map[*conn]struct{}{}}
		w.sites = append(w.sites, s)
		w.byName[r.Name] = s
	}
	return w.SetLimits(w.cfg.Limits)
}

// DNSAddr returns the DNS server's host:port.
func (w *World) DNSAddr() string { return w.dns.addr }

// SMTPPort returns the port of every mail exchanger.
func (w *World) SMTPPort() int { return w.port }

// ControlAddr returns the control endpoint's host:port, empty if there is none.
func (w *World) ControlAddr() string {
	if w.control == nil {
		return ""
	}
	return w.control.addr
}

// CertificatePEM returns the self-signed certificate that all mail exchangers
// show. It names every host, so trusting it makes them verifiable.
func (w *World) CertificatePEM() []byte { return w.certPEM }

// AddTXT publishes a TXT record. Below "_domainkey" it replaces what the name
// held, since a DKIM key must be alone there (RFC 6376 section 3.6.2.2);
// elsewhere it is added. Letter case of the name does not matter.
func (w *World) AddTXT(name, value string) error { return w.zone.addTXT(name, value) }

// SetLimits replaces the limits stated for the receivers named, as a reloaded
// rule file would. It fails, changing nothing, if a receiver is unknown.
func (w *World) SetLimits(limits map[string]world.Limits) error {
	for name, l := range limits {
		if w.byName[name] == nil {
			return fmt.Errorf("limits: there is no receiver %q", name)
		}
		if err := l.Validate(); err != nil {
			return fmt.Errorf("limits of %q: %w", name, err)
		}
	}
	for name, l := range limits {
		s := w.byName[name]
		s.mu.Lock()
		s.audit.SetLimits(l)
		s.mu.Unlock()
	}
	return nil
}

// Close stops everything and waits for it. Connections are cut.
func (w *World) Close() {
	w.closed.Do(func() {
		w.cancel()
		for _, l := range w.listeners {
			_ = l.Close()
		}
		w.conns.Wait()
		if w.returns != nil {
			w.returns.close()
		}
		if w.control != nil {
			w.control.close()
		}
		if w.dns != nil {
			w.dns.close()
		}
		if w.verifier != nil {
			w.verifier.close()
		}
		if w.ledger != nil {
			if err := w.ledger.close(); err != nil && !errors.Is(err, net.ErrClosed) {
				w.cfg.Logger.Warn("closing the ledger's spool file", "error", err)
			}
		}
	})
}
