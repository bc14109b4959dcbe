package inbound

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/returnpath"
)

// saidOf is a recipient as a report names it.
func saidOf(address string, action Action, effect bounce.AddressEffect) Recipient {
	return Recipient{Address: address, Action: action, Verdict: bounce.Verdict{Address: effect}}
}

func TestReturnsOfReportsAboutSeveralRecipients(t *testing.T) {
	const unconfirmed = "*"
	ann, bob := "ann@corp.example.net", "bob@corp.example.net"
	suppress, count := bounce.AddressSuppress, bounce.AddressCount
	certain, byID := Attribution{Place: PlaceReturnPath, Ref: ours}, Attribution{Place: PlaceMessageID, Ref: ours, Confirm: true}
	for _, k := range []struct {
		name string
		tie  Attribution
		all  []Recipient
		want []string // the recipient of each alternative, with a mark if it needs no confirmation
	}{
		{"one", certain, []Recipient{saidOf(ann, ActionFailed, suppress)}, []string{ann + unconfirmed}},
		{"one, by Message-ID", byID, []Recipient{saidOf(ann, ActionFailed, suppress)}, []string{ann}},
		{"one failed, one delayed", certain, []Recipient{saidOf(bob, ActionDelayed, count), saidOf(ann, ActionFailed, suppress)}, []string{ann + unconfirmed}},
		{"one failed, one delivered", certain, []Recipient{saidOf(ann, ActionFailed, suppress), saidOf(bob, ActionDelivered, 0)}, []string{ann}},
		{"two failed: the mildest if neither is ours", certain, []Recipient{saidOf(ann, ActionFailed, suppress), saidOf(bob, ActionFailed, count)}, []string{ann, bob, bob + unconfirmed}},
		{"two failed, by Message-ID", byID, []Recipient{saidOf(ann, ActionFailed, suppress), saidOf(bob, ActionFailed, count)}, []string{ann, bob}},
		{"two failed, one relayed", certain, []Recipient{saidOf(ann, ActionFailed, suppress), saidOf(bob, ActionFailed, count), saidOf("c@d.example", ActionRelayed, 0)}, []string{ann, bob}},
		{"none failed", certain, []Recipient{saidOf(ann, ActionDelayed, count), saidOf(bob, ActionExpanded, 0)}, nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			returns, unprocessed := Returns(Report{Kind: KindBounce, Recipients: k.all, Attribution: k.tie}, time.Unix(1, 0))
			var got []string
			for _, r := range returns {
				text := strings.Join(r.Recipients, " ")
				if !r.Confirm {
					text += unconfirmed
				}
				got = append(got, text)
			}
			if !slices.Equal(got, k.want) || unprocessed != "" {
				t.Errorf("%q and %q, want %q", got, unprocessed, k.want)
			}
		})
	}
}

func TestABounceThatNamesNobodyCountsByItsReturnPath(t *testing.T) {
	keys := testKeys(t, 1)
	c := NewClassifier(bounce.Default(), keys)
	classify := func(subject, text string) Report {
		raw := "From: MAILER-DAEMON@mx.example.net\nSubject: " + subject + "\n\n" + text + "\n"
		return c.Classify(Parse([]byte(raw), Limits{}), Envelope{Recipient: keys.Token(ours) + "@bounce.sender.example", Null: true})
	}
	r := classify("Undeliverable mail", "Your message could not be delivered: the recipient's mailbox is full.")
	returns, _ := Returns(r, time.Unix(1, 0))
	if len(returns) != 1 || returns[0].Confirm || returns[0].Verdict.Code != bounce.CodeMailboxFull || !strings.Contains(returns[0].Text, "mailbox is full") {
		t.Errorf("%d recipients, returns %+v", len(r.Recipients), returns)
	}
	r = classify("Warning: message delayed", "Your message has been delayed. It has not yet been delivered, but delivery attempts will continue.")
	if returns, unprocessed := Returns(r, time.Unix(1, 0)); len(returns) > 0 || unprocessed != "" || r.Action != ActionDelayed {
		t.Errorf("a delay: %+v, %q of %+v", returns, unprocessed, r)
	}
}

// The mail that went to an address which was forwarded names both; either may be the message's.
func TestAReturnNamesTheOriginalRecipientToo(t *testing.T) {
	raw := strings.Replace(string(bounceOf("x@y.example", noID, "")), "Final-Recipient:", "Original-Recipient: rfc822; Ann@Alias.example\nFinal-Recipient:", 1)
	keys := testKeys(t, 1)
	r := NewClassifier(bounce.Default(), keys).Classify(Parse([]byte(raw), Limits{}), Envelope{Recipient: keys.Token(ours) + "@b.example"})
	returns, _ := Returns(r, time.Unix(1, 0))
	if len(returns) != 1 || !slices.Equal(returns[0].Recipients, []string{oursTo, "ann@alias.example"}) {
		t.Errorf("returns %+v", returns)
	}
}

func TestASealedTokenInListUnsubscribeAttributes(t *testing.T) {
	opens := func(token string) (returnpath.Ref, bool) { return ours, token == sealedToken }
	c := NewClassifier(bounce.Default(), testKeys(t, 1)).WithLinks(opens)
	classify := func(list string) Attribution {
		raw := bounceOf("postmaster@sender.example", noID, list)
		return c.Classify(Parse(raw, Limits{}), Envelope{Recipient: "postmaster@sender.example"}).Attribution
	}
	want := Attribution{Place: PlaceListUnsubscribe, Ref: ours, Link: sealedToken, Confirm: true}
	if a := classify("<https://u.sender.example/u/" + sealedToken + ">, <mailto:unsubscribe@bounce.sender.example?subject=" + sealedToken + ">"); a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
	if a := classify("<https://u.sender.example/u/" + sealedToken + "x>"); a != (Attribution{}) {
		t.Errorf("somebody else's link: %+v", a)
	}
}

// Random base64 must not pass for a forged token of the return path: every mail has links.
func TestLinksAreNotTakenForForgedTokens(t *testing.T) {
	keys := testKeys(t, 1)
	c := NewClassifier(bounce.Default(), keys)
	token := keys.Token(ours)
	for _, link := range []string{
		strings.Repeat("ae", 60) + "-1", // all letters of our alphabet, but longer than a token
		"AQAB0" + token + "0" + strings.ToUpper(token) + "1_" + strings.Repeat("x0", 20),
	} {
		raw := bounceOf("x@y.example", noID, "<https://u.sender.example/u/"+link+">")
		a := c.Classify(Parse(raw, Limits{}), Envelope{Recipient: token + "@b.example"}).Attribution
		if a.Forged > 0 || !a.Certain() {
			t.Errorf("%s: %+v", link, a)
		}
	}
}

func BenchmarkReturns(b *testing.B) {
	keys := testKeys(b, 1)
	c := NewClassifier(bounce.Default(), keys)
	raw := bounceOf("x@y.example", noID, "")
	env := Envelope{Recipient: keys.Token(ours) + "@b.example", Null: true}
	b.ReportAllocs()
	for b.Loop() {
		r := c.Classify(Parse(raw, Limits{}), env)
		if returns, _ := Returns(r, time.Unix(1, 0)); len(returns) != 1 {
			b.Fatal("no return")
		}
	}
}
