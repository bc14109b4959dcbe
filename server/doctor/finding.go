package doctor

import (
	"fmt"
	"strings"

	"github.com/veredus/veredus/dkim"
)

// Severity says how grave a finding is.
type Severity string

// The severities, mildest first.
const (
	// OK: as receivers want it.
	OK Severity = "ok"
	// Info: to know.
	Info Severity = "info"
	// Warning: mail goes out and should go better; or nothing could be found out.
	Warning Severity = "warning"
	// Error: receivers refuse mail for this, or the node cannot do its work.
	Error Severity = "error"
)

// Record is a DNS record as it should be.
type Record struct {
	Name  string `json:"name"` // without the dot at its end
	Type  string `json:"type"` // TXT, MX, A, AAAA, PTR
	Value string `json:"value"`
}

// String is the record as a line of a zone file. Long texts are cut into strings of
// 255 octets, which those who read them join again (RFC 7208 section 3.3).
func (r Record) String() string {
	value := r.Value
	switch r.Type {
	case "TXT":
		value = `"` + strings.Join(dkim.ZoneStrings(r.Value), `" "`) + `"`
	case "MX", "PTR":
		value += "."
	}
	return fmt.Sprintf("%s. IN %s %s", r.Name, r.Type, value)
}

// Finding is one result.
type Finding struct {
	Severity Severity `json:"severity"`
	// Code is the finding's stable name, such as "spf.source_missing".
	Code string `json:"code"`
	// Subject is what it is about: "node", "source NAME" or "domain NAME".
	Subject string `json:"subject"`
	// Description says what was found, and what to do unless all is well.
	Description string `json:"description"`
	// Record is what to publish in the DNS; nil when nothing would help.
	Record *Record `json:"record,omitempty"`
}

// about makes findings of one subject.
type about string

func (a about) ok(code, format string, args ...any) Finding { return a.finding(OK, code, format, args) }

func (a about) info(code, format string, args ...any) Finding {
	return a.finding(Info, code, format, args)
}

func (a about) warning(code, format string, args ...any) Finding {
	return a.finding(Warning, code, format, args)
}

func (a about) failure(code, format string, args ...any) Finding {
	return a.finding(Error, code, format, args)
}

func (a about) finding(s Severity, code, format string, args []any) Finding {
	return Finding{Severity: s, Code: code, Subject: string(a), Description: clip(fmt.Sprintf(format, args...), maxDescription)}
}

// unknown is a question that got no answer.
func (a about) unknown(code, what string, err error) Finding {
	return a.warning(code+".unknown", "%s could not be found out: %v; try again, and look at dns.server if it stays so", what, err)
}

// with adds the record to publish.
func (f Finding) with(name, kind, value string) Finding {
	f.Record = &Record{Name: name, Type: kind, Value: value}
	return f
}

// maxDescription bounds a description, in octets.
const maxDescription = 1000

// clip keeps a stranger's text short and printable in ours.
func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
