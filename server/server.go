// Package server puts the parts together: the store, the relay, the services of the
// API and the two ports. New checks and reads what the configuration names; Start
// begins; Run serves until a signal; Stop ends gracefully.
package server

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/disk"
	"github.com/veredus/veredus/server/doctor"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/forecast"
	"github.com/veredus/veredus/server/heap"
	"github.com/veredus/veredus/server/learning"
	"github.com/veredus/veredus/server/protect"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

// errStoreClosed is a call that came behind the end of the store.
var errStoreClosed = pebblestore.ErrClosed

// Options are what a server takes beside its configuration; all may be left out.
type Options struct {
	// Reload reads the configuration anew, as it was read for New; nil keeps it and
	// reads only the files it names.
	Reload func() (*config.Config, error)
	// Resolver finds routes, in place of the one that the mode asks for.
	Resolver mta.Resolver
	// Dial opens the relay's connections, in place of the one that the mode asks for.
	Dial func(ctx context.Context, t mta.Target) (net.Conn, error)
	// TLS is the base of the relay's TLS sessions.
	TLS *tls.Config
	// Signer replaces the signer of each DKIM key loaded, for measurements of all that is
	// not the signature.
	Signer func(crypto.Signer) crypto.Signer
	// FS is the file system of data_dir; nil is the machine's.
	FS vfs.FS
	// GRPC and HTTP are listened on in place of grpc.listen and http.listen; GRPC
	// without HTTP means that there is no HTTP port. The server closes them.
	GRPC, HTTP net.Listener
	// Inbound and Public are listened on in place of inbound.listen and public.listen.
	Inbound, Public net.Listener
	// Now stamps everything; nil is time.Now.
	Now func() time.Time
	// Log takes what operators read; nil discards it.
	Log *slog.Logger
	// memory answers what the process uses, in tests.
	memory func() int64
	// Grace is how long running transactions get at Stop (default 30 s).
	Grace time.Duration
}

// Server is one node. Its methods are safe for concurrent use; Start and Stop are
// called once each, in this order.
type Server struct {
	cfg      *config.Config // as at start; what a reload changes is in settings
	opts     Options
	log      *slog.Logger
	now      func() time.Time
	settings atomic.Pointer[settings]
	metrics  *metrics
	resolver mta.Resolver
	// reloading is held while the configuration is read and put into force.
	reloading sync.Mutex
	sessions  int // at most

	store       *pebblestore.Store
	disk        *disk.Guard
	memory      *heap.Guard
	intake      *intake
	relayStore  *relayStore
	relay       *mta.Relay
	suspensions *suspensions
	replies     *replies
	paces       *paces
	works       *works
	overrides   *overrides
	campaigns   *campaign.Service
	monitor     *protect.Monitor
	texts       *learning.Table
	history     forecast.History
	forecasts   *forecaster
	links       links
	returns     returns
	grpc        *grpc.Server
	health      *health.Server
	http        *http.Server

	open     sync.Once       // closes relayStore.open
	stopping chan struct{}   // closed when streams shall end
	watching context.Context // of the monitor
	blind    context.CancelFunc
	draining atomic.Bool // Stop was called
	ready    atomic.Bool
	fault    atomic.Pointer[error] // the store failed
	failed   chan error
	serving  sync.WaitGroup
}

// New checks the configuration and reads the files it names. What is wrong with
// them is a *config.Errors.
func New(cfg *config.Config, opts Options) (*Server, error) {
	s := &Server{
		cfg: cfg, opts: opts, log: opts.Log, now: opts.Now,
		metrics: newMetrics(), replies: newReplies(), paces: newPaces(),
		stopping: make(chan struct{}), failed: make(chan error, 1),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.opts.FS == nil {
		s.opts.FS = vfs.Default
	}
	s.watching, s.blind = context.WithCancel(context.Background())
	set, err := loadSettings(cfg)
	if err != nil {
		return nil, err
	}
	set.replaceSigners(opts.Signer)
	s.settings.Store(set)
	s.metrics.version.Set(float64(set.version))
	s.metrics.registry.MustRegister(newSigners(func() []*dkim.Key { return s.settings.Load().keys }))
	s.resolver = opts.Resolver
	if s.resolver == nil {
		s.resolver, err = newResolver(cfg, s.now, func(host string) string { return s.settings.Load().rules.ProviderOf(host) })
	}
	return s, err
}

// Start opens the store, recovers and begins to serve. When it fails, everything is
// closed again.
func (s *Server) Start(ctx context.Context) error {
	for _, w := range append(s.settings.Load().warnings, foreignSources(s.cfg, route.LocalAddrs())...) {
		s.log.Warn("configuration: " + w)
	}
	s.logSigners(s.settings.Load().keys)
	err := s.start(ctx)
	if err != nil {
		s.cutShort()
	}
	return err
}

func (s *Server) start(ctx context.Context) error {
	grpcListener, httpListener, err := s.listen()
	if err != nil {
		return err
	}
	err = s.listenReturns()
	if err == nil {
		err = s.openStore(ctx)
	}
	if err == nil {
		err = s.startRelay(ctx)
	}
	if err == nil {
		err = s.register()
	}
	if err != nil {
		return errors.Join(err, closeAll(grpcListener, httpListener, s.returns.mailPort, s.returns.webPort))
	}
	s.serve(grpcListener, httpListener)
	return nil
}

// listen takes the ports first: two servers on one store would be worse than none.
func (s *Server) listen() (g, h net.Listener, err error) {
	g, h = s.opts.GRPC, s.opts.HTTP
	if g == nil {
		if g, err = net.Listen("tcp", s.cfg.GRPC.Listen); err != nil {
			return nil, nil, fmt.Errorf("grpc.listen: %w", err)
		}
	}
	if h == nil && s.opts.GRPC == nil && s.cfg.HTTP.Listen != "" {
		if h, err = net.Listen("tcp", s.cfg.HTTP.Listen); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("http.listen: %w", err), closeAll(g))
		}
	}
	return g, h, nil
}

