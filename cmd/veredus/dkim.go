package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/server/config"
)

func newDKIM() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dkim",
		Short: "Make DKIM keys and check their DNS records",
		Long: `Every mail is signed with DKIM. Make a key for the domain of your From address,
publish its record in the DNS, check that it arrived, and name the key in the
configuration under dkim.domains.`,
		Args: noArgs,
	}
	cmd.AddCommand(newKeygen(), newDKIMCheck())
	return cmd
}

// keygen makes a key.
type keygen struct {
	domain, selector, algorithm, out string
	bits                             int
	json                             bool
}

func newKeygen() *cobra.Command {
	k := &keygen{}
	cmd := &cobra.Command{
		Use:   "keygen --domain D --selector S",
		Short: "Make a DKIM key and print its DNS record",
		Long: `Make a DKIM key. The private key goes to a new file that only you may read
(SELECTOR.DOMAIN.pem, or --out); a file that exists is not overwritten. The DNS
record to publish is printed.

Use RSA with 2048 bits. An Ed25519 key may sign as a second one beside it, with a
selector of its own; several large receivers cannot verify it alone.`,
		Example: `  veredus dkim keygen --domain brand.example --selector s2026a`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return k.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&k.domain, "domain", "", "domain of the From address, or a parent of it")
	f.StringVar(&k.selector, "selector", "", "name of the key within the domain: letters, digits and hyphens")
	f.StringVar(&k.algorithm, "algorithm", "rsa", "rsa or ed25519")
	f.IntVar(&k.bits, "bits", dkim.GoodRSABits, "size of an RSA key")
	f.StringVar(&k.out, "out", "", "file for the private key (default SELECTOR.DOMAIN.pem)")
	f.BoolVar(&k.json, "json", false, "print file and record as JSON")
	return cmd
}

func (k *keygen) run(cmd *cobra.Command) error {
	if k.domain == "" || k.selector == "" {
		return usagef(cmd, "--domain and --selector are required, for example --domain brand.example --selector s2026a")
	}
	signer, err := k.generate(cmd)
	if err != nil {
		return err
	}
	key, err := dkim.NewKey(k.domain, k.selector, signer)
	if err != nil {
		return &usageError{cmd, err}
	}
	path := k.out
	if path == "" {
		path = filepath.Base(key.Selector + "." + key.Domain + ".pem")
	}
	data, err := dkim.MarshalPEM(signer)
	if err != nil {
		return err
	}
	if err := dkim.WriteKeyFile(path, data); err != nil {
		return err
	}
	for _, w := range key.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	return k.print(cmd.OutOrStdout(), key, path)
}

func (k *keygen) generate(cmd *cobra.Command) (crypto.Signer, error) {
	switch k.algorithm {
	case "rsa":
		signer, err := dkim.GenerateRSA(k.bits)
		if err != nil {
			return nil, &usageError{cmd, fmt.Errorf("--bits: %w", err)}
		}
		return signer, nil
	case "ed25519":
		return dkim.GenerateEd25519()
	}
	return nil, usagef(cmd, "--algorithm %q: use rsa or ed25519", k.algorithm)
}

func (k *keygen) print(out io.Writer, key *dkim.Key, path string) error {
	if k.json {
		return printJSON(out, struct {
			KeyFile string `json:"key_file"`
			Name    string `json:"name"`
			Type    string `json:"type"`
			Value   string `json:"value"`
			Zone    string `json:"zone"`
		}{path, dkim.RecordName(key), "TXT", dkim.Record(key), dkim.ZoneLine(key)})
	}
	fmt.Fprintf(out, `Private key: %s (keep it; only you may read it)

Publish this TXT record:
  name   %s
  value  %s

The same as a line of a zone file:
  %s

Then check it with
  veredus dkim check --domain %s --selector %s --key %s
`, path, dkim.RecordName(key), dkim.Record(key), dkim.ZoneLine(key), key.Domain, key.Selector, path)
	return nil
}

// dkimCheck compares the DNS with keys.
type dkimCheck struct {
	domain, selector, key, config, dns string
	json                               bool
}

