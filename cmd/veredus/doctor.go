package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/doctor"
)

// doctorTimeout bounds a whole examination.
const doctorTimeout = 2 * time.Minute

// examination is the command that looks at a node as receivers do.
type examination struct {
	config, dns string
	from, probe []string
	live, json  bool
}

func newDoctor() *cobra.Command {
	e := &examination{}
	cmd := &cobra.Command{
		Use:   "doctor --config FILE",
		Short: "Check what receivers see of a node, and print the DNS records to publish",
		Long: `Look at a node as receivers do. For each source: outbound port 25, reverse DNS that
leads back to the address, and the EHLO name. For each From domain: the DKIM record
against the key, SPF of the bounce domain for every source, DMARC and its alignment,
and where bounces go. For the machine: open files and the data directory. It works
while the node runs and while it does not, and changes nothing.

Where something is missing, the exact DNS record to publish is printed. The exit
status is 1 if anything is an error: receivers refuse mail for it.

Port 25 is tried at a mail host of gmail.com, or at those that --probe names. In relay.mode
sandbox and redirect only the machine is checked; --live checks as if it were live.`,
		Example: `  veredus doctor --config veredus.yaml
  veredus doctor --config veredus.yaml --from news.brand.example --probe mx.brand.example:25`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&e.config, "config", "", "configuration file of the node (default: the sandbox of `veredus serve`)")
	f.StringSliceVar(&e.from, "from", nil, "From domain to check; may be repeated (default: those of dkim.domains)")
	f.StringSliceVar(&e.probe, "probe", nil, "mail host to try port 25 at, host:port; may be repeated")
	f.StringVar(&e.dns, "dns", "", "DNS server to ask, host:port (default: the configuration's, or the system's)")
	f.BoolVar(&e.live, "live", false, "check as relay.mode live would be")
	f.BoolVar(&e.json, "json", false, "print one JSON object per finding")
	return cmd
}

func (e *examination) run(cmd *cobra.Command) error {
	o, err := e.options(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), doctorTimeout)
	defer cancel()
	findings, err := doctor.Check(ctx, o)
	if err != nil {
		return &usageError{cmd, err}
	}
	if e.json {
		for _, f := range findings {
			if err := printJSON(cmd.OutOrStdout(), f); err != nil {
				return err
			}
		}
	} else {
		printFindings(cmd.OutOrStdout(), findings)
	}
	if n := countOf(findings, doctor.Error); n > 0 {
		return fmt.Errorf("%d %s; see above", n, plural(n, "error"))
	}
	return nil
}

// options reads the configuration and the keys that it names.
func (e *examination) options(cmd *cobra.Command) (doctor.Options, error) {
	cfg := config.Default()
	if e.config != "" {
		var err error
		if cfg, err = config.Load(e.config); err != nil {
			return doctor.Options{}, &usageError{nil, err}
		}
	}
	if e.dns != "" {
		cfg.DNS.Server = e.dns
	}
	o := doctor.Options{Config: cfg, Live: e.live, Probe: e.probe}
	for _, name := range e.from {
		o.From = append(o.From, name[strings.LastIndexByte(name, '@')+1:])
	}
	for _, d := range cfg.DKIM.Domains {
		key, err := dkim.LoadKeyFile(d.Domain, d.Selector, d.KeyFile)
		if err != nil {
			return o, &usageError{nil, fmt.Errorf("dkim.domains: %w", err)}
		}
		o.Keys = append(o.Keys, key)
	}
	return o, nil
}

// doctorWords are the severities as people read them.
var doctorWords = map[doctor.Severity]string{doctor.OK: "ok", doctor.Info: "note", doctor.Warning: "WARNING", doctor.Error: "ERROR"}

// printFindings writes the findings by subject, and the sum.
func printFindings(out io.Writer, findings []doctor.Finding) {
	subject := ""
	for _, f := range findings {
		if f.Subject != subject {
			if subject != "" {
				fmt.Fprintln(out)
			}
			subject = f.Subject
			fmt.Fprintln(out, oneLine(subject))
		}
		fmt.Fprintf(out, "  %-7s  %s\n", doctorWords[f.Severity], oneLine(f.Description))
		if f.Record != nil {
			fmt.Fprintf(out, "           name   %s\n           type   %s\n           value  %s\n",
				oneLine(f.Record.Name), f.Record.Type, oneLine(f.Record.Value))
		}
	}
	var sums []string
	for _, s := range []doctor.Severity{doctor.Error, doctor.Warning, doctor.Info, doctor.OK} {
		if n := countOf(findings, s); n > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", n, doctorSums[s](n)))
		}
	}
	fmt.Fprintf(out, "\n%s\n", strings.Join(sums, ", "))
}

var doctorSums = map[doctor.Severity]func(n int) string{
	doctor.Error:   func(n int) string { return plural(n, "error") },
	doctor.Warning: func(n int) string { return plural(n, "warning") },
	doctor.Info:    func(n int) string { return plural(n, "note") },
	doctor.OK:      func(int) string { return "in order" },
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func countOf(findings []doctor.Finding, s doctor.Severity) int {
	return len(slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool { return f.Severity != s }))
}
