package compose

import (
	"errors"
	"strings"
	"testing"
)

const plainRaw = "From: Ada <ada@example.com>\r\nSubject: Hi\r\nTo: Grace <grace@example.org>, x@example.net\r\n\r\nbody\r\n"

func rawSource(raw string) Source { return Source{Raw: []byte(raw)} }

func TestARawMessageKeepsItsToForThoseItNames(t *testing.T) {
	src := rawSource(plainRaw)
	src.ToName = "You"
	tmpl := compile(t, src)
	if from := tmpl.From().String(); from != "ada@example.com" {
		t.Errorf("From is %q", from)
	}
	for to, want := range map[string]string{
		"Grace@example.org": "\r\nTo: Grace <grace@example.org>, x@example.net\r\n",
		"bob@example.org":   "\r\nTo: You <bob@example.org>\r\n",
	} {
		j := job("")
		j.To = to
		r, err := tmpl.Render(t.Context(), j)
		if err != nil || strings.Count(string(r.Bytes), "To: ") != 1 || !strings.Contains(string(r.Bytes), want) || r.Subject != "Hi" {
			t.Errorf("%s: %v\n%s", to, err, r.Bytes)
		}
	}
}

func TestSourceReplacesFieldsOfARawMessage(t *testing.T) {
	src := rawSource("X-Tag: old\nReply-To: old@example.com\nList-Id: <old.example.com>\nList-Unsubscribe: <mailto:old@example.com>\nFeedback-ID: old\nCc: kept@example.net\nAuthentication-Results: x; old\nARC-Seal: old\nReturn-Path: <old@example.com>\n" + plainRaw)
	src.Headers = []Header{{"X-tag", "new {{ n }}"}}
	src.ReplyTo, src.ListID, src.FeedbackID, src.UnsubscribeMailto = "new@example.com", "new", "new", "new@example.com"
	r, err := compile(t, src).Render(t.Context(), job(`{"n":1}`))
	if err != nil || strings.Contains(string(r.Bytes), "old") {
		t.Fatalf("%v\n%s", err, r.Bytes)
	}
	for _, want := range []string{"X-tag: new 1\r\n", "Reply-To: new@example.com\r\n", "List-Id: <new.example.com>\r\n", "List-Unsubscribe: <mailto:new@example.com>\r\n", "Feedback-ID: new\r\n", "Cc: kept@example.net\r\n"} {
		if !strings.Contains(string(r.Bytes), want) {
			t.Errorf("no %q in\n%s", want, r.Bytes)
		}
	}
}

func TestRawMessagesAreNotTemplates(t *testing.T) {
	r, err := compile(t, rawSource(strings.Replace(plainRaw, "body", "{{ name }} {% for %}", 1))).Render(t.Context(), job(`{"name":"x"}`))
	if err != nil || !strings.HasSuffix(string(r.Bytes), "\r\n\r\n{{ name }} {% for %}\r\n") {
		t.Errorf("%v\n%s", err, r.Bytes)
	}
}

func TestRawMessagesSayWhatTheyNeedOfTheReceiver(t *testing.T) {
	for _, tc := range []struct {
		raw            string
		eightBit, utf8 bool
	}{
		{plainRaw, false, false},
		{strings.Replace(plainRaw, "body", "b\u00f6dy", 1), true, false},
		{strings.Replace(plainRaw, "body", "b\xf6dy", 1), true, false},
		{strings.Replace(plainRaw, "Hi", "H\u00ef", 1), false, true},
	} {
		r, err := compile(t, rawSource(tc.raw)).Render(t.Context(), job(""))
		if err != nil || r.EightBit != tc.eightBit || r.UTF8 != tc.utf8 {
			t.Errorf("%q: 8-bit %v, UTF-8 %v, %v", tc.raw, r.EightBit, r.UTF8, err)
		}
	}
}

func TestFaultyRawMessagesAreRefused(t *testing.T) {
	for raw, want := range map[string]string{
		"Subject: Hi\n\nbody":                                            "has no From field",
		"From: a@example.com\n\nbody":                                    "has no Subject",
		"From: a@example.com, b@example.com\nSubject: x\n\nbody":         "is not a From field with one address",
		"From: a@example.com\nFrom: b@example.com\nSubject: x\n\nbody":   "occurs more than once",
		"From: nobody\nSubject: x\n\nbody":                               "is not a From field",
		"From: a@localhost\nSubject: x\n\nbody":                          "domain without a dot",
		"no header at all":                                               "which is no field",
		"From sender Thu Jan  1 00:00:00 1970\nFrom: a@example.com\n\nx": "which is no field",
		" folded first\nFrom: a@example.com\n\nx":                        "which is no field",
		plainRaw + strings.Repeat("x", 999):                              "has a line of 999 octets",
		plainRaw + "\x00":                                                "holds a NUL",
		strings.Replace(plainRaw, "Hi", "H\xef", 1):                      "not UTF-8",
		strings.Replace(plainRaw, "Hi", "H\x1bi", 1):                     "control character",
		"Content-Transfer-Encoding: binary\n" + plainRaw:                 "transfer encoding that mail cannot carry",
		"Subject: again\n" + plainRaw:                                    "occurs more than once",
		strings.Repeat("x", MaxRaw+1):                                    "octets long",
	} {
		_, err := Compile(rawSource(raw))
		var fault *FieldError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) || fault.Remedy == "" {
			t.Errorf("%.60q: %v, want %q", raw, err, want)
		}
	}
	src := rawSource(plainRaw)
	src.From.Address, src.Text, src.Subject = "other@example.com", "x", "y"
	_, err := Compile(src)
	for _, want := range []string{"from.address", "text: \"x\" is given beside raw", "subject: \"y\" is given beside raw"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestRawLinesOf998OctetsPass(t *testing.T) {
	r, err := compile(t, rawSource(plainRaw+strings.Repeat("x", 998)+"\n.\n")).Render(t.Context(), job(""))
	if err != nil || !strings.HasSuffix(string(r.Bytes), strings.Repeat("x", 998)+"\r\n.\r\n") {
		t.Errorf("%v", err)
	}
}
