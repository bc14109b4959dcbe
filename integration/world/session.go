package world

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Session is one connection as the receiver's policy sees it. The protocol's
// own order (RFC 5321 section 4.1.4) is the server's business: a session expects
// to be asked in that order.
type Session struct {
	m       *Model
	state   *sourceState
	source  netip.Addr
	host    string
	serial  uint64
	step    uint64
	counted bool
	secure  bool
	mails   int
	from    string
	rcpts   []recipient
	served  string // the last domain that was found to be served
}

type recipient struct {
	address string
	fate    Fate
}

// Close ends the session. Further calls do nothing.
func (s *Session) Close() {
	if s.counted {
		s.counted = false
		s.m.total--
		s.state.open--
	}
}

// Has reports whether this connection shows a quirk.
func (s *Session) Has(kind QuirkKind) bool {
	for _, q := range s.m.r.Quirks {
		if q.Kind == kind && (q.Every <= 1 || s.serial%uint64(q.Every) == 0) {
			return true
		}
	}
	return false
}

// OffersTLS reports whether EHLO should offer STARTTLS now.
func (s *Session) OffersTLS() bool { return s.m.r.TLS != TLSOff && !s.secure }

// Hello answers EHLO (extended) or HELO.
func (s *Session) Hello(_ time.Time, extended bool) Decision {
	if s.Has(QuirkDropAtHello) {
		return Decision{Drop: DropSilent, Cause: CauseFault}
	}
	if extended && s.Has(QuirkNoEHLO) {
		return Decision{Code: 502, Enhanced: "5.5.1", Text: "Command not implemented", Cause: CauseFault}
	}
	return s.late(s.say(SayHello, CauseNone, Stay))
}

// StartTLS answers STARTTLS. After a 220 with [DropAfterReply] the server closes
// the line where the handshake should begin.
func (s *Session) StartTLS(time.Time) Decision {
	switch {
	case s.m.r.TLS == TLSOff:
		return Decision{Code: 502, Enhanced: "5.5.1", Text: "STARTTLS not available", Cause: CausePolicy}
	case s.secure:
		return Decision{Code: 503, Enhanced: "5.5.1", Text: "TLS already active", Cause: CausePolicy}
	case s.m.r.TLS == TLSBroken:
		return Decision{Code: 220, Enhanced: "2.0.0", Text: "Ready to start TLS", Drop: DropAfterReply, Cause: CauseFault}
	}
	return s.late(Decision{Code: 220, Enhanced: "2.0.0", Text: "Ready to start TLS"})
}

// Secured records that the TLS handshake succeeded.
func (s *Session) Secured() { s.secure = true }

// Mail answers MAIL with the return path from, and begins a transaction.
func (s *Session) Mail(now time.Time, from string) Decision {
	s.mails++
	s.from, s.rcpts = from, s.rcpts[:0]
	h := &s.m.r.Hidden
	if d, down := s.m.outage(now); down {
		d.Drop = DropReset
		return d
	}
	switch {
	case s.m.r.TLS == TLSRequired && !s.secure:
		return s.late(s.say(SayTLSRequired, CausePolicy, Stay))
	case s.m.boxed(now, s.state):
		return s.say(SayPenalty, CausePacing, Stay)
	case h.MessagesPerConnection > 0 && s.mails > h.MessagesPerConnection:
		return s.say(SayPerConnection, CausePacing, DropAfterReply)
	}
	if h.At == "" || h.At == AtMail {
		if d, refused := s.refuseMessage(now); refused {
			return d
		}
	}
	return s.late(s.say(SaySender, CauseNone, Stay))
}

// Rcpt answers RCPT for one recipient address, without angle brackets.
func (s *Session) Rcpt(now time.Time, to string) Decision {
	at := strings.LastIndexByte(to, '@')
	if at < 1 || !s.serves(to[at+1:]) {
		return s.late(s.sayTo(SayNoRelay, to, CausePolicy, Stay))
	}
	local := to[:at]
	fate := s.m.r.fateOf(s.m.seed, local)
	if d, refused := s.refuseMailbox(now, to, fate); refused {
		s.m.bounced(now, s.state, d)
		return s.late(d)
	}
	if !fate.exempt() && s.m.r.Hidden.At == AtRcpt {
		if d, refused := s.refuseMessage(now); refused {
			return d
		}
	}
	if MagicFate(local) == FateNone && s.m.r.Greylist.Delay > 0 && s.greylisted(now, to, s.m.r.Greylist.Delay.Std()) {
		return s.late(s.sayTo(SayGreylist, to, CauseGreylist, Stay))
	}
	s.rcpts = append(s.rcpts, recipient{to, fate})
	d := s.late(s.sayTo(SayRecipient, to, CauseNone, Stay))
	if fate == FateSlow {
		d.Delay += s.m.magic.SlowDelay.Std()
	}
	return d
}