func newDKIMCheck() *cobra.Command {
	c := &dkimCheck{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare the DNS record of a DKIM key with the key",
		Long: `Look up the DNS record of a DKIM key and compare it with the key: is it there, is
it alone, does it hold this key, can receivers use it. Give one key, or a
configuration file to check all of its keys. The exit status is 0 if receivers can
verify every signature.`,
		Example: `  veredus dkim check --domain brand.example --selector s2026a --key s2026a.brand.example.pem
  veredus dkim check --config veredus.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&c.domain, "domain", "", "domain of the key")
	f.StringVar(&c.selector, "selector", "", "selector of the key")
	f.StringVar(&c.key, "key", "", "file of the private key")
	f.StringVar(&c.config, "config", "", "configuration file: check all keys of dkim.domains")
	f.StringVar(&c.dns, "dns", "", "DNS server to ask, host:port (default: the configuration's, or the system's)")
	f.BoolVar(&c.json, "json", false, "print one JSON object per key")
	return cmd
}

// checkedKey is the result for one key.
type checkedKey struct {
	Name     string         `json:"name"`
	KeyFile  string         `json:"key_file"`
	OK       bool           `json:"ok"`
	Findings []dkim.Finding `json:"findings"`
}

func (c *dkimCheck) run(cmd *cobra.Command) error {
	domains, err := c.domains(cmd)
	if err != nil {
		return err
	}
	bad := 0
	for _, d := range domains {
		checked, err := c.check(cmd.Context(), d)
		if err != nil {
			return err
		}
		if !checked.OK {
			bad++
		}
		if err := c.print(cmd.OutOrStdout(), checked); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d keys cannot be relied on; see above", bad, len(domains))
	}
	return nil
}

// domains are the keys to check.
func (c *dkimCheck) domains(cmd *cobra.Command) ([]config.Domain, error) {
	one := c.domain != "" || c.selector != "" || c.key != ""
	switch {
	case c.config != "" && one:
		return nil, usagef(cmd, "--config checks all keys of the file; leave --domain, --selector and --key out")
	case c.config != "":
		cfg, err := config.Load(c.config)
		if err != nil {
			return nil, &usageError{nil, err}
		}
		if len(cfg.DKIM.Domains) == 0 {
			return nil, usagef(cmd, "%s has no keys under dkim.domains", c.config)
		}
		if c.dns == "" {
			c.dns = cfg.DNS.Server
		}
		return cfg.DKIM.Domains, nil
	case c.domain == "" || c.selector == "" || c.key == "":
		return nil, usagef(cmd, "give --domain, --selector and --key, or --config FILE")
	}
	return []config.Domain{{Domain: c.domain, Selector: c.selector, KeyFile: c.key}}, nil
}

func (c *dkimCheck) check(ctx context.Context, d config.Domain) (*checkedKey, error) {
	key, err := dkim.LoadKeyFile(d.Domain, d.Selector, d.KeyFile)
	if err != nil {
		return nil, &usageError{nil, err}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	checked := &checkedKey{Name: dkim.RecordName(key), KeyFile: d.KeyFile, OK: true}
	checked.Findings = dkim.Check(ctx, key, resolverAt(c.dns).LookupTXT)
	for _, f := range checked.Findings {
		if f.Severity == dkim.Failure || f.Severity == dkim.Unknown {
			checked.OK = false
		}
	}
	return checked, nil
}

// resolverAt asks one DNS server, the system's if server is empty.
func resolverAt(server string) *net.Resolver {
	if server == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		},
	}
}

func (c *dkimCheck) print(out io.Writer, checked *checkedKey) error {
	if c.json {
		return printJSON(out, checked)
	}
	fmt.Fprintf(out, "%s (%s)\n", checked.Name, checked.KeyFile)
	for _, f := range checked.Findings {
		fmt.Fprintf(out, "  %-7s  %s\n", f.Severity, oneLine(f.Text))
		if f.Remedy != "" {
			fmt.Fprintf(out, "           %s\n", oneLine(f.Remedy))
		}
	}
	return nil
}

// sandboxKey loads the key of a sandbox from its data directory, and makes it there
// at the first start.
func sandboxKey(dir, domain, selector string) (config.Domain, error) {
	d := config.Domain{Domain: domain, Selector: selector, KeyFile: filepath.Join(dir, "dkim."+domain+".pem")}
	if _, err := os.Stat(d.KeyFile); err == nil {
		return d, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return d, err
	}
	signer, err := dkim.GenerateRSA(dkim.GoodRSABits)
	if err != nil {
		return d, err
	}
	data, err := dkim.MarshalPEM(signer)
	if err != nil {
		return d, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return d, err
	}
	return d, dkim.WriteKeyFile(d.KeyFile, data)
}
