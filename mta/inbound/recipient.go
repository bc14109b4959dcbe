package inbound

import (
	"regexp"
	"strings"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

// bounced lists the recipients of a bounce with what became of each.
func (c *Classifier) bounced(s *study, original Header) []Recipient {
	if all := c.fromStatus(s); len(all) > 0 {
		return all
	}
	var all []Recipient
	action := actionOf(s)
	for _, p := range s.named(original) {
		r := Recipient{Address: p.address, Action: action}
		c.qualify(s, &r, p.text, "")
		all = append(all, r)
	}
	return all
}

// fromStatus reads the recipients of the delivery status fields. The words about
// a recipient serve where its fields say little.
func (c *Classifier) fromStatus(s *study) []Recipient {
	var all []Recipient
	for _, f := range s.status {
		final, given := statusAddress(f.final), statusAddress(f.original)
		r := Recipient{Address: final, Action: parseAction(f.action)}
		if final == "" {
			r.Address = given
		} else if given != final {
			r.Original = given
		}
		if r.Address == "" && len(s.passages) == 1 {
			r.Address = s.passages[0].address
		}
		if r.Address == "" {
			continue
		}
		r.Status = findStatus(f.status)
		_, r.RemoteMTA = typed(f.remoteMTA)
		if r.Action == ActionNone {
			r.Action = actionOf(s)
		}
		_, diagnostic := typed(f.diagnostic)
		c.qualify(s, &r, diagnostic, textAbout(s.passages, r.Address, r.Original))
		all = append(all, r)
	}
	return all
}

// textAbout is what the words say about a recipient.
func textAbout(named []passage, addresses ...string) string {
	for _, p := range named {
		for _, a := range addresses {
			if a == p.address {
				return p.text
			}
		}
	}
	return ""
}

// named picks the recipients of a bounce without status fields, from the surest
// source that names any: a list in the words, X-Failed-Recipients (which is
// complete, but tells an alias where the list tells its target), a sentence, and
// at last the returned mail's own recipients.
func (s *study) named(original Header) []passage {
	failed := addresses(s.header.All("X-Failed-Recipients"), maxRecipients)
	var sure, unsure []passage
	for _, p := range s.passages {
		if p.sure {
			sure = append(sure, p)
		} else {
			unsure = append(unsure, p)
		}
	}
	othersSure, othersUnsure := withoutOwn(sure, s.to()), withoutOwn(unsure, s.to())
	switch {
	case len(failed) > 0 && (len(sure) == 0 || anyOf(sure, failed)):
		return withText(failed, s.passages)
	case len(othersSure) > 0:
		return othersSure
	case len(othersUnsure) > 0:
		return othersUnsure[:1]
	case len(sure) > 0:
		return sure
	case len(unsure) > 0:
		return unsure[:1]
	}
	return withText(envelopeRecipients(original), nil)
}

func anyOf(named []passage, addresses []string) bool {
	for _, p := range named {
		if contains(addresses, p.address) {
			return true
		}
	}
	return false
}

func withText(addresses []string, named []passage) []passage {
	all := make([]passage, 0, len(addresses))
	for _, a := range addresses {
		all = append(all, passage{address: a, text: textAbout(named, a)})
	}
	return all
}

// withoutOwn drops the sender of the returned mail, to whom the bounce is addressed.
func withoutOwn(named []passage, own []string) []passage {
	var others []passage
	for _, p := range named {
		if !contains(own, p.address) {
			others = append(others, p)
		}
	}
	return others
}

// qualify fills in diagnostic, status and verdict. Of the texts at hand the first
// that a rule understands decides: what the server said, what the report says of
// this recipient, the transcript, all of the report. The last two speak of others,
// too, and in whole sentences: they are asked only where the first two say next to
// nothing, and a single word in them decides nothing.
func (c *Classifier) qualify(s *study, r *Recipient, diagnostic, about string) {
	exact := append(readings(diagnostic), readings(about)...)
	if len(exact) > 0 {
		r.Diagnostic = exact[0].whole
	} else if loose := s.loose(); len(loose) > 0 {
		r.Diagnostic = loose[0].whole
	}
	if vague(r.Status) && r.Diagnostic.Enhanced != "" {
		r.Status = r.Diagnostic.Enhanced
	}
	switch r.Action {
	case ActionDelivered, ActionRelayed, ActionExpanded:
		return
	}
	r.Verdict = c.verdict(r, smtpc.Reply{})
	decided := c.decide(r, exact, 0, 0)
	if decided < layerWeak || decided == layerWeak && r.Diagnostic.Code == 0 {
		c.decide(r, s.loose(), decided, layerStatus)
	}
}

// decide takes the first verdict of the highest layer above decided, if it is at
// least the layer wanted, and returns its layer.
func (c *Classifier) decide(r *Recipient, texts []reading, decided, wanted int) int {
	for _, t := range texts {
		for _, reply := range []smtpc.Reply{t.quoted, t.whole} {
			if decided == layerText || reply.Text == "" && reply.Code == 0 {
				continue
			}
			v := c.verdict(r, reply)
			if level := layer(v.Rule); level > decided && level >= wanted {
				r.Verdict, decided = v, level
			}
		}
	}
	return decided
}

// loose is the readings of the texts that are not about one recipient alone.
func (s *study) loose() []reading {
	if s.readings == nil {
		s.readings = append(readings(transcript(s.report)), readings(s.report)...)
		s.readings = append(s.readings, reading{}) // so that an empty report is read once, too
	}
	return s.readings[:len(s.readings)-1]
}

// verdict qualifies one text as if a server had said it just now. A mail system
// that gave up speaks of a permanent failure even where it quotes no code.
func (c *Classifier) verdict(r *Recipient, reply smtpc.Reply) bounce.Verdict {
	if vague(reply.Enhanced) && !vague(r.Status) {
		reply.Enhanced = r.Status
	}
	if reply.Code == 0 {
		reply.Code = 550
		if r.Action == ActionDelayed || strings.HasPrefix(reply.Enhanced, "4") {
			reply.Code = 450
		}
	}
	if reply.Phase != smtpc.PhaseNone && reply.Phase < smtpc.PhaseMAIL {
		reply.Phase = smtpc.PhaseNone // the path it speaks of is another system's
	}
	_, domain, _ := strings.Cut(r.Address, "@")
	return c.table.Qualify(bounce.Input{Reply: reply, Host: r.RemoteMTA, Domain: domain})
}

// The layers of qualification, the one that says most last.
const (
	layerClass = 1 + iota
	layerWeak  // a rule that would not be heard against a status code
	layerStatus
	layerText
)

func layer(rule string) int {
	switch {
	case strings.HasPrefix(rule, "class:"):
		return layerClass
	case strings.HasPrefix(rule, "weak."):
		return layerWeak
	case strings.HasPrefix(rule, "iana:"):
		return layerStatus
	}
	return layerText
}

// saidLine is a line of a report that quotes a server.
var saidLine = regexp.MustCompile(`(?i)^\s*(?:<<<|\(reason:|[245][0-5][0-9][ -])|\bsaid:|error message:|remote host said|server returned|diagnostic|reason\b.*:|ERROR_CODE`)

// transcript picks the lines of a report that quote a server, with the line after each.
func transcript(report string) string {
	var b strings.Builder
	take := 0
	for line := range strings.Lines(report) {
		switch {
		case saidLine.MatchString(line):
			take = 2
		case strings.TrimSpace(line) == "":
			take = 0
		}
		if take > 0 && b.Len() < maxPassageText {
			b.WriteString(line)
		}
		take--
	}
	return b.String()
}