// serves reports whether mail for domain is taken here.
func (s *Session) serves(domain string) bool {
	if domain == s.served {
		return true
	}
	if !s.m.serves(s.host, domain) {
		return false
	}
	s.served = domain
	return true
}

// refuseMailbox answers for mailboxes whose fate shows at RCPT.
func (s *Session) refuseMailbox(now time.Time, to string, fate Fate) (Decision, bool) {
	switch fate {
	case FateUnknown:
		return s.sayTo(SayUnknown, to, CauseMailbox, Stay), true
	case FateFull:
		return s.sayTo(SayFull, to, CauseMailbox, Stay), true
	case FateDisabled:
		return s.sayTo(SayDisabled, to, CauseMailbox, Stay), true
	case FateBlock:
		return s.sayTo(SayBlock, to, CauseBlock, Stay), true
	case FateGreylist:
		if s.greylisted(now, to, s.m.magic.GreylistDelay.Std()) {
			return s.sayTo(SayGreylist, to, CauseGreylist, Stay), true
		}
	case FateRateLimit:
		if s.visit(now, FateRateLimit, to) <= s.m.magic.RateLimitCount {
			return s.sayTo(SayRateLimit, to, CausePacing, Stay), true
		}
	}
	return Decision{}, false
}

// Data answers DATA: 354, or a refusal when no recipient was accepted.
func (s *Session) Data(time.Time) Decision {
	if len(s.rcpts) == 0 && !s.Has(QuirkDataWithoutRcpt) {
		return s.late(Decision{Code: 554, Enhanced: "5.5.1", Text: "Error: no valid recipients"})
	}
	return s.late(s.say(SayData, CauseNone, Stay))
}

// EndOfData answers the final dot and ends the transaction.
func (s *Session) EndOfData(now time.Time) Decision {
	if len(s.rcpts) == 0 {
		// Only the quirk leads here. The 250 promises nothing: nobody was to get the mail.
		return s.say(SayAccepted, CauseFault, Stay)
	}
	if d, refused := s.refuseContent(now); refused {
		d.Delay += s.delay(s.m.r.Latency.EndOfData)
		return d
	}
	for _, r := range s.rcpts {
		if r.fate == FateDrop && s.visit(now, FateDrop, r.address) == 1 {
			return Decision{Drop: DropSilent, Cause: CauseFault, Accepted: true}
		}
	}
	d := s.say(SayAccepted, CauseNone, Stay)
	d.Accepted, d.Returns = true, s.returns(now)
	d.Delay = s.delay(s.m.r.Latency.EndOfData) + s.m.r.Latency.Load.delay(s.m.total)
	if s.any(FateSlow) {
		d.Delay += s.m.magic.SlowDelay.Std()
	}
	return d
}

func (s *Session) refuseContent(now time.Time) (Decision, bool) {
	if s.any(FateSpam) {
		return s.say(SaySpam, CauseContent, Stay), true
	}
	if s.m.r.Hidden.At == AtEndOfData && !slices.ContainsFunc(s.rcpts, func(r recipient) bool { return r.fate.exempt() }) {
		return s.refuseMessage(now)
	}
	return Decision{}, false
}

func (s *Session) any(fate Fate) bool {
	for _, r := range s.rcpts {
		if r.fate == fate {
			return true
		}
	}
	return false
}

// refuseConnection applies the hidden limits on connections.
func (s *Session) refuseConnection(now time.Time) (Decision, bool) {
	h := &s.m.r.Hidden
	f := s.m.factor(now, s.state)
	switch {
	case s.m.boxed(now, s.state):
		return s.turnAway(SayPenalty), true
	case h.Connections > 0 && s.state.open >= scaled(h.Connections, f),
		h.TotalConnections > 0 && s.m.total >= scaled(h.TotalConnections, f):
		s.m.strike(now, s.state)
		return s.turnAway(SayConnections), true
	case h.ConnectionRate.Limited() && !s.state.connections.take(now, f*h.ConnectionRate.PerSecond(), h.ConnectionRate.burst()):
		s.m.strike(now, s.state)
		return s.turnAway(SayConnectionRate), true
	}
	return Decision{}, false
}

