package inbound

import (
	"regexp"
	"strings"
)

var (
	complaintSubject = regexp.MustCompile(`(?i)^\s*(?:complaint about message from|abuse report|(?:fw|fwd): .*\babuse\b|feedback loop|spam report|complaint\b)|abuse report|\bfeedback loop\b`)
	complaintFrom    = regexp.MustCompile(`(?i)^(?:staff@(?:hotmail|outlook|live|msn)\.|(?:fbl|arf|feedback-?loop|feedback|abuse-?report|complaints?|scomp|email-abuse)[^@]*@)`)
)

// isComplaint reports whether a mail reports a complaint: by a feedback report
// (RFC 5965), or as providers do it who send only the mail complained about
// (Microsoft's JMRP, older Yahoo and AOL loops).
func isComplaint(s *study) bool {
	if s.feedback != nil || s.mail.Root.Params["report-type"] == "feedback-report" {
		return true
	}
	if s.enclosed == nil || len(s.status) > 0 {
		return false
	}
	if len(s.enclosed.Parts) > 0 && s.enclosed.Parts[0].Header.Has("X-HmXmrOriginalRecipient") {
		return true
	}
	return complaintFrom.MatchString(s.from) && (complaintSubject.MatchString(s.subject) || strings.HasPrefix(s.from, "staff@"))
}

// complaint reads who complained, from the report's fields, else from the mail
// complained about. Providers redact; then nobody is named, and only a token
// tells.
func complaint(s *study, original Header, r *Report) {
	r.Kind, r.Form, r.FeedbackType = KindComplaint, "arf", "abuse"
	var named []string
	if s.feedback != nil {
		if kind := s.feedback.Get("Feedback-Type"); kind != "" {
			r.FeedbackType = strings.ToLower(clip(kind, 40))
		}
		for _, name := range []string{"Original-Rcpt-To", "Removal-Recipient", "Original-Recipient", "X-Original-Rcpt-To", "Reported-Recipient"} {
			if named = addresses(s.feedback.All(name), maxRecipients); len(named) > 0 {
				break
			}
		}
	}
	if len(named) == 0 {
		named = complainers(original)
	}
	r.Verdict = feedbackVerdict(r.FeedbackType)
	for _, a := range named {
		r.add(Recipient{Address: a, Verdict: r.Verdict})
	}
}

// speaksOfReader reports whether a feedback type tells that a reader does not want
// the mail. An authentication failure (RFC 6591), a virus or "not-spam" does not.
func speaksOfReader(kind string) bool {
	switch kind {
	case "auth-failure", "not-spam", "virus", "dmarc":
		return false
	}
	return true
}

// complainers are the recipients of a mail complained about. To comes before what
// delivery agents wrote, for a list may have passed the mail on.
func complainers(original Header) []string {
	for _, name := range []string{"X-HmXmrOriginalRecipient", "To", "X-Original-To", "Envelope-To", "Cc"} {
		if all := addresses(original.All(name), maxRecipients); len(all) > 0 {
			return all
		}
	}
	for _, trace := range original.All("Received") {
		if m := forPattern.FindStringSubmatch(trace); m != nil {
			if a := firstAddress(m[1]); a != "" {
				return []string{a}
			}
		}
	}
	return addresses(original.All("Delivered-To"), 1)
}
