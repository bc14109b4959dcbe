// Package mta is the relay: it takes hand-overs, and sends, retries and settles
// their messages.
//
// New makes a Relay over a Store; Start recovers what the last process left and
// begins to send; HandOver, Arrived, Pause, Unpause, Cancel and Suspend steer it; Stop ends it
// gracefully. One owner goroutine holds all state and runs the pure core
// (mta/dispatch); it does no I/O. Workers report to it: one goroutine for each
// session, look-up and load, and one writer that makes claims and settlements
// durable.
package mta

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
)

// ErrStopped is returned by calls to a relay that has stopped.
var ErrStopped = errors.New("mta: the relay has stopped")

// Resolver finds a domain's route. Errors are *route.Error.
type Resolver interface {
	Route(ctx context.Context, domain string) (*route.Route, error)
}

// Target is one address to be dialled.
type Target struct {
	Source dispatch.Source
	Host   string // MX host name
	Addr   netip.Addr
}

// Config is what a relay is made of. Store, Resolver, Dial, Tokens and Settings are required.
type Config struct {
	Store    Store
	Resolver Resolver
	// Dial opens a connection to the target from its source. It refuses what the
	// relay's mode forbids, and returns when ctx ends.
	Dial func(ctx context.Context, t Target) (net.Conn, error)
	// Tokens sign return paths and Message-IDs.
	Tokens *returnpath.Keys
	// Settings are the reloadable part.
	Settings Settings
	// Dispatch bounds the core.
	Dispatch dispatch.Config
	// Schedule is the retry schedule.
	Schedule Schedule
	// TLS is the base of every session's TLS configuration; may be nil.
	TLS *tls.Config
	// Grace is how long running transactions get at Stop (default 30 s).
	Grace time.Duration
	// Now stamps everything; nil is time.Now.
	Now func() time.Time
	// Log takes what operators should see; nil discards.
	Log *slog.Logger
	// Observe is told of every settled attempt and failure, for metrics; may be
	// nil. It must be quick and safe for concurrent use.
	Observe func(Observation)
	// Excluded is asked just before each attempt whether the recipient was excluded since it
	// came in: the reason, ReasonDenylisted or ReasonInQuarantine, or ReasonNotDefined
	// to send. It may read from disk and is called by many goroutines; nil excludes nobody.
	Excluded func(ctx context.Context, a Addressee) (bounce.Reason, error)
	// Links makes the unsubscribe links of a message whose content asks for hosted ones; nil when
	// there are none. What it answers must be the same at every attempt.
	Links func(a Addressee) (compose.Links, error)
	// Hold is asked to pause a delivery (D of deliveries/D) because replies to its mail met
	// a reaction of the MX rules; may be nil. It must be quick and safe for concurrent use.
	Hold func(delivery, text string)
	// Fatal is told when the store failed: nothing can be settled any more. The
	// process should log it and exit. nil panics.
	Fatal func(error)
}

// Addressee is whom a message goes to, and in which scope.
type Addressee struct {
	ID           MessageID
	Recipient    string // address as it goes on the wire
	Tenant       string
	Delivery     string // D of deliveries/D
	DeliveryNo   uint64
	SenderDomain string
	List         string // List-Id of its content in lower case; empty for none
	Class        dispatch.Class
	Hosted       bool // its content asks for hosted unsubscribe links
}

// Observation is one settled message, for metrics.
type Observation struct {
	Provider string // empty when not known to the rules
	Outcome  Outcome
	Code     int // bounce code
	Attempt  bool
	Duration time.Duration // of the transaction
}

// Relay is the embedded MTA. Its methods are safe for concurrent use.
type Relay struct {
	cfg      Config
	log      *slog.Logger
	settings atomic.Pointer[Settings]
	contents *contents
	writer   *writer
	prepares *preparing
	manners  manners
	epoch    uint64
	inbox    chan func(now time.Time)
	done     chan struct{}   // closed when the owner has ended
	stop     chan struct{}   // closed to end the owner
	ctx      context.Context // of transactions; ends with the grace period
	cancel   context.CancelCauseFunc
	calm     context.Context // of everything else: look-ups, dials, loads, sweeps; ends when Stop begins
	hush     context.CancelFunc
	workers  sync.WaitGroup
	fatal    sync.Once
	stopOnce sync.Once
	stopErr  error

	usage      func(ctx context.Context, destination string) (map[string]mxrules.Usage, error)
	remembered remembered

	// What follows belongs to the owner goroutine.
	core      *dispatch.Core
	handovers map[uint64]*handover
	runs      dispatch.Table[run] // by RunID
	held      map[dispatch.MsgID]*held
	byID      map[MessageID]*held
	sessions  map[dispatch.SessionID]*session
	dead      map[string]*route.Error // domains that failed for good
	resumed   map[uint64]struct{}     // deliveries unpaused before their first hand-over came
	lastRun   dispatch.RunID
	lastMsg   dispatch.MsgID
	stopping  bool
	expiry    expiry
	news      pathNews
	hangUps   hangUps
	ordered   warmUpOrder
}

