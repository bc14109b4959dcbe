package serve_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
)

var dialects = []string{"postfix", "exim", "exchange", "outlook", "gmail", "yahoo", "apple", "orange", "gmx", ""}

func returnKeys(t testing.TB) *returnpath.Keys {
	t.Helper()
	keys, err := returnpath.NewKeys(returnpath.Key{ID: 1, Secret: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The product's own reader of such mail understands what every kind of provider
// sends, and knows which message it is about.
func TestEveryDialectIsUnderstood(t *testing.T) {
	keys := returnKeys(t)
	ref := returnpath.Ref{Handover: 7, Domain: 3, Order: 12, Delivery: 5}
	token := keys.Token(ref)
	classifier := inbound.NewClassifier(bounce.Default(), keys)
	accepted := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		fate         world.Fate
		kind         inbound.Kind
		code         int
		status       string
		attributedBy inbound.Place
	}{
		{world.FateOOBUnknown, inbound.KindBounce, bounce.CodeInvalidRecipient, "5.1.1", inbound.PlaceReturnPath},
		{world.FateOOBFull, inbound.KindBounce, bounce.CodeMailboxFull, "5.2.2", inbound.PlaceReturnPath},
		{world.FateComplaint, inbound.KindComplaint, bounce.CodeUnsubscribe, "", inbound.PlaceMessageID},
		{world.FateAutoReply, inbound.KindAutoReply, bounce.CodeAutoReply, "", inbound.PlaceReturnPath},
		{world.FateUnsubscribe, inbound.KindUnsubscribe, bounce.CodeUnsubscribe, "", inbound.PlaceNone},
	} {
		for _, dialect := range dialects {
			for _, to := range []string{"Ann.Lee@x.example", "jürgen@x.example"} {
				name := string(tc.fate) + " " + dialect + " " + to
				if to[0] == 'j' && (dialect == "yahoo" || dialect == "outlook" || dialect == "exchange") {
					continue // these have no such addresses
				}
				header := "Message-ID: <" + token + "@sender.example>\r\nFrom: The Courier <news@sender.example>\r\nTo: <" + to + ">\r\n" +
					"Subject: Five stories\r\nList-Unsubscribe: <mailto:unsubscribe@bounce.sender.example?subject=sealed>\r\n"
				r := world.Return{
					Fate: tc.fate, Recipient: to, ReturnPath: token + "@bounce.sender.example", Host: "mx.x.example",
					Source: netip.MustParseAddr("127.0.0.1"), Dialect: dialect, ID: "Q17", Accepted: accepted,
				}
				out, err := r.Compose([]byte(header), accepted.Add(time.Second))
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				env := inbound.Envelope{Recipient: out.To, Unsubscribe: strings.HasPrefix(out.To, "unsubscribe@")}
				got := classifier.Classify(inbound.Parse(out.Content, inbound.Limits{}), env)
				if got.Kind != tc.kind || len(got.Recipients) != 1 || len(got.Malformed)+len(got.Limited) > 0 {
					t.Errorf("%s: %s (%s), recipients %+v, malformed %v\n%s", name, got.Kind, got.Why, got.Recipients, got.Malformed, out.Content)
					continue
				}
				first := got.Recipients[0]
				if first.Address != strings.ToLower(to) || first.Verdict.Code != tc.code || first.Status != tc.status {
					t.Errorf("%s: %s, code %d by %s, status %s: %s", name, first.Address, first.Verdict.Code, first.Verdict.Rule, first.Status, first.Diagnostic)
				}
				if tc.kind == inbound.KindBounce && first.Action != inbound.ActionFailed {
					t.Errorf("%s: action %s", name, first.Action)
				}
				if a := got.Attribution; a.Place != tc.attributedBy || tc.attributedBy != inbound.PlaceNone && a.Ref != ref || a.Forged > 0 || a.Conflict {
					t.Errorf("%s: attribution %+v", name, a)
				}
			}
		}
	}
}
