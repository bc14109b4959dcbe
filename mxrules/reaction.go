package mxrules

import (
	"strings"
	"time"
)

// Effect is what a reply means for its path.
type Effect uint8

const (
	// EffectNone: the reply is about a mailbox or a message, or it is a success.
	EffectNone Effect = iota
	// EffectSlow lowers the message rate.
	EffectSlow
	// EffectFewerConnections takes a connection away.
	EffectFewerConnections
	// EffectFewerMessages takes a message per connection away.
	EffectFewerMessages
	// EffectRest suspends the path.
	EffectRest
)

var effectNames = [...]string{"none", "slow", "fewer_connections", "fewer_messages", "rest"}

// String is a short name such as "fewer_connections".
func (e Effect) String() string {
	if int(e) < len(effectNames) {
		return effectNames[e]
	}
	return "unknown"
}

// Evidence is a reply as the path sees it.
type Evidence struct {
	Effect Effect
	// RetryAfter is the delay that the reply names, in the time of Observe's now; 0 is none.
	RetryAfter time.Duration
	// Messages is how many MAIL commands its connection carried before this one, if
	// known: EffectFewerMessages then goes straight below the refusal.
	Messages int
	// Again says that the message was put off before.
	Again bool
	// Text is the reply, for explanations.
	Text string
	// Code is the reply's code, 0 if there was none, and Tag what its qualification
	// calls it, such as "rate_limit"; both may be left out.
	Code int
	Tag  string
	// Took is how long the reply took from MAIL, 0 if that is not known.
	Took time.Duration
	// Connection says that a connection was refused, not a message on one.
	Connection bool

	ordered time.Duration // how long a rule's reaction wants a rest to last; 0: not said
	guessed bool          // that it is pacing is not said, but shown by what follows
}

// ReplyCode is the reply's code: Code, or else the one in Text; 0 if there is none.
func (e *Evidence) ReplyCode() int {
	if e.Code != 0 {
		return e.Code
	}
	return codeIn(e.Text)
}

// codeIn is the reply code in a reply as it is written in explanations,
// "MAIL: 421 4.7.0 ...", or at its beginning; 0 if there is none.
func codeIn(text string) int {
	for i := 0; i+2 < len(text) && i < 40; i++ {
		if c := text[i]; c >= '2' && c <= '5' && (i == 0 || text[i-1] == ' ') && digit(text[i+1]) && digit(text[i+2]) &&
			(i+3 == len(text) || text[i+3] == ' ' || text[i+3] == '-') {
			return int(c-'0')*100 + int(text[i+1]-'0')*10 + int(text[i+2]-'0')
		}
	}
	return 0
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// maxTrouble is how many bytes of a reply are kept.
const maxTrouble = 512

// Observe feeds the path's side of a reply. Without an effect it says that the
// receiver serves this path; with one the learner decides what follows. A delay
// named in the reply is obeyed within Timings' bounds: for connections by opening
// none, for messages by a rest. Report a refused connection closed before
// observing its reply.
func (g *Governor) Observe(now time.Time, e Evidence) {
	t := g.tick(now)
	if g.Suspects(&e) {
		e.Effect, e.guessed = EffectSlow, true
	}
	if e.Effect == EffectNone {
		g.learner.Note(time.Duration(t), Event{
			Kind: EventServed, Took: e.Took, Open: g.open, Own: e.ReplyCode() >= 400, Vague: e.vague(),
			Messages: e.Messages, Again: e.Again,
		})
		g.follow(t)
		return
	}
	g.noteTrouble(now, e.Text)
	e.Text = g.trouble
	if g.react(t, e) {
		g.follow(t)
	}
}

// Suspects reports whether a reply without an effect is taken for EffectSlow: a
// temporary refusal that nothing explains, from a receiver that was found to pace its
// senders with such words.
func (g *Governor) Suspects(e *Evidence) bool { return g.pace.Suspicious && e.vague() }

func (g *Governor) noteTrouble(now time.Time, text string) {
	if len(text) > maxTrouble {
		// Keep the part, not the whole, and no half of a rune.
		text = strings.ToValidUTF8(strings.Clone(text[:maxTrouble]), "")
	}
	g.trouble, g.troubleAt = text, now
}

// Failed reports a temporary failure before MAIL: DNS, connect, greeting, EHLO
// or TLS. New connections wait BackoffFirst, doubling up to BackoffMax with
// each failure after a wait; then one connection at a time is tried until
// Worked. Connections already open go on.
func (g *Governor) Failed(now time.Time, text string) {
	t := g.tick(now)
	g.noteTrouble(now, text)
	g.note(t, EventFailed)
}

// Worked is Connected for callers that do not know how long it took.
func (g *Governor) Worked(now time.Time) { g.Connected(now, 0) }

// Connected reports that a connection came about, and how long after its dial. It
// ends the back-off, and the probing after a rest once a message was sent in it.
func (g *Governor) Connected(now time.Time, took time.Duration) {
	t := g.tick(now)
	g.ready = min(g.ready+1, g.open)
	g.learner.Note(time.Duration(t), Event{Kind: EventReady, Took: took, Open: g.open, Ready: g.ready})
	g.follow(t)
}