// New makes a relay. It does nothing until Start.
func New(cfg Config) *Relay {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 30 * time.Second
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { panic(err) }
	}
	if cfg.Dispatch.Credit == 0 {
		cfg.Dispatch.Credit = sessionCredit
	}
	cfg.TLS = resuming(cfg.TLS)
	r := &Relay{
		cfg:       cfg,
		log:       cfg.Log,
		inbox:     make(chan func(time.Time), 1024),
		done:      make(chan struct{}),
		stop:      make(chan struct{}),
		handovers: map[uint64]*handover{},
		held:      map[dispatch.MsgID]*held{},
		byID:      map[MessageID]*held{},
		sessions:  map[dispatch.SessionID]*session{},
		dead:      map[string]*route.Error{},
		resumed:   map[uint64]struct{}{},
	}
	r.settings.Store(&cfg.Settings)
	r.news.every = cfg.Schedule.Scaled(newsEvery)
	r.contents = newContents(cfg.Store)
	r.writer = newWriter(r)
	r.prepares = newPreparing(r)
	r.core = dispatch.New(cfg.Dispatch, cfg.Settings.Pools, cfg.Settings.Rules)
	return r
}

// sessionCredit is how many messages a session has at hand: the one on the wire, and
// the next, so that it is ready when its turn comes.
const sessionCredit = 2

// maxTLSSessions is how many hosts' TLS sessions are kept to be resumed.
const maxTLSSessions = 1024

// resuming is a TLS configuration with which sessions to a host resume earlier ones.
func resuming(base *tls.Config) *tls.Config {
	config := &tls.Config{}
	if base != nil {
		config = base.Clone()
	}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(maxTLSSessions)
	}
	return config
}

// Start recovers the store and begins to send. It returns the messages that were
// claimed and not settled when the last process ended: the upper bound of possible
// repeats. ctx bounds only the recovery; the relay runs until Stop.
func (r *Relay) Start(ctx context.Context) ([]LostClaim, error) {
	rec, err := r.cfg.Store.Recover(ctx, r.cfg.Now())
	if err != nil {
		return nil, err
	}
	r.epoch = rec.Epoch
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.calm, r.hush = context.WithCancel(r.ctx)
	now := r.cfg.Now()
	r.usage = rec.Usage
	for source, state := range rec.WarmUps {
		r.core.RestoreWarmUp(now, source, state)
	}
	for _, lost := range rec.Lost {
		r.log.Debug("claimed and not settled when the last process ended; may be repeated",
			"message", lost.Name, "message_id", lost.MessageID, "claims_lost", lost.Claims)
	}
	go r.own()
	go r.writer.run()
	r.prepares.start()
	for _, h := range rec.Handovers {
		r.HandOver(h)
	}
	if len(rec.Lost) > 0 {
		r.log.Warn("messages were claimed and not settled when the last process ended: at most these are repeated", "count", len(rec.Lost))
	}
	r.log.Info("relay started", "handovers", len(rec.Handovers), "claimed_unsettled", len(rec.Lost), "epoch", rec.Epoch)
	return rec.Lost, nil
}

// own is the owner goroutine.
func (r *Relay) own() {
	defer close(r.done)
	timer := time.NewTimer(clockLook)
	defer timer.Stop()
	for {
		select {
		case event := <-r.inbox:
			event(r.cfg.Now())
			r.drain()
		case <-timer.C:
			r.core.Tick(r.cfg.Now())
			r.tell(r.news.due(r.cfg.Now()))
		case <-r.stop:
			return
		}
		r.act()
		r.arm(timer)
	}
}

// drain handles what else waits, so that one pass of actions serves many events.
func (r *Relay) drain() {
	for range 256 {
		select {
		case event := <-r.inbox:
			event(r.cfg.Now())
		default:
			return
		}
	}
}

// arm sets the timer to the core's next wish. A wish in the past still gives other
// events their turn; a clock that was set is noticed within clockLook.
func (r *Relay) arm(timer *time.Timer) {
	wait := clockLook
	if at := earliest(r.core.Wake(), r.news.next()); !at.IsZero() {
		wait = min(max(at.Sub(r.cfg.Now()), 0), wait)
	}
	timer.Reset(wait)
}

// post hands an event to the owner; false when the relay has stopped. It may block
// while the owner is busy, never on I/O. The owner itself must not call it.
func (r *Relay) post(event func(now time.Time)) bool {
	select {
	case r.inbox <- event:
		return true
	case <-r.done:
		return false
	}
}

