package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/proto/client"
	"github.com/veredus/veredus/server"
	"github.com/veredus/veredus/server/config"
)

// demo sends a campaign through a node to the receiving world, all on loopback, and
// compares what both sides know at the end.
type demo struct {
	recipients int
	seed       uint64
	world      string
	json, keep bool

	cmd  *cobra.Command
	out  io.Writer // what people read: stdout, or stderr with --json
	dir  string
	plan plan
	box  *sandbox
	log  *slog.Logger

	// hosted says that the node answers unsubscribe links itself.
	hosted bool
	// life is how long mail lives at least, in real time.
	life time.Duration
}

func newDemo() *cobra.Command { return (&demo{}).command() }

func (d *demo) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Send a campaign to fake mailbox providers, and compare both sides' ledgers",
		Long: `Show everything at once, on this machine only: fake mailbox providers with limits,
greylisting, outages and broken SMTP are served on loopback, a node is started in a
fresh temporary directory, and a campaign of 10 KB mails goes through its public gRPC
API. Retries and validity are compressed, so that hours pass in seconds. Some readers
have something to say afterwards: bounces after delivery, complaints, unsubscribes and
automatic replies come back over SMTP and HTTP.

At the end come the key figures, tables by provider and by reason of failure, and our
ledger (from the feedback stream) beside the receivers'. The exit status is 1 if they
differ, if a mail came twice without the receiver's own doing, if a limit of the MX
rules was broken, if a DKIM signature did not verify, or if something came back and
was not counted.`,
		Example: `  veredus demo
  veredus demo --recipients 100000 --world open
  veredus demo --recipients 2000 --json 2>/dev/null | jq .ledger`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.cmd, d.out = cmd, cmd.OutOrStdout()
			if d.json {
				d.out = cmd.ErrOrStderr()
			}
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&d.recipients, "recipients", 10_000, "how many recipients, 1 to 10,000,000")
	f.StringVar(&d.world, "world", "default", "receivers: default, open (fast and without trouble), or a file")
	f.Uint64Var(&d.seed, "seed", 1, "chooses recipients and what happens to them")
	f.BoolVar(&d.keep, "keep", false, "keep the temporary directory")
	f.BoolVar(&d.json, "json", false, "print the result as one JSON object on stdout, everything else on stderr")
	return cmd
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.recipients < 1 || d.recipients > 10_000_000 {
		return usagef(d.cmd, "--recipients %d: give 1 to 10000000", d.recipients)
	}
	data, err := loadWorld(d.cmd, d.world)
	if err != nil {
		return err
	}
	data.Seed = d.seed
	d.plan = newPlan(d.recipients, d.life)
	if d.dir, err = os.MkdirTemp("", "veredus-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	return d.stage(ctx, data.Compress(d.plan.scale))
}

func (d *demo) cleanUp() error {
	if d.keep {
		fmt.Fprintf(d.out, "\nkept: %s\n", d.dir)
		return nil
	}
	return os.RemoveAll(d.dir)
}