func closeAll(listeners ...net.Listener) error {
	var errs []error
	for _, l := range listeners {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// openStore opens the store in data_dir, which only its owner may read: it holds
// addresses and keys.
func (s *Server) openStore(ctx context.Context) error {
	if err := s.opts.FS.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	dir := s.opts.FS.PathJoin(s.cfg.DataDir, "store")
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir, FS: s.opts.FS, Now: s.now, Logger: s.log, Policy: s.addressPolicy, Lost: s.lost})
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	s.store, s.disk = store, s.newGuard()
	s.intake, s.memory = newIntake(s.cfg.GRPC, s.metrics.shed), s.newMemoryGuard()
	s.links.store, s.links.log = store, s.log
	s.links.bounceDomain = func(from string) string { return s.settings.Load().bounceDomain(from) }
	s.texts = learning.NewTable(learning.TableOptions{Store: store, Bounces: s.bounces, Log: s.log})
	return s.links.load(ctx)
}

// startRelay recovers and begins to send; what is suspended stays so.
func (s *Server) startRelay(ctx context.Context) (err error) {
	if s.sessions, err = s.boundSessions(); err != nil {
		return err
	}
	tokens, err := s.tokens(ctx)
	if err != nil {
		return err
	}
	s.relayStore = &relayStore{
		Store: s.store, open: make(chan struct{}),
		wrote:   func(d time.Duration) { s.metrics.commits.Observe(d.Seconds()) },
		settled: s.settled,
	}
	s.relay = mta.New(s.relayConfig(tokens))
	s.forecasts = s.forecaster()
	s.campaigns = campaign.NewService(s.campaignOptions())
	s.monitor = protect.NewMonitor(protect.Options{
		Ledger: s.store, Deliveries: s.campaigns, Thresholds: protect.FromConfig(s.cfg.Protection), Now: s.now, Log: s.log,
	})
	if err := s.makeReturns(tokens); err != nil {
		return err
	}
	if _, err := s.relay.Start(ctx); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	s.suspensions = &suspensions{store: s.store, relay: s.relay, number: s.deliveryNumber, now: s.now, log: s.log}
	if err := s.suspensions.start(ctx); err != nil {
		return fmt.Errorf("suspensions: %w", err)
	}
	if err := s.startOverrides(ctx); err != nil {
		return fmt.Errorf("overrides: %w", err)
	}
	s.disk.Look(ctx)
	s.letMailFlow()
	return s.startWorks(ctx)
}

// settled tells everybody who listens what became durable.
func (s *Server) settled(list []mta.Settlement) {
	s.replies.settled(list)
	s.paces.settled(list)
	s.texts.Settled(list)
	s.history.Settled(list)
	s.monitor.Settled(list)
}

func (s *Server) letMailFlow() { s.open.Do(func() { close(s.relayStore.open) }) }

// tokens are the keys of return paths and Message-IDs.
func (s *Server) tokens(ctx context.Context) (*returnpath.Keys, error) {
	secret, err := s.store.ReturnPathKeys(ctx)
	if err != nil {
		return nil, err
	}
	key := returnpath.Key{ID: 1}
	copy(key.Secret[:], secret)
	if err := s.writeTokenKeys(key.ID, secret); err != nil {
		return nil, err
	}
	return returnpath.NewKeys(key)
}

func (s *Server) relayConfig(tokens *returnpath.Keys) mta.Config {
	scale := s.cfg.Sandbox.TimeScale
	schedule := mta.Schedule{Scale: scale}
	c := mta.Config{
		Store: s.relayStore, Resolver: s.resolver, Dial: s.opts.Dial, Tokens: tokens,
		Settings: s.settings.Load().relay(),
		Dispatch: dispatch.Config{
			MaxSessions:  s.sessions,
			MaxUnsettled: unsettled(s.sessions),
			HostCooldown: schedule.Scaled(hostCooldown),
			Timings:      mxrules.DefaultTimings().Divide(scale),
			Seed:         rand.Uint64(),
		},
		Schedule: schedule, TLS: s.opts.TLS, Grace: s.opts.Grace, Now: s.now, Log: s.log,
		Observe: s.metrics.observe, Excluded: s.excluded, Links: s.links.of, Fatal: s.fail,
		Hold: func(delivery, text string) { s.monitor.Ordered(delivery, text) },
	}
	if c.Dial == nil {
		c.Dial = newDialer(s.cfg).dial
	}
	return c
}

