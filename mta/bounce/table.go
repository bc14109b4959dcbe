package bounce

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

// Table is a compiled, ordered rule table. It never changes.
type Table struct {
	rules     []rule
	firstWeak int32 // rules from here on count only when the status code is silent, too
	lits      []literal
	groups    []group
	members   []int32 // the groups of all literals
	variants  []variant
	steps     []step
	bare      []int32 // rules without phrases of their own
	auto      *automaton
	providers map[string]provider
	statuses  map[[2]uint16][3]Verdict
	fallback  [3]Verdict
}

// literal is one entry of the automaton. Its left edge is part of the string searched.
type literal struct {
	size      int32
	next      int32 // another literal of the same string with other edges, -1
	openRight bool
	// Its groups in Table.members: from..other trigger variants, other..upto do not.
	from, other, upto int32
}

// group is a set of literals, any of which serves at one step of a phrase.
type group struct {
	first   int32    // the lowest literal, rounded down to 64
	members []uint64 // bit set of literals from first on
	tries   []try    // the variants that are tried when the group occurs
}

func (g *group) has(lit int32) bool {
	word := uint32(lit-g.first) >> 6
	return lit >= g.first && word < uint32(len(g.members)) && g.members[word]&(1<<(lit&63)) != 0
}

// try is a variant worth a look when its group occurs, with what rules most of
// them out at once: the rule's rank and another group that must occur, too.
type try struct{ rule, also, variant int32 }

// variant is a phrase without alternatives beyond those of its groups.
type variant struct {
	rule       int32
	from, upto int32 // its steps in Table.steps
}

// step is one group of a phrase, and how far behind the step before it may start.
type step struct{ group, gap int32 }

// rule is a compiled rule.
type rule struct {
	id        string
	anchored  bool      // one of its own variants must match
	all       [][]int32 // each group: one of these variants must match
	not       []int32
	codes     []codePattern
	statuses  []statusPattern
	phases    []smtpc.Phase
	providers []string
	domains   []string
	verdicts  [3]Verdict // by reply class
}

// provider tells by which hosts and texts a provider is recognised when the
// caller does not name it.
type provider struct {
	hosts []string
	text  []int32
}

// replyClass indexes the verdicts of a rule.
type replyClass int

const (
	classMissing replyClass = iota
	classTemporary
	classPermanent
)

func classOf(r smtpc.Reply) replyClass {
	switch {
	case r.Permanent():
		return classPermanent
	case r.Code == 0:
		return classMissing
	}
	return classTemporary
}

// codePattern is a condition on the reply code: 550, 55x, 5xx.
type codePattern struct{ low, high int }

func (p codePattern) matches(code int) bool { return code >= p.low && code <= p.high }

// hit is an occurrence of a literal in the normal text.
type hit struct{ lit, start, end int32 }

// maxHits bounds the occurrences kept of one text.
const maxHits = 256

// scan is the working memory of one qualification.
type scan struct {
	in     Input
	status status
	text   []byte
	hits   []hit
	groups []int32 // groups that occurred and trigger variants
	endsA  []int32
	endsB  []int32
	seen   []uint32 // group -> turn in which it last occurred
	turn   uint32
}

var scans = sync.Pool{New: func() any { return new(scan) }}

// Providers are the ids of the providers that rules may be scoped to, in
// alphabetical order.
func (t *Table) Providers() []string { return slices.Sorted(maps.Keys(t.providers)) }

// Qualify says what a reply means and what follows. A positive reply is
// Delivered. It never blocks and is safe for concurrent use; its cost is linear
// in the text, of which the first 4096 bytes count.
func (t *Table) Qualify(in Input) Verdict {
	if in.Reply.Positive() {
		return Verdict{Disposition: Delivered, Charged: true, Rule: "class:2xx"}
	}
	s := scans.Get().(*scan)
	t.read(s, in)
	v := t.decide(s)
	s.in = Input{}
	scans.Put(s)
	return settle(v, in)
}

// decide picks the layer: strong rules, the status code, weak rules, the class.
func (t *Table) decide(s *scan) Verdict {
	class := classOf(s.in.Reply)
	best := t.match(s)
	if best >= 0 && best < t.firstWeak {
		return t.rules[best].verdicts[class]
	}
	if v, ok := t.statuses[[2]uint16{s.status.subject, s.status.detail}]; ok && s.status.class >= 4 {
		if class == classMissing && s.status.class == 5 {
			class = classPermanent
		}
		return v[class]
	}
	if best >= 0 {
		return t.rules[best].verdicts[class]
	}
	return t.fallback[class]
}

