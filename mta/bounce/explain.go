package bounce

import (
	"cmp"
	"slices"
)

// maxSteps bounds an explanation.
const maxSteps = 50

// Explanation shows how a verdict came about.
type Explanation struct {
	// Normalised is the text as the rules saw it.
	Normalised string
	// Enhanced is the status code taken into account, from the reply or from its text.
	Enhanced string
	// Steps are the rules considered, in the table's order: those of which a
	// phrase began to match. The last one decided.
	Steps []Step
	// Verdict is what Qualify returns for the same input.
	Verdict Verdict
}

// Step is one rule considered.
type Step struct {
	// Rule is the rule's id, or the id of a lower layer.
	Rule string
	// Matched tells whether its conditions held.
	Matched bool
	// Why says in words why it matched or not.
	Why string
}

// Explain qualifies a reply and shows the rules considered and why each
// matched or not. It is for people: it allocates and costs more than Qualify.
func (t *Table) Explain(in Input) Explanation {
	e := Explanation{Normalised: Normalise(in.Reply.Text), Verdict: t.Qualify(in)}
	if in.Reply.Positive() {
		e.Steps = []Step{{Rule: e.Verdict.Rule, Matched: true, Why: "the reply is positive"}}
		return e
	}
	s := new(scan)
	t.read(s, in)
	if s.status.class != 0 {
		e.Enhanced = s.status.String()
	}
	for _, r := range t.considered(s) {
		if len(e.Steps) >= maxSteps {
			break
		}
		step := t.explainRule(s, r)
		e.Steps = append(e.Steps, step)
		if step.Matched && (step.Rule == e.Verdict.Rule || r < t.firstWeak) {
			break
		}
	}
	if len(e.Steps) == 0 || e.Steps[len(e.Steps)-1].Rule != e.Verdict.Rule {
		why := "no rule knows the text; the reply class decides"
		if len(e.Verdict.Rule) > 5 && e.Verdict.Rule[:5] == "iana:" {
			why = "the text is silent; the enhanced status code decides"
		}
		e.Steps = append(e.Steps, Step{Rule: e.Verdict.Rule, Matched: true, Why: why})
	}
	return e
}

// considered returns the rules of which a phrase's rarest part occurs, and
// those without phrases whose conditions hold, in order.
func (t *Table) considered(s *scan) []int32 {
	var rules []int32
	for _, g := range s.groups {
		for _, c := range t.groups[g].tries {
			rules = append(rules, c.rule)
		}
	}
	for _, r := range t.bare {
		if t.holds(s, r) {
			rules = append(rules, r)
		}
	}
	slices.SortFunc(rules, cmp.Compare)
	return slices.Compact(rules)
}

// explainRule says why rule r matched or not.
func (t *Table) explainRule(s *scan, r int32) Step {
	rule := &t.rules[r]
	step := Step{Rule: rule.id}
	why := t.refusal(s, rule)
	switch {
	case why == "an excluding phrase":
		step.Why = "an excluding phrase occurs"
		return step
	case why != "":
		step.Why = why + " does not fit"
		return step
	case !rule.anchored:
		step.Matched, step.Why = true, "its conditions hold"
		return step
	}
	for _, g := range s.groups {
		for _, c := range t.groups[g].tries {
			if v := &t.variants[c.variant]; c.rule == r && t.occurs(s, v) {
				step.Matched, step.Why = true, "phrase \""+t.phraseText(s, v)+"\" occurs"
				return step
			}
		}
	}
	step.Why = "only a part of its phrase occurs"
	return step
}

// phraseText renders a variant with the text found.
func (t *Table) phraseText(s *scan, v *variant) string {
	var text []byte
	for i, st := range t.steps[v.from:v.upto] {
		g := &t.groups[st.group]
		for _, h := range s.hits {
			if !g.has(h.lit) {
				continue
			}
			switch {
			case i > 0 && st.gap >= anyGap:
				text = append(text, " ... "...)
			case i > 0 && st.gap > 1:
				text = append(text, " * "...)
			case i > 0:
				text = append(text, ' ')
			}
			text = append(text, s.text[h.start:h.end]...)
			break
		}
	}
	return string(text)
}