// fail reports, once, that the store failed.
func (r *Relay) fail(doing string, err error) {
	r.fatal.Do(func() { r.cfg.Fatal(&StoreError{Doing: doing, Err: err}) })
}

// call runs event on the owner and waits until it was handled.
func (r *Relay) call(ctx context.Context, event func(now time.Time)) error {
	handled := make(chan struct{})
	if !r.post(func(now time.Time) { defer close(handled); event(now) }) {
		return ErrStopped
	}
	select {
	case <-handled:
		return nil
	case <-r.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// act carries out what the core asks for until it asks for nothing.
func (r *Relay) act() {
	for {
		actions := r.core.Take()
		if len(actions) == 0 {
			return
		}
		for i := range actions {
			r.carryOut(&actions[i])
		}
	}
}

func (r *Relay) carryOut(a *dispatch.Action) {
	switch a.Kind {
	case dispatch.Resolve:
		r.resolve(a.Domain)
	case dispatch.Open:
		r.open(*a)
	case dispatch.Load:
		r.load(a.Run, a.Fresh, a.Due)
	case dispatch.Claim:
		r.claim(a)
	case dispatch.Send:
		r.send(a.Session, a.Msg)
	case dispatch.TakeBack:
		r.takeBack(a)
	case dispatch.Close:
		r.sessions[a.Session].close()
	case dispatch.Return:
		r.giveBack(a.Msg, a.Claimed)
	case dispatch.Postpone:
		r.postpone(a.Msg, a.Until)
	case dispatch.Fail:
		r.failDead(a.Msg)
	case dispatch.HoldDelivery:
		r.holdDelivery(a)
	case dispatch.Keep:
		r.writer.keepPath(a.Path, a.Usage)
	case dispatch.PathChanged:
		r.reportPath(a)
	case dispatch.WarmUpChanged:
		r.reportWarmUp(a)
	}
}

// errStopping is why Stop breaks transactions off.
var errStopping = errors.New("the relay stops")

// Stop ends the relay: no new work, running transactions get the grace period,
// everything settles. It returns nil when all of that was done; a transaction that
// outlived the grace period is broken off and settles as deferred. When ctx ends
// first Stop cuts everything short and returns its error; nothing is lost then
// either, but a restart finds claims unsettled. Later calls answer as the first.
func (r *Relay) Stop(ctx context.Context) error {
	if r.ctx == nil {
		return nil
	}
	r.stopOnce.Do(func() { r.stopErr = r.shutDown(ctx) })
	return r.stopErr
}

func (r *Relay) shutDown(ctx context.Context) error {
	_ = r.call(context.WithoutCancel(ctx), r.quiesce) // the owner does no I/O
	err := r.awaitWorkers(ctx)
	r.cancel(errStopping)
	r.workers.Wait()
	r.prepares.close()
	if err == nil {
		err = r.emptyMemory(ctx)
	}
	if err == nil {
		err = r.writer.finish(ctx)
	}
	r.writer.abandon()
	close(r.stop)
	<-r.done
	return err
}

// quiesce gives back what is not being sent and lets sessions end.
func (r *Relay) quiesce(now time.Time) {
	r.tell(r.news.all())
	r.stopping = true
	r.hush()
	r.expiry.stop()
	r.steer(func() {
		r.core.Suspend(now, "stopping", dispatch.Selector{Kind: dispatch.Everything})
	})
	for _, s := range r.sessions {
		s.close()
	}
}

// awaitWorkers waits for running transactions, at most the grace period.
func (r *Relay) awaitWorkers(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { r.workers.Wait(); close(ended) }()
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	select {
	case <-ended:
		return nil
	case <-grace.C:
		r.log.Warn("transactions still running at the end of the grace period are broken off", "grace", r.cfg.Grace)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxIdleWrites is after how many writes without progress emptyMemory gives up.
const maxIdleWrites = 16

// emptyMemory waits until every message in memory is settled or given back. A claim
// under way takes three writes: it becomes durable, is released, and that is durable.
func (r *Relay) emptyMemory(ctx context.Context) error {
	for last, idle := 0, 0; idle < maxIdleWrites; idle++ {
		left, durable := 0, make(chan struct{})
		err := r.call(ctx, func(time.Time) {
			r.act()
			left = len(r.byID)
			r.writer.then(func(time.Time) { close(durable) })
		})
		if err != nil || left == 0 {
			return err
		}
		if left != last {
			last, idle = left, 0
		}
		select {
		case <-durable:
		case <-r.writer.ended:
			return r.writer.failure()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("mta: messages are left that nobody settles")
}
