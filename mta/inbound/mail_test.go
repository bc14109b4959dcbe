package inbound

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/bounce"
)

func TestParseReadsBrokenMIME(t *testing.T) {
	cases := []struct {
		name, raw, text string
		malformed       []string
	}{
		{"plain", "Subject: x\n\nhello\n", "hello\n", nil},
		{"CRLF and a From_ line", "From a@b Thu Apr 29 23:34:45 2010\r\nSubject: x\r\n\r\nhello\r\n", "hello\n", nil},
		{"no header at all", "hello\nworld\n", "hello\nworld\n", nil},
		{"a blank line first", "\n\nSubject: x\n\nhello\n", "hello\n", nil},
		{"boundary not given", "Content-Type: multipart/mixed\n\npreamble\n--abc\nContent-Type: text/plain\n\nhello\n--abc--\n", "hello\n", []string{"boundary"}},
		{"wrong boundary", "Content-Type: multipart/mixed; boundary=zzz\n\n--abc\nContent-Type: text/plain\n\nhello\n--abc--\n", "hello\n", []string{"boundary"}},
		{"no boundary anywhere", "Content-Type: multipart/mixed\n\nhello\n", "hello\n", []string{"boundary"}},
		{"unterminated", "Content-Type: multipart/mixed; boundary=abc\n\n--abc\nContent-Type: text/plain\n\nhello\n", "hello\n", []string{"unterminated"}},
		{"base64 with rubbish", "Content-Transfer-Encoding: base64\n\naGVs\n!bG8\n", "hello", nil},
		{"quoted-printable with rubbish", "Content-Transfer-Encoding: quoted-printable\n\nh=65llo =\nyou=ZZ\n", "hello you=ZZ\n", nil},
		{"unknown character set", "Content-Type: text/plain; charset=x-mine\n\nh\xe9llo\n", "héllo\n", nil},
		{"ISO-2022-JP without a label", "Subject: x\n\n\x1b$B$\"\x1b(B\n", "あ\n", nil},
		{"broken content type", "Content-Type: text/plain; charset=utf-8; =;;\n\nhello\n", "hello\n", nil},
		{"HTML", "Content-Type: text/html\n\n<head><title>no</title></head><body>hel<b>lo</b><br>you&amp;me<script>no</script></body>", "\nhello \nyou&me \n", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := Parse([]byte(c.raw), Limits{})
			text := ""
			m.Root.walk(func(p *Part) bool { text += p.Text; return true })
			if c.name == "HTML" {
				text, c.text = strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(c.text), " ")
			}
			if text != c.text {
				t.Errorf("text %q, want %q", text, c.text)
			}
			if !slices.Equal(m.Malformed, c.malformed) {
				t.Errorf("malformed %q, want %q", m.Malformed, c.malformed)
			}
		})
	}
}

func TestHeaderFolding(t *testing.T) {
	h := Parse([]byte("Subject: one\n two\n\tthree\nX-Empty:\nx-empty: again\nSubject: later\n\n"), Limits{}).Root.Header
	if got := h.Get("SUBJECT"); got != "one two three" {
		t.Errorf("Subject %q", got)
	}
	if got := h.All("X-Empty"); !slices.Equal(got, []string{"", "again"}) || !h.Has("X-EMPTY") || h.Len() != 4 {
		t.Errorf("X-Empty %q of %d fields", got, h.Len())
	}
}

