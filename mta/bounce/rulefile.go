package bounce

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mta/smtpc"
)

//go:embed rules.yaml
var embeddedRules []byte

// embeddedName is the name the built-in rules have in errors and explanations.
const embeddedName = "built-in rules"

// ruleFile is the YAML form of a rule file.
type ruleFile struct {
	Providers []providerEntry `yaml:"providers"`
	Rules     []ruleEntry     `yaml:"rules"`
}

// providerEntry tells how a provider is recognised.
type providerEntry struct {
	ID    string   `yaml:"id"`
	Hosts []string `yaml:"hosts"`
	Text  []string `yaml:"text"`
}

// ruleEntry is one rule as written.
type ruleEntry struct {
	ID          string       `yaml:"id"`
	Note        string       `yaml:"note"`
	Match       matchEntry   `yaml:"match"`
	Tag         string       `yaml:"tag"`
	Code        int          `yaml:"code"`
	Reason      string       `yaml:"reason"`
	Type        string       `yaml:"type"`
	Disposition string       `yaml:"disposition"`
	MaxAttempts *int         `yaml:"max_attempts"`
	RetryAfter  string       `yaml:"retry_after"`
	Address     string       `yaml:"address"`
	Path        string       `yaml:"path"`
	Hold        string       `yaml:"hold"`
	Weak        bool         `yaml:"weak"`
	Examples    []exampleDoc `yaml:"examples"`

	file string
	line int
}

// matchEntry is the condition of a rule; all that is given must hold.
type matchEntry struct {
	Text     []string `yaml:"text"`     // one of these phrases
	All      []string `yaml:"all"`      // each of these phrases
	Not      []string `yaml:"not"`      // none of these phrases
	Code     []string `yaml:"code"`     // "550", "55x", "5xx"
	Enhanced []string `yaml:"enhanced"` // "5.7.1", "x.7.1", "5.7.*"
	Phase    []string `yaml:"phase"`
	Provider []string `yaml:"provider"`
	Domain   []string `yaml:"domain"` // recipient domain, "example.com"; ".example.com" for those below it
}

// exampleDoc is a reply that a rule claims, written as one line or with its circumstances.
type exampleDoc struct {
	Reply    string `yaml:"reply"`
	Phase    string `yaml:"phase"`
	Provider string `yaml:"provider"`
	Host     string `yaml:"host"`
}

// UnmarshalYAML reads a plain reply or a mapping.
func (e *exampleDoc) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		e.Reply = n.Value
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: an example is a reply, or a mapping with reply, phase, provider and host", n.Line)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key, value := n.Content[i], n.Content[i+1].Value; key.Value {
		case "reply":
			e.Reply = value
		case "phase":
			e.Phase = value
		case "provider":
			e.Provider = value
		case "host":
			e.Host = value
		default:
			return fmt.Errorf("line %d: field %s not found in an example; use reply, phase, provider or host", key.Line, key.Value)
		}
	}
	return nil
}

// input returns the example as Qualify takes it.
func (e exampleDoc) input() (Input, error) {
	in := Input{Reply: ParseReply(e.Reply), Provider: e.Provider, Host: e.Host}
	if e.Phase != "" {
		phase, ok := smtpc.ParsePhase(e.Phase)
		if !ok {
			return in, fmt.Errorf("phase %q is unknown; use connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data", e.Phase)
		}
		in.Reply.Phase = phase
	}
	return in, nil
}

var embedded = sync.OnceValues(func() (*ruleFile, error) { return parseRules(embeddedRules, embeddedName) })

var defaultTable = sync.OnceValues(func() (*Table, error) { return Load(nil, "") })

// Default returns the table of the embedded rules. It panics when those are
// broken, which the package's tests exclude.
func Default() *Table {
	t, err := defaultTable()
	if err != nil {
		panic(err)
	}
	return t
}

