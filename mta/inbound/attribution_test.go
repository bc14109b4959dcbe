package inbound

import (
	"strings"
	"testing"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/returnpath"
)

func testKeys(t testing.TB, id byte) *returnpath.Keys {
	t.Helper()
	keys, err := returnpath.NewKeys(returnpath.Key{ID: id, Secret: [32]byte{id, 1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

var (
	ours   = returnpath.Ref{Handover: 7, Domain: 3, Lane: 1, Order: 42, Delivery: 9}
	theirs = returnpath.Ref{Handover: 7, Domain: 3, Lane: 1, Order: 43, Delivery: 9}
)

// bounceOf is a bounce that came to an address and returns a mail with that
// Message-ID and List-Unsubscribe.
func bounceOf(to, messageID, unsubscribe string) []byte {
	return []byte("From: MAILER-DAEMON@mx.example.net\nTo: <" + to + `>
Subject: failure notice
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

Nobody here.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; ann@corp.example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 User unknown

--b
Content-Type: text/rfc822-headers

Message-ID: <` + messageID + `>
List-Unsubscribe: ` + unsubscribe + `
To: ann@corp.example.net

--b--
`)
}

func TestAttribution(t *testing.T) {
	keys := testKeys(t, 1)
	token, other := keys.Token(ours), keys.Token(theirs)
	stranger := testKeys(t, 2).Token(ours)
	broken := token[:len(token)-2] + "aa"
	const domain = "@bounce.sender.example"
	cases := []struct {
		name              string
		envelope          string
		to, id, list      string
		place             Place
		ref               returnpath.Ref
		confirm, conflict bool
		forged            int
	}{
		{name: "return path", envelope: token + domain, to: "x@y.example", id: "x@y.example", place: PlaceReturnPath, ref: ours},
		{name: "return path in capitals", envelope: strings.ToUpper(token) + domain, id: "x@y.example", place: PlaceReturnPath, ref: ours},
		{name: "return path from the header", to: token + domain, id: "x@y.example", place: PlaceReturnPath, ref: ours},
		{name: "header is not looked at when the envelope is known", envelope: "postmaster@sender.example", to: token + domain, id: "x@y.example"},
		{name: "with a prefix", envelope: "unsubscribe+" + token + domain, id: "x@y.example", place: PlaceReturnPath, ref: ours},
		{name: "Message-ID of the returned mail", envelope: "postmaster@sender.example", id: token + domain, place: PlaceMessageID, ref: ours, confirm: true},
		{name: "List-Unsubscribe as URL", envelope: "postmaster@sender.example", id: "x@y.example", list: "<https://u.sender.example/u/" + token + ">", place: PlaceListUnsubscribe, ref: ours, confirm: true},
		{name: "List-Unsubscribe as mailto", envelope: "postmaster@sender.example", id: "x@y.example", list: "<mailto:u-" + token + "@sender.example?subject=unsubscribe>", place: PlaceListUnsubscribe, ref: ours, confirm: true},
		{name: "the text alone", envelope: "postmaster@sender.example", id: "x@y.example"},
		{name: "a forged return path ends the search", envelope: broken + domain, id: token + domain, forged: 1},
		{name: "a stranger's key", envelope: stranger + domain, id: stranger + domain, forged: 2},
		{name: "a forged Message-ID below a true return path", envelope: token + domain, id: broken + domain, place: PlaceReturnPath, ref: ours, forged: 1},
		{name: "somebody else's mail returned to our token", envelope: token + domain, id: other + domain, place: PlaceReturnPath, ref: ours, conflict: true},
	}
	c := NewClassifier(bounce.Default(), keys)
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			if k.to == "" {
				k.to = "postmaster@sender.example"
			}
			raw := bounceOf(k.to, k.id, k.list)
			a := c.Classify(Parse(raw, Limits{}), Envelope{Recipient: k.envelope}).Attribution
			want := Attribution{Place: k.place, Ref: k.ref, Confirm: k.confirm, Forged: k.forged, Conflict: k.conflict}
			if a != want {
				t.Errorf("got %+v, want %+v", a, want)
			}
		})
	}
}

func TestAutomaticReplyIsAttributedByWhatItAnswers(t *testing.T) {
	keys := testKeys(t, 1)
	raw := "From: ann@corp.example.net\nSubject: Automatic reply: News\nIn-Reply-To: <" + keys.Token(ours) + "@bounce.sender.example>\n\nAway.\n"
	r := NewClassifier(bounce.Default(), keys).Classify(Parse([]byte(raw), Limits{}), Envelope{Recipient: "news@sender.example"})
	if r.Kind != KindAutoReply || r.Attribution.Place != PlaceMessageID || r.Attribution.Ref != ours || !r.Attribution.Confirm {
		t.Errorf("got %s %+v", r.Kind, r.Attribution)
	}
}

func TestWithoutKeysNothingIsAttributed(t *testing.T) {
	raw := bounceOf(testKeys(t, 1).Token(ours)+"@bounce.sender.example", "x@y.example", "")
	if a := NewClassifier(bounce.Default(), nil).Classify(Parse(raw, Limits{}), Envelope{}).Attribution; a != (Attribution{}) {
		t.Errorf("got %+v", a)
	}
}

func TestUnsubscribeAddressTakesWhateverIsNoAutomaticMail(t *testing.T) {
	c := NewClassifier(bounce.Default(), nil)
	env := Envelope{Recipient: "u@sender.example", Unsubscribe: true}
	for raw, want := range map[string]Kind{
		"From: ann@corp.example.net\nSubject: \n\n\n":                                     KindUnsubscribe,
		"From: ann@corp.example.net\nSubject: Re: News\n\nplease no more of this\n":       KindUnsubscribe,
		"From: ann@corp.example.net\nSubject: Automatic reply: x\n\naway\n":               KindAutoReply,
		"From: MAILER-DAEMON@x.example\nSubject: failure notice\nReturn-Path: <>\n\nno\n": KindBounce,
	} {
		if got := c.Classify(Parse([]byte(raw), Limits{}), env).Kind; got != want {
			t.Errorf("%q: %s, want %s", raw, got, want)
		}
	}
}
