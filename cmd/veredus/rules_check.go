package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/config"
)

// sample is a reply of a receiver, and what an operator expects of it.
type sample struct {
	Reply  string `yaml:"reply" json:"reply,omitempty"`
	Phase  string `yaml:"phase" json:"phase,omitempty"`
	MX     string `yaml:"mx" json:"mx,omitempty"`
	Domain string `yaml:"domain" json:"domain,omitempty"`
	Source string `yaml:"source" json:"source,omitempty"`
	// Expect has what must come out of it; what is left out is not judged.
	Expect expectation `yaml:"expect" json:"-"`
}

// expectation is what must come out of a sample.
type expectation struct {
	Provider string        `yaml:"provider"`
	Rule     string        `yaml:"rule"`
	Tag      string        `yaml:"tag"`
	Code     int           `yaml:"code"`
	Do       string        `yaml:"do"`
	For      time.Duration `yaml:"for"`
}

// outcome is what rules make of a sample.
type outcome struct {
	sample
	Provider   string   `json:"provider,omitempty"`
	Rule       string   `json:"rule"`
	RuleAt     string   `json:"rule_at"`
	Governor   string   `json:"governor"`
	Code       int      `json:"bounce_code,omitempty"`
	Tag        string   `json:"tag,omitempty"`
	BounceRule string   `json:"bounce_rule,omitempty"`
	Do         string   `json:"do,omitempty"`
	By         string   `json:"by,omitempty"`
	Trigger    string   `json:"trigger,omitempty"`
	For        string   `json:"for,omitempty"`
	Warning    string   `json:"warning,omitempty"`
	Unexpected []string `json:"unexpected,omitempty"`
}

// rulesCheck tests a rule file.
type rulesCheck struct {
	samples, bounces string
	config           string
	replies          []string
	one              sample
	json             bool
}

func newRulesCheck() *cobra.Command {
	c := &rulesCheck{}
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a rule file, and test it against replies of receivers",
		Long: `Check a file of MX rules, and show what it makes of replies: which rule matches the
path, what the reply means, and how the path reacts to it: by a reaction of the rule,
or by the governor's own.

A reply is given with --reply, or many in a file with --samples:

  samples:
    - mx: gmail-smtp-in.l.google.com     # best MX host; decides provider and rule
      domain: gmail.com                  # recipient domain, where rules name it
      source: 192.0.2.7                  # sending address, where rules name it
      phase: rcpt                        # connect, greeting, ehlo, tls, mail, rcpt, data, end_of_data
      reply: "421 4.7.28 unusual rate of mail"
      expect: {rule: my-google, tag: rate_limit, do: rest, for: 2h}

Everything but mx may be left out; a sample without a reply tests only which rule
matches. expect may have provider, rule, tag, code, do (nothing, slow,
fewer_connections, fewer_messages, rest, step_back, hold_delivery, retry_soon) and
for. The exit status is 1 when something comes out otherwise than expected.

A reaction that cannot follow is warned of: one whose words are those of a sample that
qualification takes for no trouble of the path, and one that an earlier one hides. With
--config the node's configuration is read, too, and what it warns of is told: among it a
provider's part of a warm-up that is too small for the warm-up to get on.`,
		Example: `  veredus rules check mx.yaml
  veredus rules check mx.yaml --mx mx1.acme.example --reply "421 too many connections"
  veredus rules check mx.yaml --samples replies.yaml`,
		Args: exactArgs("the rule file"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&c.samples, "samples", "", "YAML file of replies, with what is expected")
	f.StringArrayVar(&c.replies, "reply", nil, "a reply as the server said it; may be repeated")
	f.StringVar(&c.one.MX, "mx", "", "MX host that says it")
	f.StringVar(&c.one.Domain, "domain", "", "recipient domain")
	f.StringVar(&c.one.Source, "source", "", "sending address")
	f.StringVar(&c.one.Phase, "phase", "", "phase of --reply (default rcpt)")
	f.StringVar(&c.bounces, "bounce-rules", "", "file of bounce rules that stands before the built-in ones")
	f.StringVar(&c.config, "config", "", "configuration of a node, whose warnings are told, too")
	f.BoolVar(&c.json, "json", false, "print one JSON object per reply")
	return cmd
}