// Load compiles an operator's rule file in front of the embedded rules; name
// is the file's name for errors. The file is strict YAML: unknown fields,
// duplicate ids, phrases that do not compile and examples that another rule
// claims are errors with their line. Empty content is the embedded rules alone.
func Load(operator []byte, name string) (*Table, error) {
	own, err := parseRules(operator, name)
	if err != nil {
		return nil, err
	}
	builtin, err := embedded()
	if err != nil {
		return nil, err
	}
	t, err := compile(own, builtin)
	if err != nil {
		return nil, err
	}
	if err := t.checkExamples(own.Rules); err != nil {
		return nil, err
	}
	return t, nil
}

// parseRules decodes one file strictly.
func parseRules(content []byte, name string) (*ruleFile, error) {
	f := new(ruleFile)
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(new(ruleFile)); err == nil {
		return nil, fmt.Errorf("%s: a second YAML document; write all rules in one", name)
	}
	lines := ruleLines(content)
	for i := range f.Rules {
		f.Rules[i].file = name
		if i < len(lines) {
			f.Rules[i].line = lines[i]
		}
	}
	return f, nil
}

// ruleLines returns the line of each rule: strict decoding does not tell.
func ruleLines(content []byte) []int {
	var doc struct {
		Rules []yaml.Node `yaml:"rules"`
	}
	if yaml.Unmarshal(content, &doc) != nil {
		return nil
	}
	lines := make([]int, len(doc.Rules))
	for i, n := range doc.Rules {
		lines[i] = n.Line
	}
	return lines
}

// errorf names the rule an error is about.
func (e *ruleEntry) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: rule %q: %w", e.file, e.line, e.ID, fmt.Errorf(format, args...))
}

// checkExamples qualifies every example and demands that its own rule decides.
func (t *Table) checkExamples(entries []ruleEntry) error {
	for i := range entries {
		e := &entries[i]
		for _, example := range e.Examples {
			in, err := example.input()
			if err != nil {
				return e.errorf("example %q: %w", example.Reply, err)
			}
			if v := t.Qualify(in); v.Rule != e.ID {
				return e.errorf("example %q is decided by rule %q; move the rule up or narrow the other one", example.Reply, v.Rule)
			}
		}
	}
	return nil
}

// compiler builds a Table.
type compiler struct {
	t        *Table
	strings  []string
	byText   map[string]int32 // string -> first literal
	groups   map[string]int32
	groupsOf [][]int32 // by literal
	ids      map[string]*ruleEntry
}

// compile puts the operator's strong rules first, then the embedded ones, and
// the weak rules of both last.
func compile(own, builtin *ruleFile) (*Table, error) {
	c := &compiler{
		t:      &Table{providers: map[string]provider{}, statuses: statusVerdicts(), fallback: fallbackVerdicts()},
		byText: map[string]int32{},
		groups: map[string]int32{},
		ids:    map[string]*ruleEntry{},
	}
	for _, f := range []*ruleFile{builtin, own} {
		if err := c.addProviders(f); err != nil {
			return nil, err
		}
	}
	for _, weak := range []bool{false, true} {
		if weak {
			c.t.firstWeak = int32(len(c.t.rules))
		}
		for _, f := range []*ruleFile{own, builtin} {
			for i := range f.Rules {
				if f.Rules[i].Weak != weak {
					continue
				}
				if err := c.addRule(&f.Rules[i]); err != nil {
					return nil, err
				}
			}
		}
	}
	c.finish()
	return c.t, nil
}

func (c *compiler) addProviders(f *ruleFile) error {
	for _, p := range f.Providers {
		if p.ID == "" {
			return errors.New("providers: a provider has no id; name it")
		}
		entry := provider{hosts: p.Hosts}
		for _, phrase := range p.Text {
			vs, err := c.addPhrase(phrase, -1)
			if err != nil {
				return fmt.Errorf("provider %q: %w", p.ID, err)
			}
			entry.text = append(entry.text, vs...)
		}
		c.t.providers[p.ID] = entry
	}
	return nil
}

