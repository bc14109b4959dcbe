package address

import (
	"strings"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// The words of files and texts are the names of the API's values in lower case without their prefix.
const (
	statusPrefix = "ADDRESS_STATUS_"
	classPrefix  = "MAIL_CLASS_"
	originPrefix = "ADDRESS_ORIGIN_"
	reasonPrefix = "FAILURE_REASON_"
)

func wordOf(name, prefix string) string {
	word := strings.ToLower(strings.TrimPrefix(name, prefix))
	if word == "unspecified" {
		return ""
	}
	return word
}

// valueOf reads a word: in any letter case, with or without its prefix, with hyphens or
// spaces for underscores. The empty word is 0.
func valueOf(values map[string]int32, prefix, word string) (value int32, known bool) {
	if word == "" {
		return 0, true
	}
	name := strings.ToUpper(word)
	if strings.ContainsAny(name, "- ") {
		name = strings.NewReplacer("-", "_", " ", "_").Replace(name)
	}
	value, known = values[prefix+strings.TrimPrefix(name, prefix)]
	return value, known && value != 0
}

func (s Status) word() string { return wordOf(veredusv1.AddressStatus(s).String(), statusPrefix) }
func (c Class) word() string  { return wordOf(veredusv1.MailClass(c).String(), classPrefix) }
func (o Origin) word() string { return wordOf(veredusv1.AddressOrigin(o).String(), originPrefix) }

func reasonWord(r bounce.Reason) string {
	return wordOf(veredusv1.FailureReason(r).String(), reasonPrefix)
}

// change is what evidence calls the step to the status.
func (s Status) change() Change {
	switch s {
	case Quarantined:
		return WasQuarantined
	case Denylisted:
		return WasDenylisted
	case Allowlisted:
		return WasAllowlisted
	}
	return Counted
}