// turnAway refuses a connection, with or without a word.
func (s *Session) turnAway(what Situation) Decision {
	if s.m.r.Hidden.Silent {
		return Decision{Drop: DropReset, Cause: CausePacing}
	}
	return s.say(what, CausePacing, DropAfterReply)
}

// refuseMessage applies the hidden limits on messages. A refused message uses
// nothing up.
func (s *Session) refuseMessage(now time.Time) (Decision, bool) {
	h := &s.m.r.Hidden
	f := s.m.factor(now, s.state)
	if h.MessageRate.Limited() && !s.state.messages.take(now, f*h.MessageRate.PerSecond(), h.MessageRate.burst()) {
		s.m.strike(now, s.state)
		return s.say(SayRateLimit, CausePacing, Stay), true
	}
	if h.MessagesPerHour > 0 && !s.state.hour.take(now, scaled(h.MessagesPerHour, f)) {
		s.m.strike(now, s.state)
		return s.say(SayQuota, CausePacing, Stay), true
	}
	return Decision{}, false
}

// greylisted reports whether the triple of source network, return path and
// recipient is still too young.
func (s *Session) greylisted(now time.Time, to string, delay time.Duration) bool {
	key := hashOf(s.m.seed, network(s.source), s.from, strings.ToLower(to))
	expire := s.m.r.Greylist.Expire.Std()
	if expire == 0 {
		expire = max(36*time.Hour, 2*delay)
	}
	known, ok := s.m.greylist.get(key)
	if !ok || (known.count == 0 && now.Sub(known.first) > expire) {
		s.m.greylist.put(key, memo{first: now})
		return true
	}
	if known.count == 0 && now.Sub(known.first) < delay {
		return true
	}
	s.m.greylist.put(key, memo{first: known.first, count: 1})
	return false
}

// network is the part of a source address that greylisting compares.
func network(a netip.Addr) string {
	bits := 24
	if a.Unmap().Is6() {
		bits = 64
	}
	p, err := a.Unmap().Prefix(bits)
	if err != nil {
		return a.String()
	}
	return p.String()
}

// visit counts how often a recipient came to a stateful fate with this return path.
func (s *Session) visit(now time.Time, fate Fate, to string) int {
	key := hashOf(s.m.seed, string(fate), s.from, strings.ToLower(to))
	v, ok := s.m.visits.get(key)
	if !ok {
		v.first = now
	}
	v.count++
	s.m.visits.put(key, v)
	return v.count
}

func (s *Session) say(what Situation, why Cause, drop Drop) Decision {
	return s.sayTo(what, "", why, drop)
}

// sayTo fills a reply template. A 421 always closes (RFC 5321 section 3.8).
func (s *Session) sayTo(what Situation, to string, why Cause, drop Drop) Decision {
	r := s.m.words[what]
	if r.Code == 421 {
		drop = DropAfterReply
	}
	if s.m.terse && r.Code < 400 {
		return Decision{Code: r.Code, Cause: why, Drop: drop}
	}
	return Decision{Code: r.Code, Enhanced: r.Enhanced, Text: s.fill(r.Text, to), Cause: why, Drop: drop}
}

// fill replaces the {names} of a template; an unknown name stays as it is.
func (s *Session) fill(text, to string) string {
	if strings.IndexByte(text, '{') < 0 {
		return text
	}
	var b strings.Builder
	for {
		open := strings.IndexByte(text, '{')
		end := strings.IndexByte(text, '}')
		if open < 0 || end < open {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:open])
		b.WriteString(s.value(text[open:end+1], to))
		text = text[end+1:]
	}
}

func (s *Session) value(name, to string) string {
	switch name {
	case "{host}":
		return s.host
	case "{ip}":
		return s.source.String()
	case "{from}":
		return s.from
	case "{rcpt}":
		return to
	case "{domain}":
		return to[strings.LastIndexByte(to, '@')+1:]
	case "{id}":
		return s.m.nextID()
	case "{serial}":
		return strconv.FormatUint(s.serial, 10)
	}
	return name
}

func (s *Session) late(d Decision) Decision {
	d.Delay += s.delay(s.m.r.Latency.Command)
	return d
}

// delay varies a latency by the receiver's jitter, the same way for the same
// seed, connection and step.
func (s *Session) delay(base Duration) time.Duration {
	if base <= 0 {
		return 0
	}
	s.step++
	jitter := uint64(s.m.r.Latency.Jitter)
	if jitter == 0 {
		return base.Std()
	}
	percent := 100 - jitter + mix(s.m.seed^s.serial<<20^s.step)%(2*jitter+1)
	return base.Std() * time.Duration(percent) / 100
}
