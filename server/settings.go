package server

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
	"github.com/veredus/veredus/server/config"
)

// settings are the part of the configuration that a reload replaces, with the
// files it names read and checked. They never change; a reload makes new ones.
type settings struct {
	version      int64 // from 1 at start
	cfg          *config.Config
	rules        *mxrules.Rules
	bounces      *bounce.Table
	bounceSource []byte // the operator's bounce rules as written
	keys         []*dkim.Key
	keyring      *dkim.Keyring
	bounceDomain func(from string) string
	warnings     []string
}

// loadSettings reads every file that the configuration names. What is wrong with
// any of them comes back together, as a *config.Errors.
func loadSettings(cfg *config.Config) (*settings, error) {
	s := &settings{version: 1, cfg: cfg, warnings: cfg.Warnings}
	var errs config.Errors
	s.loadRules(&errs)
	s.loadBounces(&errs)
	s.loadKeys(&errs)
	if err := errs.OrNil(); err != nil {
		return nil, err
	}
	s.bounceDomain = bounceDomains(cfg)
	return s, nil
}

func (s *settings) loadRules(errs *config.Errors) {
	if s.cfg.MXRules == "" {
		s.rules = mxrules.Builtin()
		return
	}
	data, err := readFile(s.cfg.MXRules, rulefile.MaxSize)
	if err == nil {
		s.rules, err = rulefile.Parse(s.cfg.MXRules, data)
	}
	var bad *rulefile.Errors
	switch {
	case errors.As(err, &bad):
		for _, e := range bad.List {
			errs.Add(config.Error{File: e.File, Line: e.Line, Text: e.Text})
		}
		errs.More += bad.More
	case err != nil:
		errs.Add(config.Error{Text: "mx_rules: " + err.Error()})
	}
}

// maxBounceFile is the largest file of bounce rules read, in bytes.
const maxBounceFile = 4 << 20

// ownBounceRules is the operator's file, below data_dir, where bounce_rules names none. It
// comes into being with the first reply text that an operator qualifies.
const ownBounceRules = "bounces.yaml"

// bounceFile is the operator's file of bounce rules.
func bounceFile(cfg *config.Config) string {
	if cfg.BounceRules != "" {
		return cfg.BounceRules
	}
	return filepath.Join(cfg.DataDir, ownBounceRules)
}

func (s *settings) loadBounces(errs *config.Errors) {
	data, err := readFile(bounceFile(s.cfg), maxBounceFile)
	if s.cfg.BounceRules == "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) {
		s.bounces = bounce.Default()
		return
	}
	if err == nil {
		s.bounceSource = data
		s.bounces, err = bounce.Load(data, bounceFile(s.cfg))
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			errs.Add(config.Error{Text: "bounce_rules: " + strings.TrimSpace(line)})
		}
	}
}

func (s *settings) loadKeys(errs *config.Errors) {
	for _, d := range s.cfg.DKIM.Domains {
		key, err := dkim.LoadKeyFile(d.Domain, d.Selector, d.KeyFile)
		if err != nil {
			errs.Add(config.Error{Text: "dkim.domains: " + err.Error()})
			continue
		}
		for _, w := range key.Warnings {
			s.warnings = append(s.warnings, dkim.RecordName(key)+": "+w)
		}
		s.keys = append(s.keys, key)
	}
	keyring, err := dkim.NewKeyring(s.keys)
	if err != nil {
		errs.Add(config.Error{Text: "dkim.domains: " + err.Error()})
	}
	s.keyring = keyring
}

// replaceSigners is Options.Signer.
func (s *settings) replaceSigners(with func(crypto.Signer) crypto.Signer) {
	if with == nil {
		return
	}
	for _, k := range s.keys {
		k.Signer = with(k.Signer)
	}
}

// readFile reads a whole file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() || info.Size() > limit {
		return nil, fmt.Errorf("%s: give a file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// relay is what the relay takes of it.
func (s *settings) relay() mta.Settings {
	return mta.Settings{
		Rules: s.rules, Bounces: s.bounces, Keys: s.keyring,
		Pools: s.pools(), HelloNames: s.helloNames(), BounceDomain: s.bounceDomain,
	}
}

func (s *settings) pools() []dispatch.Pool {
	pools := make([]dispatch.Pool, 0, len(s.cfg.Relay.Pools))
	for _, p := range s.cfg.Relay.Pools {
		pool := dispatch.Pool{Name: p.Name, Overflow: p.Overflow, MoveBlocked: p.MoveBlocked}
		for _, src := range p.Sources {
			one := dispatch.Source{Name: src.Name, Addr: src.Address, Weight: src.Weight}
			if w := src.WarmUp; w != nil {
				one.WarmUp, one.Stage = s.cfg.Relay.WarmUpPlan(w.Plan), w.Stage
			}
			pool.Sources = append(pool.Sources, one)
		}
		pools = append(pools, pool)
	}
	return pools
}

func (s *settings) helloNames() map[string]string {
	names := map[string]string{}
	for _, p := range s.cfg.Relay.Pools {
		for _, src := range p.Sources {
			names[src.Name] = src.Hostname
		}
	}
	return names
}

// bounceDomains finds the return path's domain for a From domain: that of the
// closest parent with a key, else the From domain itself.
func bounceDomains(cfg *config.Config) func(from string) string {
	byDomain := map[string]string{}
	for _, d := range cfg.DKIM.Domains {
		if byDomain[d.Domain] == "" {
			byDomain[d.Domain] = d.BounceDomain
		}
	}
	return func(from string) string {
		from = strings.ToLower(strings.TrimSuffix(from, "."))
		for name, more := from, true; more; _, name, more = strings.Cut(name, ".") {
			if bounce, ok := byDomain[name]; ok && bounce != "" {
				return bounce
			} else if ok {
				break
			}
		}
		return from
	}
}

func (s *settings) hasPool(name string) bool {
	return slices.ContainsFunc(s.cfg.Relay.Pools, func(p config.Pool) bool { return p.Name == name })
}

// sources are the names of all sources with their addresses.
func (s *settings) sources() map[string]dispatch.Source {
	all := map[string]dispatch.Source{}
	for _, p := range s.pools() {
		for _, src := range p.Sources {
			all[src.Name] = src
		}
	}
	return all
}

// firstSource is the source that explanations are about: the first of the default
// pool, or of the first pool.
func (s *settings) firstSource() dispatch.Source {
	var first dispatch.Source
	for i, p := range s.pools() {
		if (i == 0 || p.Name == config.DefaultPool) && len(p.Sources) > 0 {
			first = p.Sources[0]
		}
	}
	return first
}
