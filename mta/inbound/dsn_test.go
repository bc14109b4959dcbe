package inbound

import (
	"slices"
	"testing"

	"github.com/veredus/veredus/mta/bounce"
)

func TestStatusFields(t *testing.T) {
	cases := []struct {
		name, text string
		want       []dsnRecipient
	}{
		{
			"as the standard has it", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; a@x.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 no\n such user\n\nFinal-Recipient: rfc822; b@x.example\nAction: delayed\nStatus: 4.2.2\n",
			[]dsnRecipient{{final: "rfc822; a@x.example", action: "failed", status: "5.1.1", diagnostic: "smtp; 550 no such user"}, {final: "rfc822; b@x.example", action: "delayed", status: "4.2.2"}},
		},
		{
			"one group for all", "Reporting-MTA: dns; mx\nFinal-Recipient: a@x.example\nAction: failed\nStatus: 5.0.0\nFinal-Recipient: b@x.example\nAction: failed\nStatus: 5.0.0\n",
			[]dsnRecipient{{final: "a@x.example", action: "failed", status: "5.0.0"}, {final: "b@x.example", action: "failed", status: "5.0.0"}},
		},
		{
			"blank lines inside a group", "Final-Recipient: a@x.example\n\nAction: failed\n\nStatus: 5.1.1\n",
			[]dsnRecipient{{final: "a@x.example", action: "failed", status: "5.1.1"}},
		},
		{
			"action first", "Action: failed\nFinal-Recipient: rfc822;a@x.example\nStatus: 5.0.0\n\nAction: failed\nFinal-Recipient: rfc822;b@x.example\nStatus: 5.0.0\n",
			[]dsnRecipient{{final: "rfc822;a@x.example", action: "failed", status: "5.0.0"}, {final: "rfc822;b@x.example", action: "failed", status: "5.0.0"}},
		},
		{"about nobody", "Reporting-MTA: dns; mx\nAction: failed\n", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := readStatus(c.text); !slices.Equal(got, c.want) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestStatusAddresses(t *testing.T) {
	for field, want := range map[string]string{
		"rfc822; Ann@Corp.example":           "ann@corp.example",
		"RFC822;<ann@corp.example>":          "ann@corp.example",
		"ann@corp.example":                   "ann@corp.example",
		"rfc822; ann+40corp.example":         "ann@corp.example",
		"utf-8; jöhn@corp.example":           "jöhn@corp.example",
		`utf-8; j\x{f6}hn@corp.example`:      "jöhn@corp.example",
		"rfc822; =?utf-8?B?8J+Q?=@x.example": "=?utf-8?b?8j+q?=@x.example",
		"system;<>":                          "",
		"rfc822; ann":                        "",
		"":                                   "",
	} {
		if got := statusAddress(field); got != want {
			t.Errorf("%q: %q, want %q", field, got, want)
		}
	}
}

func TestSeveralRecipientsWithDifferentFates(t *testing.T) {
	raw := `From: MAILER-DAEMON@mx.example
Subject: Delivery Status Notification
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/global-delivery-status
Content-Transfer-Encoding: 8bit

Reporting-MTA: dns; mx.example

Original-Recipient: rfc822; ann@alias.example
Final-Recipient: utf-8; änn@corp.example
Action: failed
Status: 5.2.2
Remote-MTA: dns; mx1.corp.example
Diagnostic-Code: smtp; 552 5.2.2 mailbox full

Final-Recipient: rfc822; bob@corp.example
Action: relayed
Status: 2.0.0

Final-Recipient: rfc822; cy@corp.example
Action: expanded
Status: 2.0.0

Final-Recipient: rfc822; dee@corp.example
Action: delayed
Status: 4.4.1

--b
Content-Type: message/global-headers

To: ann@alias.example

--b--
`
	r := NewClassifier(bounce.Default(), nil).Classify(Parse([]byte(raw), Limits{}), Envelope{})
	type fate struct {
		address, original, action, status string
		code                              int
	}
	var got []fate
	for _, x := range r.Recipients {
		got = append(got, fate{x.Address, x.Original, x.Action.String(), x.Status, x.Verdict.Code})
	}
	want := []fate{
		{"änn@corp.example", "ann@alias.example", "failed", "5.2.2", bounce.CodeMailboxFull},
		{"bob@corp.example", "", "relayed", "2.0.0", 0},
		{"cy@corp.example", "", "expanded", "2.0.0", 0},
		{"dee@corp.example", "", "delayed", "4.4.1", bounce.CodeTransientFailure},
	}
	if r.Kind != KindBounce || !slices.Equal(got, want) {
		t.Errorf("%s\ngot  %+v\nwant %+v", r.Kind, got, want)
	}
	if host := r.Recipients[0].RemoteMTA; host != "mx1.corp.example" {
		t.Errorf("remote MTA %q", host)
	}
}