// addRule compiles one rule.
func (c *compiler) addRule(e *ruleEntry) error {
	if e.ID == "" {
		return e.errorf("the rule has no id; give it one, for example \"full.quota\"")
	}
	if first := c.ids[e.ID]; first != nil {
		return e.errorf("id used before, at %s:%d; ids are unique", first.file, first.line)
	}
	if strings.HasPrefix(e.ID, "iana:") || strings.HasPrefix(e.ID, "class:") || strings.HasPrefix(e.ID, "own:") {
		return e.errorf("ids beginning with iana:, class: or own: are reserved; choose another")
	}
	c.ids[e.ID] = e
	r := rule{id: e.ID}
	if err := c.conditions(&r, e); err != nil {
		return err
	}
	index := int32(len(c.t.rules))
	if err := c.phrases(&r, e, index); err != nil {
		return err
	}
	for class := range r.verdicts {
		v, err := e.verdict(replyClass(class))
		if err != nil {
			return err
		}
		r.verdicts[class] = v
	}
	c.t.rules = append(c.t.rules, r)
	return nil
}

// conditions compiles what a rule demands besides text.
func (c *compiler) conditions(r *rule, e *ruleEntry) error {
	for _, s := range e.Match.Code {
		p, ok := parseCodePattern(s)
		if !ok {
			return e.errorf("match.code %q: write a reply code such as 550, 55x or 5xx", s)
		}
		r.codes = append(r.codes, p)
	}
	for _, s := range e.Match.Enhanced {
		p, ok := parseStatusPattern(s)
		if !ok {
			return e.errorf("match.enhanced %q: write a status code such as 5.7.1, x.7.1 or 5.7.*", s)
		}
		r.statuses = append(r.statuses, p)
	}
	for _, s := range e.Match.Phase {
		phase, ok := smtpc.ParsePhase(s)
		if !ok {
			return e.errorf("match.phase %q is unknown; use connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data", s)
		}
		r.phases = append(r.phases, phase)
	}
	for _, s := range e.Match.Provider {
		if s == "" {
			return e.errorf("match.provider is empty; name a provider or leave it out")
		}
		r.providers = append(r.providers, s)
	}
	for _, s := range e.Match.Domain {
		if s == "" || strings.ContainsAny(s, "*@ ") {
			return e.errorf("match.domain %q: write a domain such as example.com, or .example.com for all below it", s)
		}
		r.domains = append(r.domains, s)
	}
	return nil
}

// phrases compiles a rule's text conditions.
func (c *compiler) phrases(r *rule, e *ruleEntry, index int32) error {
	m := e.Match
	if len(m.Text)+len(m.All)+len(m.Code)+len(m.Enhanced)+len(m.Phase)+len(m.Provider)+len(m.Domain) == 0 {
		return e.errorf("match is empty; give text, all, code, enhanced, phase, provider or domain")
	}
	r.anchored = len(m.Text)+len(m.All) > 0
	if !r.anchored {
		c.t.bare = append(c.t.bare, index)
	}
	for i, phrase := range m.Text {
		if _, err := c.addPhrase(phrase, index); err != nil {
			return e.errorf("match.text[%d]: %w", i, err)
		}
	}
	for i, phrase := range m.All {
		anchor := int32(-1)
		if i == 0 && len(m.Text) == 0 {
			anchor = index
		}
		vs, err := c.addPhrase(phrase, anchor)
		if err != nil {
			return e.errorf("match.all[%d]: %w", i, err)
		}
		r.all = append(r.all, vs)
	}
	for i, phrase := range m.Not {
		vs, err := c.addPhrase(phrase, -1)
		if err != nil {
			return e.errorf("match.not[%d]: %w", i, err)
		}
		r.not = append(r.not, vs...)
	}
	return nil
}

