package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	wire "github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mta/unsubscribe"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/disk"
	"github.com/veredus/veredus/server/public"
)

// What comes back: bounce mails, complaints and unsubscribes by mail come to the inbound
// listener, one-click unsubscribes to the public one.

// Files in data_dir.
const (
	// KeysFile has the keys of return paths, for `veredus inbound --keys`.
	KeysFile = "returnpath.keys"
	// UnprocessedDir keeps mail that came back and was not understood.
	UnprocessedDir = "unprocessed"
)

// returns are the two listeners.
type returns struct {
	mailPort, webPort net.Listener // nil: none
	mail              *inbound.Server
	web               *public.Server
	byMail            *public.Handler
}

// InboundAddr is the host:port that takes bounces, complaints and unsubscribes by mail;
// empty when nothing does. Valid behind Start.
func (s *Server) InboundAddr() string {
	if s.returns.mailPort == nil {
		return ""
	}
	return s.returns.mailPort.Addr().String()
}

// PublicURL is what hosted unsubscribe links begin with; empty when there is no
// public listener. Valid behind Start.
func (s *Server) PublicURL() string { return s.links.base }

// listenReturns takes the ports of what comes back.
func (s *Server) listenReturns() (err error) {
	r := &s.returns
	r.mailPort, r.webPort = s.opts.Inbound, s.opts.Public
	if r.mailPort == nil && s.cfg.Inbound.Listen != "" {
		if r.mailPort, err = net.Listen("tcp", s.cfg.Inbound.Listen); err != nil {
			return fmt.Errorf("inbound.listen: %w", err)
		}
	}
	if r.webPort == nil && s.cfg.Public.Listen != "" {
		if r.webPort, err = net.Listen("tcp", s.cfg.Public.Listen); err != nil {
			return errors.Join(fmt.Errorf("public.listen: %w", err), closeAll(r.mailPort))
		}
	}
	if s.links.base = s.cfg.Public.URL; s.links.base == "" && r.webPort != nil {
		s.links.base = "http://" + r.webPort.Addr().String()
	}
	return nil
}

// addressPolicy is what follows from errors and wishes now.
func (s *Server) addressPolicy() address.Policy {
	p, c := address.DefaultPolicy(), s.settings.Load().cfg.Addresses
	p.Threshold, p.AllTenants, p.TenantUnsubscribe = c.Threshold, c.AllTenants, c.TenantUnsubscribe
	return p
}

// excluded answers the relay's question before each attempt. Single mail that offers
// to unsubscribe heeds unsubscribes, too.
func (s *Server) excluded(ctx context.Context, a mta.Addressee) (bounce.Reason, error) {
	q := address.Query{Folded: folded(a.Recipient), Tenant: a.Tenant, List: a.List, Class: address.Marketing}
	if a.Class == dispatch.Transactional && !a.Hosted {
		q.Class = address.Everything
	}
	answers, err := s.store.Exclusions(ctx, []address.Query{q})
	if err != nil || !answers[0].Excluded() {
		return bounce.ReasonNotDefined, err
	}
	return answers[0].Reason, nil
}

// folded is an address as entries compare it.
func folded(recipient string) string {
	a, err := wire.Parse(recipient)
	if err != nil {
		return strings.ToLower(recipient)
	}
	return a.Folded()
}

// makeReturns makes the listeners' servers.
func (s *Server) makeReturns(tokens *returnpath.Keys) (err error) {
	r := &s.returns
	base, err := url.Parse(s.links.base)
	if err != nil {
		return fmt.Errorf("public.url: %w", err)
	}
	r.byMail = public.NewHandler(public.Options{
		Keys: s.links.keys.Load, Suppressor: s.store, Path: base.Path, Observe: s.metrics.unsubscribed, Now: s.now, Log: s.log,
	})
	if r.webPort != nil {
		r.web, err = public.NewServer(r.byMail, public.ServerOptions{Cert: s.cfg.Public.TLS.Cert, Key: s.cfg.Public.TLS.Key, Log: s.log})
		if err != nil {
			return fmt.Errorf("public.tls: %w", err)
		}
	}
	if r.mailPort == nil {
		return nil
	}
	r.mail, err = s.newInbound(tokens)
	return err
}

// newInbound makes the listener for mail.
func (s *Server) newInbound(tokens *returnpath.Keys) (*inbound.Server, error) {
	c := &s.cfg.Inbound
	var secure *tls.Config
	if c.TLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("inbound.tls: %w", err)
		}
		secure = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	folder, err := inbound.OpenFolder(filepath.Join(s.cfg.DataDir, UnprocessedDir), inbound.FolderLimits{})
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	classifier := s.classifier(tokens)
	now := func() *config.Config { return s.settings.Load().cfg }
	return inbound.NewServer(inbound.ServerOptions{
		Hostname: c.Hostname, TLS: secure,
		Domains:     func() []string { return bounceDomainsOf(now()) },
		Addresses:   func() []string { return now().Inbound.Addresses },
		Unsubscribe: func() []string { return unsubscribeAddresses(now()) },
		Tokens:      tokens, Classifier: classifier, Ledger: s, Links: byMail{s.returns.byMail}, Unprocessed: folder,
		MaxMessageBytes: c.MaxMessageBytes, MaxConnections: c.MaxConnections, MaxConnectionsPerClient: c.MaxConnectionsPerClient,
		MessagesPerMinute: c.MessagesPerMinute,
		Now:               s.now, Log: s.log, Observe: s.metrics.inbound,
	})
}

// byMail takes unsubscribes by mail.
type byMail struct{ handler *public.Handler }

