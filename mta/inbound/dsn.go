package inbound

import (
	"regexp"
	"strconv"
	"strings"
)

// dsnRecipient is what the machine-readable part of a bounce says about one recipient.
type dsnRecipient struct {
	final, original, action, status string
	diagnostic, remoteMTA           string
}

// isDeliveryStatus reports whether a part is made of delivery status fields
// (RFC 3464 section 2.1, RFC 6533 section 6.2).
func isDeliveryStatus(kind string) bool {
	switch kind {
	case "message/delivery-status", "message/global-delivery-status", "text/delivery-status", "message/delivery-report":
		return true
	}
	return false
}

// maxRecipients bounds the recipients of one report.
const maxRecipients = 200

// readStatus reads the fields about recipients from a text: a delivery status
// part, or any text that quotes one. Blank lines should part the recipients; some
// systems forget them, others put them where they do not belong, so a field that
// would stand twice begins a recipient, too.
func readStatus(text string) []dsnRecipient {
	var r statusReader
	for line := range strings.Lines(text) {
		if len(r.all) >= maxRecipients {
			return r.all
		}
		r.line(strings.TrimRight(line, "\r\n"))
	}
	r.flush()
	return r.all
}

type statusReader struct {
	all   []dsnRecipient
	cur   dsnRecipient
	last  *string // the field that a folded line continues
	blank bool    // a blank line stood above
}

func (r *statusReader) line(line string) {
	trimmed := strings.TrimSpace(line)
	if trimmed == "" {
		r.blank, r.last = true, nil
		return
	}
	if (line[0] == ' ' || line[0] == '\t') && r.last != nil {
		*r.last = clip(*r.last+" "+trimmed, maxDiagnostic)
		return
	}
	name, value, _ := strings.Cut(trimmed, ":")
	name = strings.ToLower(strings.TrimRight(name, " \t"))
	target := r.cur.field(name)
	if target == nil && r.blank || target != nil && (*target != "" || r.blank && r.cur.complete()) {
		r.flush()
		target = r.cur.field(name)
	}
	r.blank, r.last = false, target
	if target != nil {
		*target = clip(strings.TrimSpace(value), maxDiagnostic)
	}
}

// flush ends the group of a recipient. One that names nobody yet goes on.
func (r *statusReader) flush() {
	if r.cur.final != "" || r.cur.original != "" {
		r.all = append(r.all, r.cur)
		r.cur = dsnRecipient{}
	}
	r.last = nil
}

// maxDiagnostic bounds a diagnostic text, in bytes.
const maxDiagnostic = 8 << 10

// field returns where a field's value belongs, nil for one that does not matter.
func (r *dsnRecipient) field(name string) *string {
	switch name {
	case "final-recipient":
		return &r.final
	case "original-recipient":
		return &r.original
	case "action":
		return &r.action
	case "status":
		return &r.status
	case "diagnostic-code":
		return &r.diagnostic
	case "remote-mta":
		return &r.remoteMTA
	}
	return nil
}

// complete reports whether a recipient's group may end here.
func (r *dsnRecipient) complete() bool {
	return (r.final != "" || r.original != "") && r.action != "" && r.status != ""
}

// typed reads a field of the form "type; value" (RFC 3464 section 2.1.2), also
// without its type.
func typed(field string) (kind, value string) {
	kind, value, ok := strings.Cut(field, ";")
	if !ok || strings.ContainsAny(kind, "@<") || len(kind) > 40 || strings.Contains(strings.TrimSpace(kind), " ") {
		return "", strings.TrimSpace(field)
	}
	return strings.ToLower(strings.TrimSpace(kind)), strings.TrimSpace(value)
}

// statusAddress reads the address of a recipient field. A value without a domain
// is no address; "+40" in place of @ (xtext, RFC 3461 section 4) and "\x{e9}" for
// other characters than ASCII (RFC 6533 section 3) are read.
func statusAddress(field string) string {
	kind, value := typed(field)
	value = strings.TrimSpace(decodeWordsUnlessAddress(value))
	if strings.HasPrefix(kind, "utf-8") {
		value = escapedCharacter.ReplaceAllStringFunc(value, func(e string) string {
			n, err := strconv.ParseUint(e[3:len(e)-1], 16, 32)
			if err != nil || n <= ' ' || n == '<' || n == '>' {
				return e
			}
			return string(rune(n))
		})
	}
	if !strings.ContainsAny(value, "<> \t") {
		value = "<" + value + ">" // nothing but an address: all of it is one
	}
	if a := firstAddress(value); a != "" {
		return a
	}
	return firstAddress(strings.Replace(value, "+40", "@", 1))
}

var escapedCharacter = regexp.MustCompile(`\\x\{[0-9A-Fa-f]{1,6}\}`)

// decodeWordsUnlessAddress reads encoded words around an address, but leaves
// those that are its local part.
func decodeWordsUnlessAddress(value string) string {
	if strings.Contains(value, "?=@") {
		return value
	}
	return decodeWords(value)
}

// parseAction reads an Action field, ignoring what follows the word.
func parseAction(field string) Action {
	word := strings.ToLower(strings.TrimSpace(field))
	for a, name := range actionNames {
		if name != "" && strings.HasPrefix(word, name) {
			return Action(a)
		}
	}
	switch {
	case strings.HasPrefix(word, "fail"), strings.HasPrefix(word, "expired"), strings.HasPrefix(word, "error"), strings.HasPrefix(word, "permanent"):
		return ActionFailed
	case strings.HasPrefix(word, "delay"), strings.HasPrefix(word, "deferred"):
		return ActionDelayed
	case strings.HasPrefix(word, "deliverable"), strings.HasPrefix(word, "success"):
		return ActionDelivered
	}
	return ActionNone
}