// addPhrase compiles a phrase to variants; those of rule r >= 0 are tried when
// their rarest group occurs.
func (c *compiler) addPhrase(phrase string, r int32) ([]int32, error) {
	parsed, err := parsePhrase(phrase)
	if err != nil {
		return nil, err
	}
	var ids []int32
	for _, pieces := range parsed {
		v := variant{rule: r, from: int32(len(c.t.steps))}
		rarest := 0
		for i, p := range pieces {
			c.t.steps = append(c.t.steps, step{c.group(p), int32(p.gap)})
			if shortest(p) > shortest(pieces[rarest]) {
				rarest = i
			}
		}
		v.upto = int32(len(c.t.steps))
		id := int32(len(c.t.variants))
		c.t.variants = append(c.t.variants, v)
		ids = append(ids, id)
		if r >= 0 {
			steps := c.t.steps[v.from:v.upto]
			g := &c.t.groups[steps[rarest].group]
			g.tries = append(g.tries, try{r, steps[(rarest+1)%len(steps)].group, id})
		}
	}
	return ids, nil
}

// shortest returns the length of a piece's shortest literal: the longer, the rarer.
func shortest(p piece) int {
	n := len(p.literals[0].text)
	for _, l := range p.literals {
		n = min(n, len(l.text))
	}
	return n
}

// group returns the id of the set of a piece's literals, making it when it is new.
func (c *compiler) group(p piece) int32 {
	lits := make([]int32, 0, len(p.literals))
	for _, l := range p.literals {
		lits = append(lits, c.literal(l))
	}
	slices.Sort(lits)
	lits = slices.Compact(lits)
	key := fmt.Sprint(lits)
	if id, ok := c.groups[key]; ok {
		return id
	}
	id := int32(len(c.t.groups))
	c.groups[key] = id
	g := group{first: lits[0] &^ 63}
	g.members = make([]uint64, (lits[len(lits)-1]-g.first)/64+1)
	for _, lit := range lits {
		g.members[(lit-g.first)/64] |= 1 << (lit % 64)
		c.groupsOf[lit] = append(c.groupsOf[lit], id)
	}
	c.t.groups = append(c.t.groups, g)
	return id
}

// literal returns the id of a literal, making it when it is new. What must
// begin a word is searched with the space before it, so that the automaton
// wastes no step inside words; scripts without spaces have no such start.
func (c *compiler) literal(p edged) int32 {
	key := p.text
	if !p.openLeft && p.text[0] < utf8.RuneSelf && p.text != textStart {
		key = " " + p.text
	}
	first, known := c.byText[key]
	if known {
		for id := first; id >= 0; id = c.t.lits[id].next {
			if c.t.lits[id].openRight == p.openRight {
				return id
			}
		}
	} else {
		first = -1
	}
	id := int32(len(c.t.lits))
	c.t.lits = append(c.t.lits, literal{size: int32(len(p.text)), openRight: p.openRight, next: first})
	c.groupsOf = append(c.groupsOf, nil)
	c.byText[key] = id
	if !known {
		c.strings = append(c.strings, key)
	}
	return id
}

// finish builds the automaton over the distinct strings, points each at the
// newest of its literals, the head of their chain, and parts the groups that
// trigger variants from the others.
func (c *compiler) finish() {
	a := newAutomaton(c.strings)
	for s := range a.states {
		if out := a.states[s].out; out >= 0 {
			a.states[s].out = c.byText[c.strings[out]]
		}
	}
	c.t.auto = a
	for i := range c.t.lits {
		l := &c.t.lits[i]
		l.from = int32(len(c.t.members))
		for _, g := range c.groupsOf[i] {
			if len(c.t.groups[g].tries) > 0 {
				c.t.members = append(c.t.members, g)
			}
		}
		l.other = int32(len(c.t.members))
		for _, g := range c.groupsOf[i] {
			if len(c.t.groups[g].tries) == 0 {
				c.t.members = append(c.t.members, g)
			}
		}
		l.upto = int32(len(c.t.members))
	}
}