// hostileMails are mails that try to cost much or to confuse.
func hostileMails() map[string][]byte {
	nested := func(n int) []byte {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
		}
		return b.Bytes()
	}
	return map[string][]byte{
		"multiparts in multiparts":  nested(20000),
		"messages in messages":      bytes.Repeat([]byte("Content-Type: message/rfc822\n\n"), 50000),
		"a hundred thousand parts":  append([]byte("Content-Type: multipart/mixed; boundary=b\n\n"), bytes.Repeat([]byte("--b\n\nx\n"), 100000)...),
		"a hundred thousand fields": bytes.Repeat([]byte("X-A: b\n"), 100000),
		"one endless field":         append([]byte("Subject: x\n"), bytes.Repeat([]byte(" y\n"), 500000)...),
		"one endless line":          append([]byte("Subject: x\n\n"), bytes.Repeat([]byte("a"), 3<<20)...),
		"nothing but at signs":      append([]byte("From: MAILER-DAEMON@x.example\n\n"), bytes.Repeat([]byte("@"), 1<<20)...),
		"many recipients":           append([]byte("From: MAILER-DAEMON@x.example\nSubject: failure notice\n\n"), manyLines("<u%d@x.example>: 550 unknown\n", 50000)...),
		"many status groups":        append([]byte("Content-Type: message/delivery-status\n\n"), manyLines("Final-Recipient: rfc822; u%d@x.example\nAction: failed\nStatus: 5.1.1\n\n", 50000)...),
		"many headers in the text":  append([]byte("From: MAILER-DAEMON@x.example\n\n"), bytes.Repeat([]byte("To: a\n"+strings.Repeat(" b\n", 50)), 2000)...),
		"fifty megabytes":           append([]byte("From: MAILER-DAEMON@x.example\nSubject: failure notice\n\n<a@x.example>:\n550 unknown user\n\n"), make([]byte, 50<<20)...),
		"deep brackets":             append([]byte("From: MAILER-DAEMON@x.example\n\n"), bytes.Repeat([]byte("[<(\"'"), 200000)...),
		"HTML without an end":       append([]byte("Content-Type: text/html\n\n"), bytes.Repeat([]byte("<table><tr><td a=\""), 50000)...),
		"encoded words":             append([]byte("Subject: "), bytes.Repeat([]byte("=?utf-8?q?=?="), 10000)...),
		"only NUL":                  make([]byte, 1<<20),
	}
}

func manyLines(format string, n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.Bytes()
}

func TestHostileMailsAreBounded(t *testing.T) {
	c := NewClassifier(bounce.Default(), testKeys(t, 1))
	limits := Limits{}.orDefault()
	for name, raw := range hostileMails() {
		t.Run(name, func(t *testing.T) {
			m := Parse(raw, Limits{})
			parts, deepest := measure(m.Root, 1)
			if parts > limits.Parts+limits.Depth || deepest > limits.Depth+1 {
				t.Errorf("%d parts, %d deep", parts, deepest)
			}
			r := c.Classify(m, Envelope{})
			if len(r.Recipients) > maxRecipients {
				t.Errorf("%d recipients", len(r.Recipients))
			}
			if r.Attribution.Place != PlaceNone {
				t.Errorf("attributed: %+v", r.Attribution)
			}
		})
	}
}

func TestLimitsAreNamed(t *testing.T) {
	hostile := hostileMails()
	for name, want := range map[string]Limit{
		"multiparts in multiparts": LimitDepth, "messages in messages": LimitDepth, "a hundred thousand parts": LimitParts,
		"a hundred thousand fields": LimitFields, "fifty megabytes": LimitBytes, "one endless line": LimitText,
	} {
		r := NewClassifier(bounce.Default(), nil).Classify(Parse(hostile[name], Limits{}), Envelope{})
		if !slices.Contains(r.Limited, want) {
			t.Errorf("%s: limited %v, want %s", name, r.Limited, want)
		}
	}
	r := NewClassifier(bounce.Default(), nil).Classify(Parse(hostile["fifty megabytes"], Limits{}), Envelope{})
	if r.Kind != KindBounce || len(r.Recipients) != 1 || r.Recipients[0].Verdict.Code != bounce.CodeInvalidRecipient {
		t.Errorf("the bounce at the head of fifty megabytes was not read: %+v", r)
	}
}