// Unsubscribe implements inbound.Links.
func (m byMail) Unsubscribe(ctx context.Context, token string) (ok bool, err error) {
	return m.handler.ByMail(ctx, token)
}

// classifier understands mails by the bounce rules in force.
func (s *Server) classifier(tokens *returnpath.Keys) func() *inbound.Classifier {
	var last atomic.Pointer[understanding]
	return func() *inbound.Classifier {
		table := s.bounces()
		if u := last.Load(); u != nil && u.table == table {
			return u.classifier
		}
		u := &understanding{table: table, classifier: inbound.NewClassifier(table, tokens).WithLinks(s.linked)}
		last.Store(u)
		return u.classifier
	}
}

// linked is the message that a hosted link names.
func (s *Server) linked(token string) (returnpath.Ref, bool) {
	claim, err := s.links.keys.Load().Open(token)
	return claim.Message, err == nil && claim.Message != returnpath.Ref{}
}

// understanding is a classifier with the rules it was made of.
type understanding struct {
	table      *bounce.Table
	classifier *inbound.Classifier
}

// Return implements inbound.Ledger: the store, and everybody who listens.
func (s *Server) Return(ctx context.Context, r inbound.Return) (inbound.Effect, error) {
	if s.disk.Level() == disk.Scarce {
		return 0, errNoRoom
	}
	effect, err := s.store.Return(ctx, r)
	if err == nil && effect == inbound.UnknownMessage && r.Kind == inbound.Complaint {
		return s.complained(ctx, r)
	}
	if err != nil || effect != inbound.Applied {
		return effect, err
	}
	delivery, ok := s.store.DeliveryID(r.Ref.Delivery)
	if !ok {
		return effect, nil
	}
	switch r.Kind {
	case inbound.Complaint:
		s.monitor.Complained(delivery, "")
		s.blame(ctx, delivery, &r)
	case inbound.OutOfBandBounce:
		s.monitor.Returned(delivery, "")
		s.texts.Said(said(r.Reply), "", r.Time)
	}
	return effect, nil
}

// complained denylists who complained about a message that is gone. The link in it tells the address
// and the tenant; that somebody may know the link is why the complaint must name the address.
func (s *Server) complained(ctx context.Context, r inbound.Return) (inbound.Effect, error) {
	claim, err := s.links.keys.Load().Open(r.Link)
	if err != nil {
		return inbound.UnknownMessage, nil
	}
	who := folded(claim.Address)
	if !slices.ContainsFunc(r.Recipients, func(named string) bool { return folded(named) == who }) {
		return inbound.OtherRecipient, nil
	}
	c := address.Cause{Address: claim.Address, Origin: address.FromComplaint}
	c.Time, c.Text = r.Time, r.Text
	repeated := true
	key := address.Key{Folded: who, Scope: s.addressPolicy().ComplaintScope(claim.Tenant)}
	_, err = s.store.ChangeAddressEntries(ctx, []address.Key{key}, address.Request{}, "complaint about a message that is not kept any more: "+r.Text,
		func(e address.Entry) address.Entry {
			repeated = e.Status == address.Denylisted
			return address.Complained(e, c)
		})
	if err != nil || repeated {
		return inbound.Repeated, err
	}
	return inbound.Applied, nil
}

// said is a reply without the codes that bounce mails quote with its text.
func said(reply smtpc.Reply) smtpc.Reply {
	if quoted := bounce.ParseReply(reply.Text); quoted.Code == reply.Code && reply.Code != 0 {
		reply.Text = quoted.Text
	}
	return reply
}

// bounceDomainsOf are the domains that mail comes back to.
func bounceDomainsOf(cfg *config.Config) []string {
	var all []string
	for _, d := range cfg.DKIM.Domains {
		if d.BounceDomain == "" {
			all = append(all, d.Domain)
		} else {
			all = append(all, d.BounceDomain)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unsubscribeAddresses are those configured, and the one that hosted links name.
func unsubscribeAddresses(cfg *config.Config) []string {
	all := slices.Clone(cfg.Inbound.Unsubscribe)
	for _, d := range bounceDomainsOf(cfg) {
		all = append(all, unsubscribe.Mailbox+"@"+d)
	}
	return all
}

// writeTokenKeys lays the keys of return paths beside the store, for `veredus inbound`.
func (s *Server) writeTokenKeys(id byte, secret []byte) error {
	if s.opts.FS != vfs.Default {
		return nil // not a disk that another program could read
	}
	path := filepath.Join(s.cfg.DataDir, KeysFile)
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d %x\n", id, secret), 0o600); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}

// serveReturns begins to take what comes back.
func (s *Server) serveReturns() {
	r := &s.returns
	if r.web != nil {
		s.serving.Go(func() { s.ended("public", r.web.Serve(r.webPort)) })
	}
	if r.mail != nil {
		s.serving.Go(func() { s.ended("inbound", r.mail.Serve(r.mailPort)) })
	}
}

func (s *Server) ended(what string, err error) {
	if err != nil && !errors.Is(err, inbound.ErrServerClosed) && !s.draining.Load() {
		s.log.Error("a listener ended", "listener", what, "error", err)
	}
}

// returnsEnd is how long mail and requests under way get at the end.
const returnsEnd = 5 * time.Second

// endReturns takes no more, and waits for what is under way.
func (s *Server) endReturns(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, returnsEnd)
	defer cancel()
	if s.returns.mail != nil {
		_ = s.returns.mail.Close(ctx)
	}
	if s.returns.web != nil {
		_ = s.returns.web.Shutdown(ctx)
	}
}
