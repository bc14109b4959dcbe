// Package simulation reads scenarios, runs them in the simulator over the receiver
// models of package world, and reports what came of them as a table, JSON or a plot.
//
// A scenario is one strict YAML file; docs/simulate.md describes every key. Call Read
// or Parse, then Scenario.Run, then Report.Table, Report.JSON or Report.SVG.
package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
)

// Scenario is what a scenario file says.
type Scenario struct {
	// Name and About are shown in reports.
	Name  string `yaml:"name"`
	About string `yaml:"about"`
	// Seed of every random choice: mailbox fates, noise, jitter, ties.
	Seed uint64 `yaml:"seed"`
	// Duration is the longest the simulation lasts; default 84h.
	Duration world.Duration `yaml:"duration"`
	// Resolution is the width of the series' steps; default by the oracle's end.
	Resolution world.Duration `yaml:"resolution"`
	// SteadyAfter is when the steady state begins, from the first hand-over on.
	SteadyAfter world.Duration `yaml:"steady_after"`
	// Together keeps all receivers in one core.
	Together bool    `yaml:"together"`
	Network  Network `yaml:"network"`
	Node     Node    `yaml:"node"`
	Pools    []Pool  `yaml:"pools"`
	// Rules is the text of an MX rule file, RulesFile its name beside the scenario.
	Rules     string `yaml:"rules"`
	RulesFile string `yaml:"rules_file"`
	// Governor, if set, is that of every rule: static, observe or on.
	Governor string `yaml:"governor"`
	// Learned is what governors know at the start.
	Learned []Learned `yaml:"learned"`
	// Qualification is the text of a file of rules on replies.
	Qualification string           `yaml:"qualification"`
	Receivers     []world.Receiver `yaml:"receivers"`
	Mix           []Part           `yaml:"mix"`
	HandOvers     []HandOver       `yaml:"hand_overs"`

	rules   *mxrules.Rules
	bounces *bounce.Table
	root    *yaml.Node
	file    string
}

// Network is the way to the receivers.
type Network struct {
	// RoundTrip is that of every receiver whose part of the mix has none; default 20ms.
	RoundTrip *world.Duration `yaml:"round_trip"`
}

// Node is how long the node's own work takes, and its bounds.
type Node struct {
	// Commit is one durable write (default 2ms), Load one read (1ms), Resolve one
	// look-up (20ms).
	Commit  *world.Duration `yaml:"commit"`
	Load    *world.Duration `yaml:"load"`
	Resolve *world.Duration `yaml:"resolve"`
	// MaxSessions caps sessions over all destinations; default 1000.
	MaxSessions int `yaml:"max_sessions"`
}

// Pool is a named set of sources.
type Pool struct {
	Name    string   `yaml:"name"`
	Sources []Source `yaml:"sources"`
	// Overflow names the pool that takes what these sources may not send for their warm-up.
	Overflow string `yaml:"overflow"`
}

// Source is a sending identity.
type Source struct {
	Name    string     `yaml:"name"`
	Address netip.Addr `yaml:"address"`
	// Weight is its share among the pool's sources; default 1.
	Weight int `yaml:"weight"`
	// WarmUp is set for a source that is being warmed up.
	WarmUp *WarmUp `yaml:"warm_up"`
}

// Part is one receiver's part of the mail.
type Part struct {
	Receiver string `yaml:"receiver"`
	// Share weighs it among the parts.
	Share float64 `yaml:"share"`
	// Domains, if set, gives the receiver so many recipient domains of equal share,
	// named after its first.
	Domains int `yaml:"domains"`
	// Copies, if set, makes so many receivers of it, each with domains and hosts of
	// its own, which share the part: a long tail.
	Copies int `yaml:"copies"`
	// RoundTrip is the network's to this receiver.
	RoundTrip *world.Duration `yaml:"round_trip"`
}

// HandOver is mail that enters the relay.
type HandOver struct {
	At         world.Duration `yaml:"at"`
	Recipients int64          `yaml:"recipients"`
	// Over spreads the arrivals evenly over a time.
	Over world.Duration `yaml:"over"`
	// Class is bulk (default) or transactional.
	Class string `yaml:"class"`
	// Priority is 1 to 100, default 50.
	Priority int `yaml:"priority"`
	// Pool is the pool's name; default the first pool.
	Pool string `yaml:"pool"`
	// Validity is how long each message is tried; default and most 84h.
	Validity world.Duration `yaml:"validity"`
	// To names the receivers it goes to; default all of the mix.
	To []string `yaml:"to"`
}