// read normalises the text and collects what occurs in it.
func (t *Table) read(s *scan, in Input) {
	s.in = in
	s.text = append(s.text[:0], textStart...)
	s.text = appendNormal(append(s.text, ' '), in.Reply.Text)
	s.text = append(append(s.text, ' '), textEnd...)
	s.hits, s.groups = s.hits[:0], s.groups[:0]
	s.status = statusOf(in.Reply.Enhanced, s.text)
	s.nextTurn(len(t.groups))
	at := int32(0)
	for i, c := range s.text {
		at = t.auto.step(at, c)
		for r := t.auto.states[at].report; r != 0; r = t.auto.states[r].skip {
			for lit := t.auto.states[r].out; lit >= 0; lit = t.lits[lit].next {
				t.found(s, lit, i+1)
			}
		}
	}
}

// nextTurn forgets the groups seen, for a table of n groups.
func (s *scan) nextTurn(n int) {
	s.turn++
	if len(s.seen) < n || s.turn == 0 {
		s.seen = make([]uint32, n)
		s.turn = 1
	}
}

// found records an occurrence that ends where it may, with the variants to try.
func (t *Table) found(s *scan, lit int32, end int) {
	l := &t.lits[lit]
	full := len(s.hits) >= maxHits && end < len(s.text)-len(textEnd)-1 // the end is always looked at
	if full || !l.openRight && inWord(s.text, end) {
		return
	}
	s.hits = append(s.hits, hit{lit, int32(end) - l.size, int32(end)})
	for _, g := range t.members[l.from:l.other] {
		if s.seen[g] != s.turn {
			s.seen[g] = s.turn
			s.groups = append(s.groups, g)
		}
	}
	for _, g := range t.members[l.other:l.upto] {
		s.seen[g] = s.turn
	}
}

// inWord reports whether a word or a mask goes on across position i.
func inWord(text []byte, i int) bool {
	return i > 0 && i < len(text) && isWordByte(text[i-1]) && isWordByte(text[i])
}

func isWordByte(c byte) bool { return isAlnum(c) || c == '<' || c == '>' }

// statusOf returns the reply's enhanced code, or the first one in its text.
func statusOf(enhanced string, text []byte) status {
	if st, ok := parseStatus(enhanced); ok {
		return st
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '4' && text[i] != '5' || i > 0 && text[i-1] != ' ' {
			continue
		}
		end := i
		for end < len(text) && end < i+10 && text[end] != ' ' {
			end++
		}
		if end-i >= 5 && end-i <= 9 && text[i+1] == '.' {
			if st, ok := parseStatus(string(text[i:end])); ok {
				return st
			}
		}
	}
	return status{}
}

// match returns the first rule in the table's order that matches, -1 for none.
func (t *Table) match(s *scan) int32 {
	best := int32(len(t.rules))
	for _, g := range s.groups {
		for _, c := range t.groups[g].tries {
			if c.rule < best && s.seen[c.also] == s.turn && t.occurs(s, &t.variants[c.variant]) && t.holds(s, c.rule) {
				best = c.rule
			}
		}
	}
	for _, r := range t.bare {
		if r >= best {
			break
		}
		if len(t.rules[r].statuses) > 0 && s.status.class == 0 {
			continue
		}
		if t.holds(s, r) {
			best = r
		}
	}
	if best == int32(len(t.rules)) {
		return -1
	}
	return best
}

// holds reports whether a rule's conditions hold, its own phrases aside.
func (t *Table) holds(s *scan, r int32) bool {
	return t.refusal(s, &t.rules[r]) == ""
}

// refusal names the condition that keeps a rule from matching, empty for none.
func (t *Table) refusal(s *scan, r *rule) string {
	reply := &s.in.Reply
	switch {
	case len(r.codes) > 0 && !slices.ContainsFunc(r.codes, func(p codePattern) bool { return p.matches(reply.Code) }):
		return "reply code"
	case len(r.statuses) > 0 && !slices.ContainsFunc(r.statuses, func(p statusPattern) bool { return p.matches(s.status) }):
		return "enhanced code"
	case len(r.phases) > 0 && !slices.Contains(r.phases, reply.Phase):
		return "phase"
	case len(r.providers) > 0 && !slices.ContainsFunc(r.providers, func(id string) bool { return t.isProvider(s, id) }):
		return "provider"
	case len(r.domains) > 0 && !slices.ContainsFunc(r.domains, func(d string) bool { return inDomain(s.in.Domain, d) }):
		return "recipient domain"
	}
	for _, group := range r.all {
		if !t.occursAny(s, group) {
			return "a required phrase"
		}
	}
	if t.occursAny(s, r.not) {
		return "an excluding phrase"
	}
	return ""
}