func (c *rulesCheck) run(cmd *cobra.Command, path string) error {
	rules, err := loadRules(path)
	if err != nil {
		return &usageError{nil, err}
	}
	table := bounce.Default()
	if c.bounces != "" {
		data, err := os.ReadFile(c.bounces)
		if err == nil {
			table, err = bounce.Load(data, c.bounces)
		}
		if err != nil {
			return &usageError{cmd, fmt.Errorf("--bounce-rules: %w", err)}
		}
	}
	warnings, err := c.configured()
	if err != nil {
		return &usageError{nil, err}
	}
	list, err := c.list(cmd)
	if err != nil {
		return err
	}
	own := 0
	for _, r := range rules.All() {
		if r.At.File != mxrules.BuiltinFile {
			own++
		}
	}
	out := cmd.OutOrStdout()
	if !c.json {
		fmt.Fprintf(out, "%s is sound: %d rules of its own, %d with the built-in ones\n", path, own, len(rules.All()))
	}
	for _, w := range slices.Concat(hidden(rules), idle(rules, table), warnings) {
		c.warn(out, w)
	}
	failed := 0
	for _, s := range list {
		o, err := judge(rules, table, s)
		if err != nil {
			return &usageError{cmd, err}
		}
		if len(o.Unexpected) > 0 {
			failed++
		}
		if err := c.print(out, o); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d samples came out otherwise than expected", failed, len(list))
	}
	return nil
}