// unsettled is how many messages may be sent and not settled: one on the wire for each
// session, and as many whose outcome is on its way to the disk; but not few, so that
// few sessions do not wait for a slow disk.
func unsettled(sessions int) int { return max(1024, 2*sessions) }

// hostCooldown is how long a host that failed to connect is skipped, before scaling.
const hostCooldown = 5 * time.Minute

// lost records the claims that the last process left behind.
func (s *Server) lost(claims []mta.LostClaim) error {
	path := s.opts.FS.PathJoin(s.cfg.DataDir, ClaimsFile)
	if err := appendClaims(s.opts.FS, path, claims, s.now()); err != nil {
		return fmt.Errorf("listing claims that may be repeated: %w", err)
	}
	return nil
}

func (s *Server) deliveryNumber(ctx context.Context, id string) (uint64, error) {
	d, err := s.store.Get(ctx, id)
	if errors.Is(err, campaign.ErrNotFound) {
		return 0, &campaign.NotFoundError{Resource: deliveriesPrefix + clip(id, 100)}
	}
	if err != nil {
		return 0, err
	}
	return d.No, nil
}

// register makes the services.
func (s *Server) register() (err error) {
	e := &edge{log: s.log, metrics: s.metrics, intake: s.intake, memory: s.memory, admit: s.admit, stopping: s.stopping}
	s.grpc, err = newGRPC(s.cfg.GRPC, e)
	if err != nil {
		return err
	}
	services := ahead{s.grpc, e}
	veredusv1.RegisterCampaignServiceServer(services, s.campaigns)
	veredusv1.RegisterFeedbackServiceServer(services, feedback.NewService(s.store, s.stopping))
	veredusv1.RegisterRelayServiceServer(services, &relayService{
		relay: s.relay, resolver: s.resolver, suspensions: s.suspensions, replies: s.replies, paces: s.paces,
		settings: s.settings.Load, reload: s.reloadConfig, now: s.now, texts: s.learningService(),
		operations: s.operations(), forecaster: s.forecasts,
		identities: &identities{relay: s.relay, settings: s.settings.Load, calls: s.calls()},
	})
	s.metrics.registry.MustRegister(newWarmUpGauges(s.relay))
	veredusv1.RegisterAddressServiceServer(services, s.addressService())
	s.registerDisk()
	s.intake.register(s.metrics.registry)
	s.health = health.NewServer()
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.metrics.registry.MustRegister(newQueue(s.relay.Totals))
	return nil
}

func (s *Server) campaignOptions() campaign.Options {
	return campaign.Options{
		Deliveries: s.store, Recipients: s.store, Log: s.store, Relay: s.relay,
		Keys:         func(from string) []*dkim.Key { return s.settings.Load().keyring.Find(from) },
		BounceDomain: func(from string) string { return s.settings.Load().bounceDomain(from) },
		HasPool:      func(name string) bool { return s.settings.Load().hasPool(name) },
		HostedURL:    s.PublicURL,
		Addresses:    s.store,
		Doctor:       doctor.New(s.examination, s.now).Prepare,
		Forecast:     s.forecasts.findings,
		TimeScale:    s.cfg.Sandbox.TimeScale,
		IngestBytes:  s.cfg.GRPC.MaxIngestBytes,
		Ingested:     s.metrics.ingest,
		Now:          s.now,
		Stopping:     s.stopping,
	}
}

// examination is what the doctor looks at.
func (s *Server) examination() doctor.Options {
	set := s.settings.Load()
	return doctor.Options{Config: set.cfg, Keys: set.keys}
}

// serve begins to take calls.
func (s *Server) serve(g, h net.Listener) {
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	g = netutil.LimitListener(g, s.cfg.GRPC.MaxConnections)
	s.serving.Go(func() { _ = s.grpc.Serve(g) })
	if h != nil {
		s.http = newHTTP(s.metrics.registry, s.healthy, s.isReady, s.log)
		s.serving.Go(func() { _ = s.http.Serve(netutil.LimitListener(h, httpConnections)) })
	}
	s.serveReturns()
	s.serving.Go(func() { s.monitor.Run(s.watching) })
	if s.disk.Free() != allFree {
		s.serving.Go(func() { s.disk.Run(s.watching) })
	}
	s.serving.Go(func() { s.memory.Run(s.watching) })
	s.serving.Go(func() { s.watchClock(s.watching) })
	s.serving.Go(func() { s.newPurger().Run(s.watching) })
	s.ready.Store(true)
	s.log.Info("serving", "grpc", g.Addr().String(), "mode", string(s.cfg.Relay.Mode), "data_dir", s.cfg.DataDir)
}