func measure(p *Part, depth int) (parts, deepest int) {
	parts, deepest = 1, depth
	for _, c := range p.Parts {
		n, d := measure(c, depth+1)
		parts, deepest = parts+n, max(deepest, d)
	}
	return parts, deepest
}

func TestMails(t *testing.T) {
	raw, err := os.ReadFile("testdata/mails/set-of-emails--bsd-rfc3464-28.eml")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(Mails(raw)); n != 2 {
		t.Errorf("%d mails in a mailbox of 2", n)
	}
	if n := len(Mails([]byte("Subject: x\n\nFrom a@b Thu Apr 29 23:34:45 2010\nSubject: y\n\n"))); n != 1 {
		t.Errorf("%d mails in one mail", n)
	}
}

func FuzzClassify(f *testing.F) {
	for _, c := range slices.Concat(bounceForms, otherForms) {
		f.Add([]byte(c.header + "\n\n" + c.body))
	}
	f.Add(bounceOf("a@b.example", "x@y.example", "<https://x.example/>"))
	f.Add([]byte("Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/global-delivery-status\nContent-Transfer-Encoding: base64\n\nRmluYWwtUmVjaXBpZW50OiB1dGYtODsgw6lAeC5leGFtcGxlCg==\n--b--"))
	f.Add([]byte("Subject: \xe9\nMessage-ID: <\xe9@x>\nContent-Type: message/feedback-report\n\nFeedback-Type: \xe9\nOriginal-Rcpt-To: <\xe9@x.example>\n"))
	c := NewClassifier(bounce.Default(), testKeys(f, 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := Parse(raw, Limits{Bytes: 64 << 10, Depth: 4, Parts: 20, Fields: 50})
		if parts, deepest := measure(m.Root, 1); parts > 24 || deepest > 5 {
			t.Fatalf("%d parts, %d deep", parts, deepest)
		}
		r := c.Classify(m, Envelope{})
		if r.Attribution.Place != PlaceNone {
			t.Fatalf("attributed without a token: %+v", r.Attribution)
		}
		if !utf8.ValidString(r.Original.MessageID + r.Original.From + r.Original.To + r.Original.Subject + r.FeedbackType) {
			t.Fatalf("not UTF-8: %+v", r.Original)
		}
		if r.Kind == KindOther && r.Why == "" {
			t.Fatal("other without a reason")
		}
		for _, x := range r.Recipients {
			if !utf8.ValidString(x.Address + x.Original + x.Diagnostic.Text + x.Status + x.RemoteMTA) {
				t.Fatalf("not UTF-8: %+v", x)
			}
			if x.Address == "" || x.Address != strings.ToLower(x.Address) || !strings.Contains(x.Address, "@") {
				t.Fatalf("recipient %q", x.Address)
			}
		}
		if got := bytes.Join(Mails(raw), nil); !bytes.Equal(got, raw) {
			t.Fatal("a mailbox lost bytes")
		}
	})
}

func FuzzFindAddresses(f *testing.F) {
	f.Add("a@b.c <\"x y\"@z.de> 宛先：ann@corp.example.net <é@x.fr> 'q@r.st': =?utf-8?B?8J+Q?=@example.org u@[192.0.2.1]")
	f.Fuzz(func(t *testing.T, text string) {
		end := 0
		for _, s := range findAddresses(text, 50) {
			if s.start < 0 || s.end > len(text) || s.start >= s.end || s.start < end-1 || !strings.Contains(s.address, "@") {
				t.Fatalf("%+v in %q", s, text)
			}
			end = s.end
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	for _, name := range []string{"lhost-postfix-31", "lhost-qmail-17", "arf-16", "lhost-office365-07"} {
		raw, err := os.ReadFile("testdata/mails/set-of-emails--bsd-" + name + ".eml")
		if err != nil {
			b.Fatal(err)
		}
		c := NewClassifier(bounce.Default(), testKeys(b, 1))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				c.Classify(Parse(raw, Limits{}), Envelope{})
			}
		})
	}
}