// configured are the warnings of the node's configuration.
func (c *rulesCheck) configured() ([]string, error) {
	if c.config == "" {
		return nil, nil
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	return cfg.Warnings, nil
}

// warn prints a warning about the file.
func (c *rulesCheck) warn(out io.Writer, text string) {
	if !c.json {
		fmt.Fprintf(out, "warning: %s\n", text)
	}
}

// hidden are warnings about reactions that never follow, since an earlier one of the
// rule fits every reply that they fit.
func hidden(rules *mxrules.Rules) (warnings []string) {
	for _, rule := range rules.All() {
		list := rule.Limits.Reactions.All()
		for i := range list {
			for j := range i {
				if list[j].Covers(list[i]) {
					warnings = append(warnings, fmt.Sprintf("%s: rule %s: reaction %d, %s, never follows: reaction %d fits all its replies before",
						at(rule.At.File, rule.At.Line), rule.ID, i+1, list[i].String(), j+1))
					break
				}
			}
		}
	}
	return warnings
}

// idle are warnings about reactions to a tag that qualification never gives, or never to
// a reply about the path.
func idle(rules *mxrules.Rules, table *bounce.Table) (warnings []string) {
	for _, rule := range rules.All() {
		for i, r := range rule.Limits.Reactions.All() {
			if r.Tag == "" {
				continue
			}
			given, trouble := table.Gives(r.Tag)
			why := ""
			switch {
			case !given:
				why = "no bounce rule gives that tag; `veredus qualify` shows those that there are"
			case !trouble && !r.Do.OfMessage() && r.Do != mxrules.DoNothing:
				why = "replies with that tag are not about the path; make them so by a bounce rule (path: rest), or use hold_delivery or retry_soon"
			default:
				continue
			}
			warnings = append(warnings, fmt.Sprintf("%s: rule %s: reaction %d, %s, never follows: %s", at(rule.At.File, rule.At.Line), rule.ID, i+1, r.String(), why))
		}
	}
	return warnings
}

// list are the samples of the command line and of the file.
func (c *rulesCheck) list(cmd *cobra.Command) (list []sample, err error) {
	for _, reply := range c.replies {
		s := c.one
		s.Reply = reply
		list = append(list, s)
	}
	if c.one != (sample{}) && len(c.replies) == 0 {
		list = append(list, c.one)
	}
	if c.samples == "" {
		return list, nil
	}
	data, err := os.ReadFile(c.samples)
	if err != nil {
		return nil, &usageError{cmd, fmt.Errorf("--samples: %w", err)}
	}
	more, err := parseSamples(data)
	if err != nil {
		return nil, &usageError{cmd, fmt.Errorf("--samples %s: %w", c.samples, err)}
	}
	return append(list, more...), nil
}

// parseSamples reads a file of samples; unknown keys are errors.
func parseSamples(data []byte) ([]sample, error) {
	var file struct {
		Samples []sample `yaml:"samples"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for i, s := range file.Samples {
		if s.MX == "" && s.Domain == "" {
			return nil, fmt.Errorf("sample %d: has no mx; give the MX host that says the reply", i+1)
		}
		if s.Expect.Do != "" {
			if _, err := mxrules.ParseDo(s.Expect.Do); err != nil {
				return nil, fmt.Errorf("sample %d: expect: do: %w", i+1, err)
			}
		}
	}
	return file.Samples, nil
}

// judge is what rules make of a sample.
func judge(rules *mxrules.Rules, table *bounce.Table, s sample) (outcome, error) {
	o := outcome{sample: s, Provider: rules.ProviderOf(s.MX)}
	q := mxrules.Query{Host: s.MX, Domain: s.Domain}
	if s.Source != "" {
		addr, err := netip.ParseAddr(s.Source)
		if err != nil {
			return o, fmt.Errorf("source %q is no address; write 192.0.2.7 or 2001:db8::7", s.Source)
		}
		q.Source = addr
	}
	e := rules.Match(q)
	o.Rule, o.Governor = e.Rule, e.Limits.Governor.String()
	for _, r := range rules.All() {
		if r.ID == e.Rule {
			o.RuleAt = at(r.At.File, r.At.Line)
		}
	}
	if s.Reply != "" {
		if err := o.react(table, &e); err != nil {
			return o, err
		}
	}
	o.compare()
	return o, nil
}

// react says what the reply means and what follows for the path.
func (o *outcome) react(table *bounce.Table, e *mxrules.Effective) error {
	phase, ok := parsePhase(o.Phase)
	if !ok {
		return fmt.Errorf("phase %q is not known; use %s", o.Phase, phaseWords)
	}
	in := bounce.Input{Reply: bounce.ParseReply(o.Reply), Provider: o.Provider, Host: o.MX, Domain: o.Domain}
	in.Reply.Phase = phase
	v := table.Qualify(in)
	o.Code, o.Tag, o.BounceRule = v.Code, v.Tag, v.Rule
	o.Do = strings.ReplaceAll(v.Path.String(), "none", "nothing")
	o.By = "the governor"
	said := mxrules.Evidence{Tag: v.Tag, Text: phase.String() + ": " + in.Reply.String(), Code: in.Reply.Code}
	r, ok := e.Limits.Reactions.OfMessage(said)
	if v.Path != bounce.PathNone {
		r, ok = e.Limits.Reactions.For(said)
	}
	if v.Path == bounce.PathNone && !ok {
		o.By = "the reply, which is not about the path"
		if r, ok := e.Limits.Reactions.For(said); ok {
			o.Warning = fmt.Sprintf("the reaction %s does not follow: the reply is not about the path; make it so by a bounce rule (path: rest), or use hold_delivery or retry_soon", r.String())
		}
		return nil
	}
	if r.Do == mxrules.DoRetrySoon && v.Disposition == bounce.Final {
		o.Warning = fmt.Sprintf("the reaction %s does not follow: the reply is final", r.String())
	}
	if !ok {
		return nil
	}
	o.Do, o.By, o.Trigger = r.Do.String(), "a reaction of the rule", r.Trigger()
	if r.For > 0 {
		o.For = r.For.String()
	}
	return nil
}

// compare notes what is otherwise than expected.
func (o *outcome) compare() {
	want := o.Expect
	check := func(what, want, got string) {
		if want != "" && want != got {
			o.Unexpected = append(o.Unexpected, fmt.Sprintf("%s is %s, expected %s", what, orNone(got), want))
		}
	}
	check("provider", want.Provider, o.Provider)
	check("rule", want.Rule, o.Rule)
	check("tag", want.Tag, o.Tag)
	check("do", want.Do, o.Do)
	if want.Code != 0 {
		check("code", fmt.Sprint(want.Code), fmt.Sprint(o.Code))
	}
	if want.For != 0 {
		check("for", want.For.String(), o.For)
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

func (c *rulesCheck) print(out io.Writer, o outcome) error {
	if c.json {
		return printJSON(out, o)
	}
	head := o.Reply
	if head == "" {
		head = strings.TrimSpace(o.MX + " " + o.Domain)
	}
	fmt.Fprintf(out, "\n%s\n", oneLine(head))
	rule := o.Rule
	if o.RuleAt != "" {
		rule += " (" + o.RuleAt + ")"
	}
	means := ""
	if o.Reply != "" {
		means = fmt.Sprintf("%d %s, tag %s, by %s", o.Code, bounce.CodeName(o.Code), orNone(o.Tag), o.BounceRule)
	}
	does := o.Do
	if o.For != "" {
		does += " for " + o.For
	}
	if o.Trigger != "" && o.Trigger != "first" {
		does += ", when it comes " + o.Trigger
	}
	if does != "" {
		does += ", by " + o.By
	}
	pairs(out, "provider", o.Provider, "MX rule", rule, "governor", o.Governor, "means", means, "the path", does)
	if o.Warning != "" {
		fmt.Fprintf(out, "  warning: %s\n", o.Warning)
	}
	for _, u := range o.Unexpected {
		fmt.Fprintf(out, "  UNEXPECTED: %s\n", u)
	}
	return nil
}
