package simulation

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	"github.com/veredus/veredus/mxrules/rulefile"
)

// Names of the files that Export writes.
const (
	ExportWorld      = "world.yaml"     // for veredus serve --world
	ExportRules      = "mx.yaml"        // named by ExportNode
	ExportNode       = "node.yaml"      // for veredus serve --config
	ExportRecipients = "recipients.csv" // for veredus send
	exportReplies    = "bounces.yaml"   // named by ExportNode if there are any
)

// Export writes into a folder what it takes to run the scenario with a real node and
// real SMTP over loopback: the receivers, the rules, the node's configuration and the
// recipients. All hand-overs become one list of recipients; round trips are the
// machine's own; sources get addresses of loopback.
func (s *Scenario) Export(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	w := world.World{Name: s.Name, Seed: s.Seed}
	for _, p := range s.Mix {
		w.Receivers = append(w.Receivers, s.expand(p)...)
	}
	if err := w.Validate(); err != nil {
		return fmt.Errorf("these receivers cannot be served over TCP: %w", err)
	}
	write := func(name string, content func(io.Writer) error) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		b := bufio.NewWriter(f)
		if err = content(b); err == nil {
			err = b.Flush()
		}
		if closed := f.Close(); err == nil {
			err = closed
		}
		return err
	}
	if err := write(ExportWorld, func(out io.Writer) error { return serve.Save(out, w) }); err != nil {
		return err
	}
	if err := write(ExportRules, s.writeRules); err != nil {
		return err
	}
	if s.Qualification != "" {
		if err := os.WriteFile(filepath.Join(dir, exportReplies), []byte(s.Qualification), 0o644); err != nil {
			return err
		}
	}
	if err := write(ExportNode, s.writeNode); err != nil {
		return err
	}
	return write(ExportRecipients, s.writeRecipients)
}

func (s *Scenario) writeRules(out io.Writer) error {
	if s.Rules != "" && s.Governor == "" {
		_, err := io.WriteString(out, s.Rules)
		return err
	}
	return rulefile.Print(s.rules, out)
}

// nodeFile is the part of a node's configuration that a scenario decides.
type nodeFile struct {
	DataDir     string      `yaml:"data_dir"`
	Relay       relayFile   `yaml:"relay"`
	MXRules     string      `yaml:"mx_rules"`
	BounceRules string      `yaml:"bounce_rules,omitempty"`
	Protection  switchFile  `yaml:"protection"`
	Sandbox     sandboxFile `yaml:"sandbox"`
}

type relayFile struct {
	Mode        string              `yaml:"mode"`
	MaxSessions int                 `yaml:"max_sessions,omitempty"`
	Pools       map[string]poolFile `yaml:"pools"`
	WarmUp      map[string]any      `yaml:"warm_up,omitempty"`
}

type poolFile struct {
	Sources  []sourceFile `yaml:"sources"`
	Overflow string       `yaml:"overflow,omitempty"`
}

type sourceFile struct {
	Name    string `yaml:"name"`
	Address string `yaml:"address"`
	Weight  int    `yaml:"weight"`
	WarmUp  any    `yaml:"warm_up,omitempty"`
}

type switchFile struct {
	Enabled bool `yaml:"enabled"`
}

type sandboxFile struct {
	TimeScale int `yaml:"time_scale"`
}

func (s *Scenario) writeNode(out io.Writer) error {
	n := nodeFile{
		DataDir: "data", MXRules: ExportRules, Sandbox: sandboxFile{TimeScale: 1},
		Relay: relayFile{Mode: "sandbox", MaxSessions: s.Node.MaxSessions, Pools: map[string]poolFile{}},
	}
	if s.Qualification != "" {
		n.BounceRules = exportReplies
	}
	addresses := map[string]string{}
	for _, p := range s.Pools {
		pool := poolFile{Overflow: p.Overflow}
		for _, src := range p.Sources {
			if addresses[src.Name] == "" {
				addresses[src.Name] = fmt.Sprintf("127.0.1.%d", len(addresses)+1)
			}
			pool.Sources = append(pool.Sources, sourceFile{
				Name: src.Name, Address: addresses[src.Name], Weight: max(src.Weight, 1), WarmUp: n.Relay.warmUp(&src),
			})
		}
		n.Relay.Pools[p.Name] = pool
	}
	e := yaml.NewEncoder(out)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return err
	}
	return e.Close()
}

// writeRecipients lists every recipient, under the address that the simulator uses.
func (s *Scenario) writeRecipients(out io.Writer) error {
	cfg, err := s.Config()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "email"); err != nil {
		return err
	}
	for h := range cfg.HandOvers {
		for d, count := range cfg.HandOvers[h].Counts {
			for i, n := range cfg.Destinations[d].Deal(count) {
				for order := range n {
					if _, err := fmt.Fprintf(out, "u%d-%d@%s\n", h, order, cfg.Destinations[d].Domains[i].Name); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
