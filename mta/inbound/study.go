package inbound

import "strings"

// study is a mail with what its parts are for.
type study struct {
	mail     *Mail
	header   Header
	subject  string
	from     string // the address in From
	status   []dsnRecipient
	feedback *Header   // the fields of a feedback report
	receipt  bool      // it has a disposition notification (RFC 8098)
	report   string    // what the reporting system wrote in words
	passages []passage // the recipients named there
	readings []reading // of the report, once needed
	copied   string    // what of the returned mail stands in the text
	enclosed *Part     // the returned mail as a part
	null     bool      // the envelope had the null reverse-path
}

// maxSubject bounds the subject considered, in bytes.
const maxSubject = 2 << 10

// maxReport bounds the words considered, in bytes.
const maxReport = 64 << 10

func newStudy(m *Mail) *study {
	s := &study{mail: m, header: m.Root.Header}
	s.subject = clip(s.header.Text("Subject"), maxSubject)
	s.from = firstAddress(decodeWords(s.header.Get("From")))
	var words strings.Builder
	s.part(m.Root, &words)
	s.report, s.copied = splitCopy(clip(words.String(), 4*maxReport))
	s.report = clip(s.report, maxReport)
	s.passages = passages(s.report)
	if len(s.status) == 0 {
		s.status = quotedStatus(words.String())
	}
	return s
}

// part sorts a part and those below it. The returned mail is not looked into:
// whatever it says was said by us.
func (s *study) part(p *Part, words *strings.Builder) {
	switch {
	case p.Message():
		if s.enclosed == nil {
			s.enclosed = p
		}
	case isDeliveryStatus(p.Type):
		s.status = append(s.status, readStatus(p.Text)...)
		s.status = s.status[:min(len(s.status), maxRecipients)]
	case p.Type == "message/feedback-report" || p.Type == "text/feedback-report":
		h := fields(p.Text)
		s.feedback = &h
	case p.Type == "message/disposition-notification":
		s.receipt = true
	case p.Type == "multipart/alternative":
		s.part(alternative(p), words)
	case len(p.Parts) > 0:
		for _, c := range p.Parts {
			s.part(c, words)
		}
	case p.Text != "":
		words.WriteString(p.Text)
		words.WriteString("\n\n")
	}
}

// alternative picks the part to read: the first that has words, plain text before HTML.
func alternative(p *Part) *Part {
	var best *Part
	for _, c := range p.Parts {
		switch {
		case len(c.Parts) > 0 && best == nil:
			best = c
		case strings.TrimSpace(c.Text) == "" || c.Type == "text/calendar":
		case c.Type == "text/plain":
			return c
		case best == nil:
			best = c
		}
	}
	if best == nil {
		return &Part{}
	}
	return best
}

// fields reads a text of header fields, blank lines notwithstanding.
func fields(text string) Header {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString(line)
		}
	}
	h, _ := readHeader([]byte(b.String()), 300)
	return h
}

// quotedStatus reads delivery status fields that stand in the text of a mail whose
// parts were lost or never were.
func quotedStatus(text string) []dsnRecipient {
	lower := strings.ToLower(clip(text, 4*maxReport))
	at := strings.Index(lower, "final-recipient:")
	if at < 0 {
		at = strings.Index(lower, "original-recipient:")
	}
	if at < 0 || strings.TrimSpace(lower[strings.LastIndexByte(lower[:at], '\n')+1:at]) != "" {
		return nil
	}
	start := strings.LastIndex(lower[:at], "\n\n")
	all := readStatus(clip(text, 4*maxReport)[max(start, 0):])
	kept := all[:0]
	for _, r := range all {
		if r.action != "" || r.status != "" {
			kept = append(kept, r)
		}
	}
	return kept
}

// nullSender reports whether the mail came from the null reverse-path (RFC 5321
// section 4.5.5), as the envelope or its Return-Path tells.
func (s *study) nullSender() bool {
	if s.null {
		return true
	}
	for _, v := range s.header.All("Return-Path") {
		if v = strings.Trim(v, "<> \t"); v == "" || strings.EqualFold(v, "mailer-daemon") {
			return true
		}
	}
	return false
}

// to is the addresses the mail is addressed to.
func (s *study) to() []string {
	return addresses(append(s.header.All("To"), s.header.All("Delivered-To")...), 20)
}