// stage starts receivers and node, and runs the campaign between them.
func (d *demo) stage(ctx context.Context, data world.World) error {
	logFile, err := os.Create(filepath.Join(d.dir, "veredus.log"))
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	d.log = slog.New(slog.NewTextHandler(logFile, nil))
	if d.box, err = startSandbox(context.WithoutCancel(ctx), data, "", d.log); err != nil {
		return err
	}
	defer d.box.close()
	cfg, err := d.configure()
	if err != nil {
		return err
	}
	grpcListener, _, err := listen(cfg)
	if err != nil {
		return err
	}
	node, err := server.New(cfg, server.Options{GRPC: grpcListener, Log: d.log, Grace: 5 * time.Second})
	if err != nil {
		closeListeners(grpcListener)
		return err
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	conn, err := client.Dial(grpcListener.Addr().String())
	if err != nil {
		return errors.Join(err, node.Stop(ctx))
	}
	defer func() { _ = conn.Close() }()
	if err := errors.Join(d.connect(node), d.introduce(cfg, grpcListener.Addr().String())); err != nil {
		return errors.Join(err, node.Stop(ctx))
	}
	return d.perform(ctx, node, conn)
}

// connect tells the receivers where the node takes what comes back.
func (d *demo) connect(node *server.Server) error {
	d.hosted = node.PublicURL() != ""
	return d.box.setReturnTo(node.InboundAddr())
}

// people are the recipients: the world's, but the first few have magic addresses,
// so that everything that may come back does in a small campaign, too.
func (d *demo) people() iter.Seq[world.Recipient] {
	magic := magicPeople(&d.box.data, d.recipients/20)
	return func(yield func(world.Recipient) bool) {
		i := 0
		for r := range world.Recipients(d.box.data, d.recipients, d.seed) {
			if i < len(magic) {
				r.Address = magic[i]
			}
			if i++; !yield(r) {
				return
			}
		}
	}
}

// magicPeople are at most n addresses: at each of the first receivers one for each
// kind of thing that comes back.
func magicPeople(w *world.World, n int) []string {
	var people []string
	for i := range w.Receivers {
		r := &w.Receivers[i]
		if !r.HasHosts() || len(r.Domains) == 0 || r.Domains[0].Share == 0 {
			continue
		}
		for _, name := range world.FateNames() {
			if len(people) >= min(n, maxMagic) {
				return people
			}
			if world.Fate(name).Returns() {
				people = append(people, name+"+demo@"+r.Domains[0].Name)
			}
		}
	}
	return people
}

// maxMagic is the most magic recipients of a demonstration.
const maxMagic = 25

// perform runs the campaign and ends the node, so that nothing is under way when
// the ledgers are compared.
func (d *demo) perform(ctx context.Context, node *server.Server, conn *grpc.ClientConn) error {
	failed := make(chan error, 1)
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan os.Signal)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := node.Run(running, stop)
		failed <- err
		cancel(err)
	}()
	c := newCampaign(d, conn)
	err := c.run(running)
	cancel(nil)
	<-ended
	if stopped := <-failed; stopped != nil {
		return fmt.Errorf("the node: %w (its log: %s, kept with --keep)", stopped, filepath.Join(d.dir, "veredus.log"))
	}
	if err != nil {
		return err
	}
	return d.report(c)
}

// plan is how time is compressed: so that what stays deferred expires soon after
// the rest is done.
type plan struct {
	scale    float64       // mail time to real time
	validity time.Duration // of the delivery, in mail time
}

const (
	// basicLife is how long the mail lives at least, in real time, and
	// lifePerRecipient how much longer for each recipient: the slowest of the default
	// receivers' hidden rates, with twice the time it needs.
	basicLife        = 10 * time.Second
	lifePerRecipient = 6 * time.Millisecond
	// basicScale lets an hour of mail time pass in a second.
	basicScale = 3600
)

// newPlan gives mail the time that so many recipients take, or at least the life that is given.
func newPlan(recipients int, life time.Duration) plan {
	life = max(life, basicLife+time.Duration(recipients)*lifePerRecipient)
	scale := min(basicScale, float64(mta.MaxValidity)/float64(life))
	return plan{scale: scale, validity: time.Duration(float64(life) * scale).Round(time.Minute)}
}

// real is a period of mail time as it passes here.
func (p plan) real(d time.Duration) time.Duration { return time.Duration(float64(d) / p.scale) }

// configure writes the rule file, the key and the configuration, and loads them as
// any node would.
func (d *demo) configure() (*config.Config, error) {
	key, err := sandboxKey(d.dir, sandboxDomain, "demo")
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"mx.yaml":      demoRules(d.box.data),
		"veredus.yaml": demoConfig(d, key),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	if d.keep {
		if err := d.saveWorld(); err != nil {
			return nil, err
		}
	}
	cfg, err := config.Load(filepath.Join(d.dir, "veredus.yaml"))
	if err != nil {
		return nil, err
	}
	return cfg, d.box.fit(cfg)
}