// MaxSize is the largest scenario file read, in bytes.
const MaxSize = 4 << 20

// Read reads a scenario file.
func Read(name string) (*Scenario, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return Parse(name, data)
}

// Parse reads a scenario; name stands in errors, and rules_file is looked for beside
// it. Unknown keys, wrong types and values out of range are errors with their line.
func Parse(name string, data []byte) (*Scenario, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, MaxSize)
	}
	s := &Scenario{file: name}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		if line := lineOfText(data, err); line > 0 {
			return nil, fmt.Errorf("%s:%d: %w", name, line, scenarioErr(err))
		}
		return nil, fmt.Errorf("%s: %w", name, scenarioErr(err))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document in the file; keep one", name)
	}
	s.root = new(yaml.Node)
	if err := yaml.Unmarshal(data, s.root); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.setDefaults()
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// lineOfText is the line of the rate or duration that an error is about, whose reader
// knows no lines; 0 for another error.
func lineOfText(data []byte, err error) int {
	kind, rest, _ := strings.Cut(err.Error(), " ")
	quoted, bad := strconv.QuotedPrefix(rest)
	text, bad2 := strconv.Unquote(quoted)
	var root yaml.Node
	if kind != "rate" && kind != "duration" || bad != nil || bad2 != nil || yaml.Unmarshal(data, &root) != nil {
		return 0
	}
	return lineOfScalar(&root, text)
}

// lineOfScalar is the first line with a value that begins with a text, which errors cut.
func lineOfScalar(n *yaml.Node, text string) int {
	if n.Kind == yaml.ScalarNode && (n.Value == text || len(text) >= 40 && strings.HasPrefix(n.Value, text)) {
		return n.Line
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // a key
		}
		if line := lineOfScalar(c, text); line > 0 {
			return line
		}
	}
	return 0
}

// scenarioErr turns the words of the YAML reader into those of a scenario's author.
func scenarioErr(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty; docs/simulate.md has an example")
	}
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return err
	}
	lines := make([]error, len(typed.Errors))
	for i, text := range typed.Errors {
		text = typeWords.Replace(text)
		if before, after, found := strings.Cut(text, " not found in type "); found {
			text = strings.Replace(before, "field ", "unknown key ", 1) + " in " + after
		}
		lines[i] = errors.New(text)
	}
	return errors.Join(lines...)
}

var typeWords = strings.NewReplacer("simulation.", "", "world.", "", "cannot unmarshal", "cannot read")

// Defaults.
const (
	defaultRoundTrip = world.Duration(20 * time.Millisecond)
	defaultCommit    = world.Duration(2 * time.Millisecond)
	defaultLoad      = world.Duration(time.Millisecond)
	defaultResolve   = world.Duration(20 * time.Millisecond)
	defaultDuration  = world.Duration(84 * time.Hour)
	defaultPriority  = 50
	defaultPool      = "default"
)

func (s *Scenario) setDefaults() {
	or := func(d **world.Duration, value world.Duration) {
		if *d == nil {
			*d = &value
		}
	}
	or(&s.Network.RoundTrip, defaultRoundTrip)
	or(&s.Node.Commit, defaultCommit)
	or(&s.Node.Load, defaultLoad)
	or(&s.Node.Resolve, defaultResolve)
	if s.Duration == 0 {
		s.Duration = defaultDuration
	}
	if s.Name == "" {
		s.Name = strings.TrimSuffix(filepath.Base(s.file), filepath.Ext(s.file))
	}
	if len(s.Pools) == 0 {
		s.Pools = []Pool{{Name: defaultPool, Sources: []Source{{Name: "s1", Address: netip.MustParseAddr("192.0.2.1")}}}}
	}
	if len(s.Mix) == 0 {
		s.Mix = s.ownMix()
	}
	for i := range s.HandOvers {
		h := &s.HandOvers[i]
		if h.Priority == 0 {
			h.Priority = defaultPriority
		}
		if h.Pool == "" {
			h.Pool = s.Pools[0].Name
		}
	}
}

// ownMix weighs each receiver by its domains' shares.
func (s *Scenario) ownMix() []Part {
	parts, all := make([]Part, len(s.Receivers)), 0
	for i, r := range s.Receivers {
		parts[i].Receiver = r.Name
		for _, d := range r.Domains {
			parts[i].Share += float64(d.Share)
			all += d.Share
		}
	}
	if all == 0 {
		for i := range parts {
			parts[i].Share = 1
		}
	}
	return parts
}

