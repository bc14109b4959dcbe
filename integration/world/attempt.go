package world

import "time"

// Attempt asks for a whole envelope at once, as a pipelining client does (RFC 2920):
// MAIL at now, RCPT and DATA in their turn. It returns the decision that decided, the
// first refusal or DATA's 354, with the delays of all replies together; open says that
// the receiver holds a transaction that RSET or EndOfData ends.
func (s *Session) Attempt(now time.Time, from, to string) (d Decision, open bool) {
	mail := s.Mail(now, from)
	if !mail.Positive() || mail.Drop != Stay {
		return mail, false
	}
	rcpt := s.Rcpt(now.Add(mail.Delay), to)
	rcpt.Delay += mail.Delay
	if rcpt.Drop != Stay {
		return rcpt, false
	}
	data := s.Data(now.Add(rcpt.Delay))
	if !rcpt.Positive() { // its 554 has to be waited for, but RCPT's reply decided
		rcpt.Delay += data.Delay
		return rcpt, true
	}
	data.Delay += rcpt.Delay
	return data, data.Positive()
}

// Undeliverable is the share of recipients, 0 to 1, whom nothing is ever delivered
// to: mailboxes that do not exist, are full, disabled or refuse, and domains that
// take no mail.
func (r *Receiver) Undeliverable() float64 {
	if !r.HasHosts() {
		return 1
	}
	lost := 0
	for _, f := range [...]Fate{FateUnknown, FateFull, FateDisabled, FateBlock, FateSpam} {
		lost += r.Mailboxes[f]
	}
	return float64(lost) / 1000
}

// Rest is how long the replies after a positive one to MAIL take together, to RCPT,
// DATA and the final dot, of a recipient who is accepted: for callers that know that
// nothing else can come of it.
func (s *Session) Rest() time.Duration {
	l := &s.m.r.Latency
	return s.delay(l.Command) + s.delay(l.Command) + s.delay(l.EndOfData) + l.Load.delay(s.m.total)
}
