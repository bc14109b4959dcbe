package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
)

// receivers serves the receiving world in a process of its own.
type receivers struct {
	world, dns, control string
	returnTo            string
	smtpPort            int
	timeScale           float64
	print               bool
}

func newReceivers() *cobra.Command {
	r := &receivers{}
	cmd := &cobra.Command{
		Use:   "receivers",
		Short: "Serve fake mailbox providers on loopback, with a DNS server and a ledger",
		Long: `Serve mailbox providers that behave like the real ones: rate limits, greylisting,
full mailboxes, outages, broken SMTP. Each mail exchanger has an address of its own
in 127.77.0.0/16, all on one port, and a DNS server leads there. The receivers keep a
ledger of what they accepted, with DKIM verdicts, duplicates and broken limits.

Some of their mailboxes accept a mail and have something to say about it afterwards: a
bounce, a complaint, an unsubscribe, an automatic reply. With --return-to such mail is
sent to your inbound listener; without it such mail waits, and what finds the
queue full is dropped. The ledger counts what was sent back and how it was answered.

One line of JSON tells where everything is: "dns", "smtp_port" and "control". Point a
node there with dns.server and relay.smtp_port. The control URL answers GET /ledger,
/messages, /accepted?recipient=A and /config, and takes POST /txt, /limits and
/return_to.`,
		Example: `  veredus receivers --dns 127.0.0.1:5353 --smtp-port 2525 --return-to 127.0.0.1:2526
  curl -s http://127.0.0.1:8027/ledger
  veredus receivers --print > world.yaml; veredus receivers --world world.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&r.world, "world", "default", "default, open (fast and without trouble), or a file")
	f.StringVar(&r.dns, "dns", "127.0.0.1:0", "where the DNS server listens, UDP and TCP; port 0 takes a free one")
	f.IntVar(&r.smtpPort, "smtp-port", 0, "port of all mail exchangers; 0 takes a free one")
	f.StringVar(&r.control, "control", "127.0.0.1:8027", "where the control endpoint listens; port 0 takes a free one")
	f.StringVar(&r.returnTo, "return-to", "", "host:port of the inbound listener, on loopback, that gets bounces, complaints and replies")
	f.Float64Var(&r.timeScale, "time-scale", 1, "divide greylisting, penalties and outages; use the node's sandbox.time_scale")
	f.BoolVar(&r.print, "print", false, "print the world as a file for --world, and end")
	return cmd
}

func (r *receivers) run(cmd *cobra.Command) error {
	data, err := loadWorld(cmd, r.world)
	if err != nil {
		return err
	}
	if r.print {
		return serve.Save(cmd.OutOrStdout(), data)
	}
	if r.timeScale < 1 {
		return usagef(cmd, "--time-scale %g: give 1 or more", r.timeScale)
	}
	w, err := serve.Start(cmd.Context(), serve.Config{
		World: data.Compress(r.timeScale), SMTPPort: r.smtpPort, DNSListen: r.dns, ControlListen: r.control, ReturnTo: r.returnTo,
		Logger: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
	})
	if err != nil {
		return err
	}
	defer w.Close()
	err = printJSON(cmd.OutOrStdout(), struct {
		World    string `json:"world"`
		DNS      string `json:"dns"`
		SMTPPort int    `json:"smtp_port"`
		Control  string `json:"control"`
	}{data.Name, w.DNSAddr(), w.SMTPPort(), "http://" + w.ControlAddr()})
	if err != nil {
		return err
	}
	<-cmd.Context().Done()
	return nil
}

// loadWorld is a built-in world by name, or one from a file.
func loadWorld(cmd *cobra.Command, name string) (world.World, error) {
	switch name {
	case "default":
		return world.Default(), nil
	case "open":
		return world.Open(), nil
	}
	f, err := os.Open(name)
	if err != nil {
		if !strings.ContainsAny(name, "./") {
			return world.World{}, usagef(cmd, "--world %q: use default, open, or the name of a file", name)
		}
		return world.World{}, &usageError{cmd, fmt.Errorf("--world: %w", err)}
	}
	defer func() { _ = f.Close() }()
	w, err := serve.Load(f)
	if err != nil {
		return world.World{}, &usageError{cmd, fmt.Errorf("--world %s: %w", name, err)}
	}
	return w, nil
}
