package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/server"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/heap"
)

// serveNode runs a node.
type serveNode struct {
	config, dataDir, world, control string
	cpuProfile                      string
	timeScale                       float64

	cmd     *cobra.Command
	log     *slog.Logger
	sandbox *sandbox // nil unless the receivers are built in
}

func newServe() *cobra.Command {
	n := &serveNode{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node: the campaign service and the relay",
		Long: `Run a node. Without --config it is a sandbox on loopback: mail goes to built-in
receivers only, which behave like the large mailbox providers and keep a ledger. A
DKIM key is made for the domain ` + sandboxDomain + `. What a client sees is the same as
live. In the sandbox the local part of a recipient chooses its fate: ` + strings.Join(world.FateNames(), ", ") + `,
each with any +label, at any domain.

With --config the file says where mail goes: relay.mode is sandbox, redirect
(everything to one host) or live. The README has an example of each.

SIGHUP reads MX rules, bounce rules, DKIM keys and pools again. SIGTERM and SIGINT
stop gracefully: running transactions get 30 seconds; a second signal stops at once,
and the next start goes on without loss.`,
		Example: `  veredus serve
  veredus serve --data-dir /tmp/try --time-scale 3600
  veredus serve --config veredus.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n.cmd = cmd
			return n.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.config, "config", "", "configuration file")
	f.StringVar(&n.dataDir, "data-dir", "", `directory of the store, in place of data_dir (default "data")`)
	f.Float64Var(&n.timeScale, "time-scale", 0, "in the sandbox: divide retry, validity and greylist periods, in place of sandbox.time_scale")
	f.StringVar(&n.world, "world", "default", "built-in receivers of the sandbox: default, open, or a file")
	f.StringVar(&n.cpuProfile, "cpuprofile", "", "write a CPU profile of the node to this file, for 'go tool pprof'; it is whole when the node has stopped")
	f.StringVar(&n.control, "control", "127.0.0.1:8027", "where the ledger of the built-in receivers is served; port 0 takes a free one")
	return cmd
}

func (n *serveNode) run(ctx context.Context) (err error) {
	cfg, err := n.load()
	if err != nil {
		return &usageError{nil, err}
	}
	stop, err := profileCPU(n.cpuProfile)
	if err != nil {
		return &usageError{nil, err}
	}
	defer func() { err = errors.Join(err, stop()) }()
	heap.Calm()
	spareProcessors()
	n.log = server.NewLog(cfg.Log, n.cmd.ErrOrStderr())
	if cfg.Relay.Mode == config.Sandboxed && cfg.DNS.Server == "" {
		if err := n.startReceivers(ctx, cfg); err != nil {
			return err
		}
		defer n.sandbox.close()
	}
	if err := n.complete(cfg); err != nil {
		return &usageError{nil, err}
	}
	return n.serve(ctx, cfg)
}

// load reads the configuration; the flags go before the file.
func (n *serveNode) load() (*config.Config, error) {
	cfg := config.Default()
	if n.config != "" {
		var err error
		if cfg, err = config.Load(n.config); err != nil {
			return nil, err
		}
	}
	if n.dataDir != "" {
		cfg.DataDir = n.dataDir
	}
	if n.timeScale != 0 {
		if n.timeScale < 1 || cfg.Relay.Mode != config.Sandboxed {
			return nil, fmt.Errorf("--time-scale %g: give 1 or more, and only in relay.mode sandbox", n.timeScale)
		}
		cfg.Sandbox.TimeScale = n.timeScale
	}
	return cfg, nil
}

func (n *serveNode) startReceivers(ctx context.Context, cfg *config.Config) error {
	data, err := loadWorld(n.cmd, n.world)
	if err != nil {
		return err
	}
	// The receivers outlive ctx: the node still talks to them while it stops.
	n.sandbox, err = startSandbox(context.WithoutCancel(ctx), data.Compress(cfg.Sandbox.TimeScale), n.control, n.log)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; another node or 'veredus receivers' may be running: stop it, or give --control 127.0.0.1:0", err)
	}
	return err
}

// complete adds what a sandbox brings with it.
func (n *serveNode) complete(cfg *config.Config) error {
	if cfg.Relay.Mode != config.Sandboxed {
		return nil
	}
	if err := ownKey(cfg); err != nil {
		return err
	}
	if n.sandbox == nil {
		return nil
	}
	return n.sandbox.fit(cfg)
}

// takeReturns gives a sandbox ports for what comes back, since its receivers send
// bounces, complaints and unsubscribes.
func takeReturns(cfg *config.Config) {
	for _, listen := range []*string{&cfg.Inbound.Listen, &cfg.Public.Listen} {
		if *listen == "" {
			*listen = "127.0.0.1:0"
		}
	}
}

// reload reads the configuration as at start, for SIGHUP and ReloadConfig.
func (n *serveNode) reload() (*config.Config, error) {
	cfg, err := n.load()
	if err != nil {
		return nil, err
	}
	if n.sandbox != nil && (cfg.Relay.Mode != config.Sandboxed || cfg.DNS.Server != "") {
		return cfg, nil // needs a restart; the server says so
	}
	return cfg, n.complete(cfg)
}

func (n *serveNode) serve(ctx context.Context, cfg *config.Config) error {
	grpc, http, err := listen(cfg)
	if err != nil {
		return err
	}
	s, err := server.New(cfg, server.Options{Reload: n.reload, GRPC: grpc, HTTP: http, Log: n.log})
	if err != nil {
		closeListeners(grpc, http)
		return &usageError{nil, err}
	}
	// A SIGHUP that comes while the node starts waits; it must not end the process.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := s.Start(ctx); err != nil {
		return err
	}
	if n.sandbox != nil {
		if err := n.sandbox.setReturnTo(s.InboundAddr()); err != nil {
			return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
		}
	}
	n.announce(n.cmd.OutOrStdout(), cfg, s, grpc, http)
	// The first SIGTERM or SIGINT ends ctx; a second one comes among the signals.
	defer context.AfterFunc(ctx, func() { signal.Notify(signals, os.Interrupt, syscall.SIGTERM) })()
	return s.Run(ctx, signals)
}

// listen takes both ports before anything is printed, so that what is printed is true.
func listen(cfg *config.Config) (grpc, http net.Listener, err error) {
	if grpc, err = net.Listen("tcp", cfg.GRPC.Listen); err != nil {
		return nil, nil, taken("grpc.listen", err)
	}
	if cfg.HTTP.Listen == "" {
		return grpc, nil, nil
	}
	if http, err = net.Listen("tcp", cfg.HTTP.Listen); err != nil {
		_ = grpc.Close()
		return nil, nil, taken("http.listen", err)
	}
	return grpc, http, nil
}

// taken says what to do about a port that cannot be had.
func taken(key string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %w; another node may be running: stop it, or set %s to another port in a file for --config", key, err, key)
	}
	return fmt.Errorf("%s: %w", key, err)
}

func closeListeners(listeners ...net.Listener) {
	for _, l := range listeners {
		if l != nil {
			_ = l.Close()
		}
	}
}

// announce says where everything is, and in a sandbox what to try.
func (n *serveNode) announce(out io.Writer, cfg *config.Config, s *server.Server, grpc, http net.Listener) {
	where := map[config.Mode]string{
		config.Sandboxed: "sandbox: mail goes to receivers on loopback only",
		config.Redirect:  "redirect: all mail goes to " + cfg.Relay.Redirect,
		config.Live:      "live: mail goes to the internet",
	}[cfg.Relay.Mode]
	web := ""
	if http != nil {
		web = "http://" + http.Addr().String() + "  (/metrics, /healthz, /readyz)"
	}
	fmt.Fprintln(out, "Veredus is running.")
	cells := []string{"mode", where, "gRPC", grpc.Addr().String(), "HTTP", web, "inbound", s.InboundAddr(), "unsubscribes", s.PublicURL(), "data", cfg.DataDir}
	if n.sandbox == nil {
		pairs(out, cells...)
		return
	}
	pairs(out, append(cells, n.receivers(cfg)...)...)
	fmt.Fprintf(out, `
Any recipient domain works. These local parts choose their fate at each of them, with
any +label, for example unknown+1@gmail.example:
  %s
`, strings.Join(world.FateNames(), "  "))
}

// receivers says where the built-in receivers are.
func (n *serveNode) receivers(cfg *config.Config) []string {
	w := n.sandbox.world
	scale := "as in life"
	if cfg.Sandbox.TimeScale > 1 {
		scale = fmt.Sprintf("%g times as fast for retries, validity and greylisting", cfg.Sandbox.TimeScale)
	}
	return []string{
		"receivers", fmt.Sprintf("DNS %s, SMTP port %d", w.DNSAddr(), w.SMTPPort()),
		"their ledger", fmt.Sprintf("http://%s/ledger", w.ControlAddr()),
		"time passes", scale,
		"From", "any address at " + cfg.DKIM.Domains[0].Domain,
	}
}

// spareProcessors gives Go's scheduler two processors more than the machine has, unless
// GOMAXPROCS is set: a signature in libcrypto and a sync of the disk keep one from the
// goroutines that could run meanwhile. Measured on two cores, that is an eighth more
// messages a second.
func spareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}