// parseCodePattern reads 550, 55x and 5xx.
func parseCodePattern(s string) (codePattern, bool) {
	if len(s) != 3 {
		return codePattern{}, false
	}
	low, err1 := strconv.Atoi(strings.ReplaceAll(s, "x", "0"))
	high, err2 := strconv.Atoi(strings.ReplaceAll(s, "x", "9"))
	return codePattern{low, high}, err1 == nil && err2 == nil && s[0] != 'x'
}

// verdict is what the rule says for a reply class: the tag's (or code's)
// meaning, with the rule's own fields on top.
func (e *ruleEntry) verdict(class replyClass) (Verdict, error) {
	p, known := lookupTag(e.Tag)
	switch {
	case e.Tag == "" && e.Code == 0:
		return Verdict{}, e.errorf("the rule has no outcome; give a tag or a code")
	case e.Tag != "" && !known && e.Code == 0:
		return Verdict{}, e.errorf("tag %q is not a known one; give its code, too", e.Tag)
	}
	if e.Code != 0 {
		if _, ok := lookupCode(e.Code); !ok {
			return Verdict{}, e.errorf("code %d is no bounce code; use one of 1, 10, 20-25, 30, 40, 50-54, 60, 70, 80, 90, 100", e.Code)
		}
		if !known || p.code != e.Code {
			p = presetForCode(e.Code)
		}
	}
	if e.Tag != "" {
		p.tag = e.Tag
	}
	v := presetVerdict(p, class)
	v.Rule = e.ID
	return v, e.override(&v, class)
}

// override applies the rule's explicit fields.
func (e *ruleEntry) override(v *Verdict, class replyClass) error {
	for _, f := range []struct {
		field, value string
		names        []string
		set          func(int)
	}{
		{"type", e.Type, typeNames, func(i int) { v.Type = Type(i) }},
		{"disposition", e.Disposition, dispositionNames, func(i int) { v.Disposition, v.MaxAttempts = Disposition(i), 0 }},
		{"address", e.Address, addressNames, func(i int) { v.Address = AddressEffect(i) }},
		{"path", e.Path, pathNames, func(i int) { v.Path = PathEffect(i) }},
		{"hold", e.Hold, holdNames, func(i int) { v.Hold = Hold(i) }},
	} {
		if f.value == "" {
			continue
		}
		i, ok := indexOf(f.names, f.value)
		if !ok || f.field == "disposition" && i == int(Delivered) {
			return e.errorf("%s %q is unknown; use one of %s", f.field, f.value, strings.Join(f.names, ", "))
		}
		f.set(i)
	}
	if e.Reason != "" {
		r, ok := ParseReason(e.Reason)
		if !ok {
			return e.errorf("reason %q is unknown; use for example \"User unknown\", \"Mailbox full\" or \"Refused\"", e.Reason)
		}
		v.Reason = r
	}
	if err := e.overrideRetry(v); err != nil {
		return err
	}
	if class != classPermanent && v.Address == AddressSuppress {
		v.Address = AddressCount
	}
	return nil
}

// overrideRetry applies the rule's own attempts and delay.
func (e *ruleEntry) overrideRetry(v *Verdict) error {
	if e.MaxAttempts != nil {
		if *e.MaxAttempts < 0 {
			return e.errorf("max_attempts %d is negative; 0 means until the validity ends", *e.MaxAttempts)
		}
		v.MaxAttempts = *e.MaxAttempts
	}
	if e.RetryAfter != "" {
		d, err := time.ParseDuration(e.RetryAfter)
		if err != nil || d < minDelay || d > maxDelay {
			return e.errorf("retry_after %q: give a duration from 1m to 12h", e.RetryAfter)
		}
		v.RetryAfter = d
	}
	return nil
}