// inDomain reports whether domain is want, or below it when want begins with a dot.
func inDomain(domain, want string) bool {
	if want[0] == '.' {
		return len(domain) > len(want) && strings.EqualFold(domain[len(domain)-len(want):], want)
	}
	return strings.EqualFold(domain, want)
}

// isProvider reports whether the reply comes from the provider: as the caller
// says, else by the host, else by the text's signature.
func (t *Table) isProvider(s *scan, id string) bool {
	if s.in.Provider != "" {
		return s.in.Provider == id
	}
	p := t.providers[id]
	for _, h := range p.hosts {
		if len(s.in.Host) >= len(h) && strings.EqualFold(s.in.Host[len(s.in.Host)-len(h):], h) {
			return true
		}
	}
	return t.occursAny(s, p.text)
}

func (t *Table) occursAny(s *scan, variants []int32) bool {
	for _, v := range variants {
		if t.occurs(s, &t.variants[v]) {
			return true
		}
	}
	return false
}

// occurs reports whether the phrase's steps occur in order with gaps no longer
// than allowed. Each step costs one pass over the hits.
func (t *Table) occurs(s *scan, v *variant) bool {
	steps := t.steps[v.from:v.upto]
	for i := range steps {
		if s.seen[steps[i].group] != s.turn {
			return false
		}
	}
	if len(steps) == 1 {
		return true
	}
	ends, g := s.endsA[:0], &t.groups[steps[0].group]
	for i := range s.hits {
		if g.has(s.hits[i].lit) {
			ends = append(ends, s.hits[i].end)
		}
	}
	s.endsA = ends
	for _, st := range steps[1:] {
		after := follow(s.endsB[:0], s.hits, &t.groups[st.group], ends, st.gap)
		s.endsA, s.endsB = after, ends
		if ends = after; len(ends) == 0 {
			return false
		}
	}
	return true
}

// follow appends to dst the ends of the group's hits that start within gap
// behind one of ends. Ends are ascending, as hits are found.
func follow(dst []int32, hits []hit, g *group, ends []int32, gap int32) []int32 {
	for i := range hits {
		if h := &hits[i]; g.has(h.lit) {
			k, exact := slices.BinarySearch(ends, h.start)
			if exact || k > 0 && h.start-ends[k-1] <= gap {
				dst = append(dst, h.end)
			}
		}
	}
	return dst
}

// settle applies what holds for every rule: who pays for the attempt, what a
// phase rules out, that a 4xx never suppresses, and the delay the reply names.
func settle(v Verdict, in Input) Verdict {
	phase := in.Reply.Phase
	early := phase != smtpc.PhaseNone && phase.BeforeMAIL()
	if phase != smtpc.PhaseNone && phase < smtpc.PhaseRCPT {
		v = beforeRecipient(v, phase)
	}
	if early {
		v.Disposition, v.MaxAttempts = Retry, 0
		if v.Path == PathNone && phase != smtpc.PhaseDNS {
			v.Path = PathRest
		}
	}
	if !in.Reply.Permanent() && v.Address == AddressSuppress {
		v.Address = AddressCount
	}
	if phase == smtpc.PhaseMAIL && in.Reply.Code/100 == 4 && v.Path == PathNone && saysNothingOfMailbox(v.Tag) {
		v.Path = PathSlow // no mailbox was named yet: it is about us, or about the server's state
	}
	if in.Reply.Code == closingCode && phase >= smtpc.PhaseMAIL && v.Path == PathNone && saysNothingOfMailbox(v.Tag) {
		v.Path = PathSlow
	}
	v.Charged = v.Path == PathNone && !early
	if v.WillRetry() {
		if d := namedDelay(in.Reply.Text); d > 0 {
			v.RetryAfter = d
		}
	}
	return v
}