func (d *demo) saveWorld() error {
	f, err := os.OpenFile(filepath.Join(d.dir, "world.yaml"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(serve.Save(f, d.box.data), f.Close())
}

func demoConfig(d *demo, key config.Domain) string {
	return fmt.Sprintf(`data_dir: data
grpc:
  listen: 127.0.0.1:0
http:
  listen: ""
dns:
  server: %s
relay:
  mode: sandbox
  smtp_port: %d
dkim:
  domains:
    - {domain: %s, selector: %s, key_file: %s, bounce_domain: bounce.%s}
mx_rules: mx.yaml
inbound:
  listen: 127.0.0.1:0
public:
  listen: 127.0.0.1:0
protection:
  hard_percent: 60 # one of the receivers has lost every other mailbox, on purpose
sandbox:
  time_scale: %g
`, d.box.world.DNSAddr(), d.box.world.SMTPPort(), key.Domain, key.Selector, filepath.Base(key.KeyFile), key.Domain, d.plan.scale)
}

// demoRules is a rule file that states each receiver's limits.
func demoRules(w world.World) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range w.Receivers {
		r := &w.Receivers[i]
		if !r.HasHosts() || len(r.Domains) == 0 {
			continue
		}
		l := r.Stated
		fmt.Fprintf(&b, "  - id: demo-%s\n    match: {mx: [%s]}\n", r.Name, strings.Join(hostMasks(r), ", "))
		fmt.Fprintf(&b, "    connections: %s\n    messages_per_connection: %s\n", limitText(l.Connections), limitText(l.MessagesPerConnection))
		fmt.Fprintf(&b, "    connection_rate: %v\n    message_rate: %v\n", l.ConnectionRate, l.MessageRate)
		if r.TLS == world.TLSRequired {
			b.WriteString("    tls: encrypt\n")
		}
	}
	return b.String()
}

// hostMasks are masks on the receiver's mail exchangers.
func hostMasks(r *world.Receiver) []string {
	var masks []string
	if r.DNS == world.DNSImplicit {
		for _, domain := range r.Domains {
			masks = append(masks, fmt.Sprintf("%q", domain.Name))
		}
		return masks
	}
	for _, h := range r.Hosts {
		masks = append(masks, fmt.Sprintf("%q", strings.ReplaceAll(h.Name, "{tenant}", "*")))
	}
	return masks
}

func limitText(n int) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// introduce says what will happen, where, and under which rules.
func (d *demo) introduce(cfg *config.Config, addr string) error {
	rules, err := os.ReadFile(cfg.MXRules)
	if err != nil {
		return err
	}
	schedule := mta.Schedule{Scale: d.plan.scale}
	var retries []string
	for n := 1; n <= 6; n++ {
		retries = append(retries, schedule.Delay(dispatch.Bulk, n).Round(time.Millisecond).String())
	}
	fmt.Fprintf(d.out, "Veredus sends to %s recipients at %d mailbox providers, all on this machine.\n",
		thousands(int64(d.recipients)), len(d.box.data.Receivers))
	pairs(d.out,
		"directory", d.dir,
		"gRPC", addr,
		"receivers", fmt.Sprintf("world %q, seed %d; DNS %s, SMTP port %d", d.box.data.Name, d.seed, cfg.DNS.Server, cfg.Relay.SMTPPort),
		"comes back", d.returnsText(),
		"time", fmt.Sprintf("passes %.0f times as fast for retries, greylisting, rests and validity", d.plan.scale),
		"retries", fmt.Sprintf("20 min, doubling to 12 h: here %s ...", strings.Join(retries, ", ")),
		"greylisted", fmt.Sprintf("again after 5 to 15 min: here %v to %v", d.plan.real(5*time.Minute).Round(time.Millisecond), d.plan.real(15*time.Minute).Round(time.Millisecond)),
		"validity", fmt.Sprintf("%v: here %v", d.plan.validity, d.plan.real(d.plan.validity).Round(time.Second)),
	)
	fmt.Fprintf(d.out, "\nMX rules (%s), in front of the built-in ones:\n%s\n", cfg.MXRules, rules)
	return nil
}

// returnsText says where things come back to.
func (d *demo) returnsText() string {
	text := "mail to " + d.box.world.ReturnTo()
	if d.hosted {
		text += ", unsubscribes also to links of the node's own"
	}
	return text
}

//go:embed newsletter.html
var newsletterHTML string

//go:embed newsletter.txt
var newsletterText string