// problem is an error at a place of the file.
func (s *Scenario) problem(path, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s: %s", s.file, s.lineOf(path), path, fmt.Sprintf(format, args...))
}

// lineOf is the line of a key such as "hand_overs[1].class", or of what is there of it.
func (s *Scenario) lineOf(path string) int {
	n := s.root
	if len(n.Content) > 0 {
		n = n.Content[0]
	}
	line := max(n.Line, 1)
	for _, key := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if n = child(n, key); n == nil {
			break
		}
		line = n.Line
	}
	return line
}

// child is a member of a mapping or an item of a list.
func child(n *yaml.Node, key string) *yaml.Node {
	if i, err := strconv.Atoi(key); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
		return n.Content[i]
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func (s *Scenario) check() error {
	var errs []error
	errs = append(errs, s.checkTimes(), s.checkPools(), s.checkReceivers(), s.checkMix(), s.checkHandOvers(), s.checkLearned(), s.checkRules())
	return errors.Join(errs...)
}

func (s *Scenario) checkTimes() error {
	if s.Duration < 0 || s.Duration.Std() > 366*24*time.Hour {
		return s.problem("duration", "%v is out of range; use a positive one of at most a year", s.Duration.Std())
	}
	for path, d := range map[string]world.Duration{
		"resolution": s.Resolution, "steady_after": s.SteadyAfter, "network.round_trip": *s.Network.RoundTrip,
		"node.commit": *s.Node.Commit, "node.load": *s.Node.Load, "node.resolve": *s.Node.Resolve,
	} {
		if d < 0 {
			return s.problem(path, "%v is negative; use a duration from 0", d.Std())
		}
	}
	if s.Resolution > 0 && s.Duration/s.Resolution > maxSteps {
		return s.problem("resolution", "%v makes more than %d steps; use a wider one or leave it out", s.Resolution.Std(), maxSteps)
	}
	if s.Node.MaxSessions < 0 {
		return s.problem("node.max_sessions", "%d is negative; use a count from 1", s.Node.MaxSessions)
	}
	return nil
}

// maxSteps bounds a series.
const maxSteps = 1_000_000

func (s *Scenario) checkPools() error {
	pools, sources := map[string]bool{}, map[string]netip.Addr{}
	for i, p := range s.Pools {
		path := fmt.Sprintf("pools[%d]", i)
		if p.Name == "" || pools[p.Name] {
			return s.problem(path, "name %q is empty or used twice; give each pool its own", p.Name)
		}
		pools[p.Name] = true
		if len(p.Sources) == 0 {
			return s.problem(path, "pool %s has no sources; give one at least", p.Name)
		}
		here := map[string]bool{}
		for j, src := range p.Sources {
			at := fmt.Sprintf("%s.sources[%d]", path, j)
			if here[src.Name] {
				return s.problem(at, "source %q is in pool %s already; name each once", src.Name, p.Name)
			}
			here[src.Name] = true
			for name, addr := range sources {
				if addr == src.Address && name != src.Name {
					return s.problem(at, "source %q has the address %v of source %q; give each its own", src.Name, addr, name)
				}
			}
			addr, known := sources[src.Name]
			if src.Name == "" || !src.Address.IsValid() || src.Weight < 0 || known && addr != src.Address {
				return s.problem(at, "source %q: give a name, an address of its own and a weight from 1", src.Name)
			}
			sources[src.Name] = src.Address
			if err := s.checkWarmUp(at, src.WarmUp); err != nil {
				return err
			}
		}
	}
	if err := s.checkOverflow(pools); err != nil {
		return err
	}
	if len(sources) > maxSources {
		return s.problem("pools", "%d sources; at most %d fit", len(sources), maxSources)
	}
	return nil
}

// maxSources is how many sources a scenario may have.
const maxSources = 255

func (s *Scenario) checkReceivers() error {
	if len(s.Receivers) == 0 {
		return s.problem("receivers", "there are none; give at least one")
	}
	w := world.World{Name: s.Name, Receivers: s.Receivers}
	if err := w.Validate(); err != nil {
		return s.problem("receivers", "%v", err)
	}
	for i, r := range s.Receivers {
		if len(r.Domains) == 0 {
			return s.problem(fmt.Sprintf("receivers[%d]", i), "%s has no domains; give one at least", r.Name)
		}
	}
	return nil
}

func (s *Scenario) checkMix() error {
	seen := map[string]bool{}
	for i, p := range s.Mix {
		path := fmt.Sprintf("mix[%d]", i)
		switch {
		case s.receiver(p.Receiver) == nil:
			return s.problem(path+".receiver", "there is no receiver %q; name one of receivers", p.Receiver)
		case seen[p.Receiver]:
			return s.problem(path+".receiver", "%q is there twice; add its shares up", p.Receiver)
		case !(p.Share >= 0 && p.Share < 1e12):
			return s.problem(path+".share", "%g; use a number from 0", p.Share)
		case p.Domains < 0 || p.Domains > maxDomains:
			return s.problem(path+".domains", "%d; use 1 to %d", p.Domains, maxDomains)
		case p.Copies < 0 || p.Copies > maxCopies:
			return s.problem(path+".copies", "%d; use 1 to %d", p.Copies, maxCopies)
		case p.RoundTrip != nil && *p.RoundTrip < 0:
			return s.problem(path+".round_trip", "%v is negative", p.RoundTrip.Std())
		}
		seen[p.Receiver] = true
	}
	return nil
}

// Bounds of a mix, which keep a mistyped figure from filling the memory.
const (
	maxDomains = 100_000
	maxCopies  = 10_000
	maxMail    = 1_000_000_000_000
)

func (s *Scenario) receiver(name string) *world.Receiver {
	for i := range s.Receivers {
		if s.Receivers[i].Name == name {
			return &s.Receivers[i]
		}
	}
	return nil
}

func (s *Scenario) checkHandOvers() error {
	if len(s.HandOvers) == 0 {
		return s.problem("hand_overs", "there are none; give at least one")
	}
	for i, h := range s.HandOvers {
		path := fmt.Sprintf("hand_overs[%d]", i)
		switch {
		case h.At < 0 || h.Over < 0 || h.At.Std() > s.Duration.Std():
			return s.problem(path, "at %v, over %v: use durations from 0, and an instant within the duration %v", h.At.Std(), h.Over.Std(), s.Duration.Std())
		case h.Recipients < 1 || h.Recipients > maxMail:
			return s.problem(path+".recipients", "%d; use 1 to %d", h.Recipients, int64(maxMail))
		case h.Class != "" && h.Class != "bulk" && h.Class != "transactional":
			return s.problem(path+".class", "%q; use bulk or transactional", h.Class)
		case h.Priority < 1 || h.Priority > 100:
			return s.problem(path+".priority", "%d; use 1 to 100", h.Priority)
		case !s.hasPool(h.Pool):
			return s.problem(path+".pool", "there is no pool %q; name one of pools", h.Pool)
		case h.Validity < 0 || h.Validity > defaultDuration:
			return s.problem(path+".validity", "%v; use at most 84h", h.Validity.Std())
		}
		for j, to := range h.To {
			if s.receiver(to) == nil {
				return s.problem(fmt.Sprintf("%s.to[%d]", path, j), "there is no receiver %q; name one of receivers", to)
			}
		}
		if s.shares(&h) <= 0 {
			return s.problem(path, "no receiver of the mix that it goes to has a share")
		}
	}
	return nil
}

func (s *Scenario) hasPool(name string) bool {
	for _, p := range s.Pools {
		if p.Name == name {
			return true
		}
	}
	return false
}

func (s *Scenario) checkRules() error {
	if s.Rules != "" && s.RulesFile != "" {
		return s.problem("rules_file", "rules are there too; give one of both")
	}
	name, text := s.file+" (rules)", []byte(s.Rules)
	if s.RulesFile != "" {
		name = filepath.Join(filepath.Dir(s.file), s.RulesFile)
		var err error
		if text, err = os.ReadFile(name); err != nil {
			return s.problem("rules_file", "%v", err)
		}
	}
	s.rules = mxrules.Builtin()
	if len(text) > 0 {
		var err error
		if s.rules, err = rulefile.Parse(name, text); err != nil {
			return s.problem("rules", "%v", err)
		}
	}
	if s.Governor != "" {
		if err := s.govern(); err != nil {
			return err
		}
	}
	if s.Qualification == "" {
		s.bounces = bounce.Default()
		return nil
	}
	var err error
	if s.bounces, err = bounce.Load([]byte(s.Qualification), s.file+" (qualification)"); err != nil {
		return s.problem("qualification", "%v", err)
	}
	return nil
}