// closingCode is the reply with which a server ends the session, here from MAIL on (before it, it
// is the host's fault, and the next one is tried): "service
// not available, closing transmission channel" (RFC 5321 sections 3.8 and 4.2.1). Unless its
// text speaks of the mailbox or the message, it is about the server or about us, not about
// the message that happened to be under way.
const closingCode = 421

// saysNothingOfMailbox reports the tags that name neither mailbox nor message.
func saysNothingOfMailbox(tag string) bool {
	switch tag {
	case "temp", "network", "system_error", "soft", "protocol", "undetermined":
		return true
	}
	return false
}

// beforeRecipient corrects a verdict about a mailbox given before any mailbox
// was named: at MAIL it speaks of the sender, earlier of the client.
func beforeRecipient(v Verdict, phase smtpc.Phase) Verdict {
	if v.Address == AddressSuppress || v.BounceType == BounceHard {
		tag := "policy"
		if phase == smtpc.PhaseMAIL {
			tag = "sender_invalid"
		}
		p, _ := lookupTag(tag)
		id := v.Rule
		v = presetVerdict(p, classPermanent)
		v.Rule = id
	}
	v.Address = AddressNone
	return v
}

// presetVerdict is what a tag means for a reply class.
func presetVerdict(p preset, class replyClass) Verdict {
	info, _ := lookupCode(p.code)
	v := Verdict{
		Code: p.code, Name: info.name, Category: info.category.String(), BounceType: info.category, Type: info.kind, Reason: info.reason,
		Tag: p.tag, Address: p.address, Path: p.path, Hold: p.hold,
	}
	if p.own {
		v.Reason = p.reason
	}
	v.Disposition, v.MaxAttempts = disposition(p, class)
	if class != classPermanent && v.Address == AddressSuppress {
		v.Address = AddressCount
	}
	if v.Type == TypeHard && v.Address != AddressSuppress {
		v.Type = TypeSoft
	}
	return v
}

// disposition: 4xx and missing replies are retried; of the 5xx a full mailbox
// and a transient failure are, too, and a block gets three attempts.
func disposition(p preset, class replyClass) (Disposition, int) {
	switch {
	case p.soon:
		return RetrySoon, 0
	case class != classPermanent || p.code == CodeMailboxFull || p.code == CodeTransientFailure:
		return Retry, 0
	case p.final5xx:
		return Final, 0
	case p.retry5xx || p.code == CodeMailBlock || p.code == CodeSpamBlock:
		return Retry, blockAttempts
	}
	return Final, 0
}

const (
	// blockAttempts caps the attempts of a message refused with 5xx for our standing, not for itself.
	blockAttempts = 3
	// unmatchedAttempts and unmatchedDelay: a 5xx that nothing explains gets one more attempt.
	unmatchedAttempts = 2
	unmatchedDelay    = 20 * time.Minute
)

// fallbackVerdicts is the last layer: the reply class alone.
func fallbackVerdicts() (v [3]Verdict) {
	tags := [3]string{"network", "temp", "undetermined"}
	ids := [3]string{"class:none", "class:4xx", "class:5xx"}
	for class := range v {
		p, _ := lookupTag(tags[class])
		v[class] = presetVerdict(p, replyClass(class))
		v[class].Rule = ids[class]
	}
	v[classPermanent].Disposition = Retry
	v[classPermanent].MaxAttempts = unmatchedAttempts
	v[classPermanent].RetryAfter = unmatchedDelay
	return v
}

// statusVerdicts compiles the registry.
func statusVerdicts() map[[2]uint16][3]Verdict {
	m := make(map[[2]uint16][3]Verdict, len(statusTable))
	for _, row := range statusTable {
		temporary, _ := lookupTag(row.temporary)
		permanent, _ := lookupTag(row.permanent)
		v := [3]Verdict{presetVerdict(temporary, classMissing), presetVerdict(temporary, classTemporary), presetVerdict(permanent, classPermanent)}
		if row.weak && v[classPermanent].Address == AddressSuppress {
			v[classPermanent].Address, v[classPermanent].Type = AddressCount, TypeSoft
		}
		for class := range v {
			digit := "4."
			if replyClass(class) == classPermanent {
				digit = "5."
			}
			v[class].Rule = "iana:" + digit + status{0, row.subject, row.detail}.String()[2:]
		}
		m[[2]uint16{row.subject, row.detail}] = v
	}
	return m
}
