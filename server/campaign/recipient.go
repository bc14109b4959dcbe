package campaign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Limits of a recipient, in octets.
const (
	maxVariables         = 100_000
	maxRecipientID       = 128
	maxRecipientMetadata = 1 << 10
	maxRecipientKeys     = 1 << 10
	maxShownAddress      = 320
)

// size is what a recipient holds, in octets, with a little for each thing.
func size(r *veredusv1.Recipient) int64 {
	n := len(r.GetAddress()) + len(r.GetVariables()) + len(r.GetRecipientId()) + 16
	for k, v := range r.GetMetadata() {
		n += len(k) + len(v) + 4
	}
	return int64(n)
}

// recipient makes an item of a recipient; a malformed one is an item with Reject.
// Whatever fits is shared with r, not copied.
func recipient(item *Item, r *veredusv1.Recipient) {
	field, problem, remedy := fill(item, r)
	if problem == "" {
		return
	}
	*item = Item{Reject: &veredusv1.RejectedRecipient{
		Address:     printable(r.GetAddress(), maxShownAddress),
		RecipientId: printable(r.GetRecipientId(), maxRecipientID),
		Field:       field, Description: problem + "; " + remedy,
	}}
}

// fill checks each field and says what is wrong with the first bad one.
func fill(item *Item, r *veredusv1.Recipient) (field, problem, remedy string) {
	a, err := address.Parse(r.GetAddress())
	var bad *address.Error
	if errors.As(err, &bad) {
		return "address", bad.Problem, bad.Remedy
	}
	if problem, remedy := variablesProblem(r.GetVariables()); problem != "" {
		return "variables", problem, remedy
	}
	if r.GetRecipientId() != "" {
		v := violations{}
		if v.text("", r.GetRecipientId(), maxRecipientID); len(v.list) > 0 {
			return "recipient_id", v.list[0].Problem, v.list[0].Remedy
		}
	}
	if len(r.GetMetadata()) > 0 {
		if problem, remedy := metadataProblem(r.GetMetadata(), maxRecipientKeys, maxRecipientMetadata); problem != "" {
			return "metadata", problem, remedy
		}
	}
	item.Address, item.Domain, item.UTF8 = wire(r.GetAddress(), a), a.Domain, a.UTF8
	if item.Folded = strings.ToLower(a.Local); item.Folded == a.Local {
		item.Folded = item.Address
	} else {
		item.Folded += "@" + a.Domain
	}
	if item.Lane = mta.LaneOthers; r.GetEngaged() {
		item.Lane = mta.LaneEngaged
	}
	item.Variables, item.RecipientID, item.Metadata = r.GetVariables(), r.GetRecipientId(), r.GetMetadata()
	return "", "", ""
}

// wire is the address as it goes on the wire: what was given, if that is it already.
func wire(given string, a address.Address) string {
	if len(given) == len(a.Local)+1+len(a.Domain) && strings.HasSuffix(given, a.Domain) {
		return given
	}
	return a.String()
}

// variablesProblem says what is wrong with a recipient's variables; empty when nothing is.
func variablesProblem(raw []byte) (problem, remedy string) {
	if len(raw) == 0 {
		return "", ""
	}
	switch trimmed := bytes.TrimLeft(raw, " \t\r\n"); {
	case len(raw) > maxVariables:
		return fmt.Sprintf("is %d octets long", len(raw)), fmt.Sprintf("shorten it to %d", maxVariables)
	case len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(raw):
		return "is no JSON object", `send one, such as {"first_name":"Ada"}`
	case !utf8.Valid(raw):
		return "is not valid UTF-8", "send it in UTF-8"
	case depth(raw) > compose.MaxDepth:
		return fmt.Sprintf("is nested deeper than %d levels", compose.MaxDepth), "flatten it"
	}
	return "", ""
}

// depth is how deep valid JSON is nested.
func depth(raw []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
