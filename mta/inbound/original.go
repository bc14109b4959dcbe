package inbound

import (
	"regexp"
	"strings"
)

// copyPattern is a line that announces the returned mail. Each phrase has been
// seen in the bounces of a mail system; a line is taken for one only when it is
// short or set off with dashes, since prose speaks of "the original message", too.
var copyPattern = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`below this line is a copy of`, `this is a copy of (?:the|your) (?:message|headers)`, `(?:enclosed|included|here|below|attached) is a copy of`,
	`copy of (?:the|your) (?:original )?(?:message|mail)(?: including|,? follows| header)`,
	`(?:unsent|undelivered|returned|rejected|original|bounced|failed) (?:e-?mail |mail )?(?:message|mail|e-mail) (?:text |header |headers |info )?(?:follows|below|is (?:attached|following|below)|as follows)`,
	`headers? of the (?:original|returned|undelivered) (?:message|mail)`, `(?:message|original|mail) headers? follows?\b`, `message text follows`,
	`^\W*(?:original|unsent|undelivered|returned|rejected|forwarded) (?:message|mail)(?: (?:headers?|info|text|body))?\W*$`,
	`^\W*message headers?\W*$`, `^\W*start of (?:the )?(?:original|returned) message`, `original message header`,
	`^\W*(?:mensaje original|mensagem original|message d.origine|messaggio originale|urspr.ngliche nachricht|oorspronkelijk bericht|исходное сообщение|original-?nachricht|oryginalna wiadomo..)`,
	`mensaje original adjunto`, `^\W*message non-deliverable`, `the first \d+ lines of the (?:original )?message`,
	`以下は元のメッセージ`, `元のメッセージ`, `原始邮件`, `原邮件`,
}, "|"))

// maxCopyLine is the longest line that may announce a copy, in bytes.
const maxCopyLine = 120

// splitCopy cuts a text where the returned mail begins: at an announcement, or
// where a header stands in the text.
func splitCopy(text string) (report, copied string) {
	at := 0
	for at < len(text) {
		line, next := nextLine(text, at)
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed != "" && len(trimmed) <= maxCopyLine && copyPattern.MatchString(trimmed):
			if strings.HasSuffix(trimmed, ":") || headerBelow(text, next) || trimmed[0] == '-' || strings.Contains(trimmed, "--") {
				return text[:at], text[next:]
			}
		case headerStart(trimmed) && beginsHeader(text[at:]):
			return text[:at], text[at:]
		}
		at = next
	}
	return text, ""
}

func nextLine(text string, at int) (line string, next int) {
	if end := strings.IndexByte(text[at:], '\n'); end >= 0 {
		return text[at : at+end], at + end + 1
	}
	return text[at:], len(text)
}

// headerStart reports whether a line may be the first of a returned header.
func headerStart(line string) bool {
	name := strings.ToLower(fieldName([]byte(line)))
	switch name {
	case "received", "return-path", "delivered-to", "x-original-to", "x-received", "dkim-signature", "message-id", "x-originating-ip",
		"envelope-to", "authentication-results", "arc-seal", "domainkey-signature", "mime-version", "received-spf":
		return true
	case "from", "date", "to", "subject":
		return true
	}
	return false
}

// traceFields are fields that stand in a header but in no report's prose.
var traceFields = map[string]bool{
	"received": true, "message-id": true, "return-path": true, "mime-version": true, "dkim-signature": true, "x-mailer": true,
	"content-type": true, "x-received": true, "delivered-to": true, "content-transfer-encoding": true, "references": true, "in-reply-to": true,
	"reply-to": true, "list-unsubscribe": true, "precedence": true, "x-priority": true, "user-agent": true,
}

// beginsHeader reports whether a text begins with a header: at least three fields
// in a row, one of which stands in no prose.
func beginsHeader(text string) bool {
	fields, trace := 0, false
	for at, lines := 0, 0; at < len(text) && fields < 40 && lines < 400; lines++ {
		line, next := nextLine(text, at)
		at = next
		if strings.TrimSpace(line) == "" {
			break
		}
		if (line[0] == ' ' || line[0] == '\t') && fields > 0 {
			continue
		}
		name := fieldName([]byte(strings.TrimSpace(line)))
		if name == "" {
			break
		}
		fields++
		trace = trace || traceFields[strings.ToLower(name)]
	}
	return fields >= 3 && trace
}

// headerBelow reports whether a header begins in the next few lines.
func headerBelow(text string, at int) bool {
	for range 4 {
		if at >= len(text) {
			return true // nothing follows: the copy was left out
		}
		line, next := nextLine(text, at)
		if t := strings.TrimSpace(line); t != "" && fieldName([]byte(t)) != "" {
			return true
		}
		at = next
	}
	return false
}

// original finds the header of the mail that m is about: the message enclosed,
// else the header that stands in the text after the report.
func (s *study) original() Header {
	if s.enclosed != nil {
		if len(s.enclosed.Parts) > 0 && s.enclosed.Parts[0].Header.Len() > 0 {
			return s.enclosed.Parts[0].Header
		}
	}
	return textHeader(s.copied)
}

// textHeader reads a header that stands in a text, perhaps indented or quoted.
func textHeader(text string) Header {
	var b strings.Builder
	indent := ""
	begun := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		trimmed := strings.TrimLeft(line, " \t>|")
		if !begun {
			if fieldName([]byte(trimmed)) == "" {
				continue
			}
			begun, indent = true, line[:len(line)-len(trimmed)]
		}
		line = strings.TrimPrefix(line, indent)
		if strings.TrimSpace(line) == "" {
			break
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	h, _ := readHeader([]byte(b.String()), 300)
	return h
}

func describe(h Header) Original {
	return Original{
		MessageID: messageID(h.Get("Message-ID")), From: clip(h.Text("From"), maxDescribed), To: clip(h.Text("To"), maxDescribed),
		Subject: clip(h.Text("Subject"), maxDescribed),
	}
}

// maxDescribed bounds what is kept of a field for people, in bytes.
const maxDescribed = 500

// messageID is the identifier in a Message-ID field, without angle brackets.
func messageID(value string) string {
	if open := strings.IndexByte(value, '<'); open >= 0 {
		value = value[open+1:]
		if end := strings.IndexByte(value, '>'); end >= 0 {
			value = value[:end]
		}
	}
	return clip(strings.ToValidUTF8(strings.TrimSpace(value), "\ufffd"), 998)
}

// envelopeRecipients are the addresses that the returned mail was sent to, as its
// header tells: what delivery agents wrote, then the newest "for" of its trace,
// then To.
func envelopeRecipients(h Header) []string {
	for _, name := range []string{"X-Original-To", "Envelope-To", "X-Envelope-To", "Delivered-To", "X-Rcpt-To"} {
		if all := addresses(h.All(name), 20); len(all) > 0 {
			return all
		}
	}
	for _, trace := range h.All("Received") {
		if m := forPattern.FindStringSubmatch(trace); m != nil {
			if a := firstAddress(m[1]); a != "" {
				return []string{a}
			}
		}
	}
	return addresses(h.All("To"), 20)
}

var forPattern = regexp.MustCompile(`(?i)\bfor\s+(<?[^\s;]+>?)`)
