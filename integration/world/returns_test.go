package world

import (
	"bytes"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

var returning = []Fate{FateOOBUnknown, FateOOBFull, FateComplaint, FateUnsubscribe, FateAutoReply}

func TestReturningMailboxesAcceptAndSayWhatComesBack(t *testing.T) {
	w := Default()
	for _, r := range w.Receivers {
		if !r.HasHosts() {
			continue
		}
		domain := r.Domains[0].Name
		m := model(t, w, r.Name)
		now := begin.Add(30 * time.Minute) // after the flapping host's outage
		for _, fate := range returning {
			s, _ := m.Connect(now, alice, r.Hosts[0].NameFor(domain))
			s.Secured()
			to := strings.ToUpper(string(fate)) + "+x@" + domain
			d := send(s, now, bounce, to)
			s.Close()
			if !d.Accepted || d.Code != 250 || len(d.Returns) != 1 {
				t.Errorf("%s: %s: %v, %d returns", r.Name, to, d, len(d.Returns))
				continue
			}
			got := d.Returns[0]
			if got.Fate != fate || got.Recipient != to || got.ReturnPath != bounce || got.Source != alice || got.Host == "" || got.ID == "" || !got.Accepted.Equal(now) {
				t.Errorf("%s: %s: %+v", r.Name, to, got)
			}
		}
		for _, quiet := range []string{"ok", "drop", "spam"} {
			s, _ := m.Connect(now, alice, r.Hosts[0].NameFor(domain))
			s.Secured()
			if d := send(s, now, bounce, quiet+"@"+domain); len(d.Returns) != 0 {
				t.Errorf("%s: %s@ returns %v", r.Name, quiet, d.Returns)
			}
			s.Close()
		}
	}
}

func TestMailboxesByShareReturnToo(t *testing.T) {
	m := model(t, one(Receiver{Mailboxes: map[Fate]int{FateComplaint: 500, FateAutoReply: 500}}), "x")
	s := connect(t, m, begin, alice)
	count := map[Fate]int{}
	for i := range 200 {
		d := send(s, begin, bounce, "reader"+strings.Repeat("x", i)+"@x.example")
		for _, r := range d.Returns {
			count[r.Fate]++
		}
	}
	if count[FateComplaint] < 50 || count[FateAutoReply] < 50 || len(count) != 2 {
		t.Errorf("%v", count)
	}
}

func TestReturningMailboxesSeeNoHiddenRate(t *testing.T) {
	for _, at := range []Stage{AtRcpt, AtEndOfData} {
		m := model(t, one(Receiver{Hidden: Hidden{MessageRate: Rate{Count: 1, Per: minute}, At: at}}), "x")
		s := connect(t, m, begin, alice)
		for range 5 {
			if d := send(s, begin, bounce, "complaint@x.example"); !d.Accepted {
				t.Errorf("%s: %v", at, d)
			}
		}
	}
}

const originalHeader = "From: \"Brand\" <news@sender.example>\r\nTo: <Ann@x.example>\r\nSubject: =?utf-8?Q?H=C3=A9?=\r\n =?utf-8?Q?_there?=\r\n" +
	"Message-ID: <m1@sender.example>\r\n"

func returnOf(fate Fate, dialect string) Return {
	return Return{
		Fate: fate, Recipient: "Ann@x.example", ReturnPath: bounce, Host: "mx.x.example", Source: netip.MustParseAddr("127.0.0.1"),
		Dialect: dialect, ID: "Q1", Accepted: begin,
	}
}

func TestComposeIsDeterministicAndFit(t *testing.T) {
	for dialect := range manners {
		for _, fate := range returning {
			header := originalHeader + "List-Unsubscribe: <mailto:u@bounce.sender.example?subject=t1>\r\n"
			r := returnOf(fate, dialect)
			out, err := r.Compose([]byte(header), begin.Add(time.Second))
			again, _ := r.Compose([]byte(header), begin.Add(time.Second))
			if err != nil || !bytes.Equal(out.Content, again.Content) {
				t.Errorf("%s %s: %v, or two different mails", dialect, fate, err)
			}
			checkMail(t, out)
			if fate == FateOOBUnknown && (out.From != "" || out.To != bounce) || fate == FateAutoReply && out.From != "" || fate == FateComplaint && out.To != "fbl@bounce.sender.example" {
				t.Errorf("%s %s: from <%s> to <%s>", dialect, fate, out.From, out.To)
			}
		}
	}
}

// checkMail checks that a mail is whole and can go over the wire.
func checkMail(t *testing.T, out Outgoing) {
	t.Helper()
	if out.URL != "" {
		return
	}
	text := strings.ReplaceAll(string(out.Content), "\r\n", "")
	head, _, ok := strings.Cut(string(out.Content), "\r\n\r\n")
	if !ok || strings.ContainsAny(text, "\r\n\x00") || !validMailbox(out.To) || out.From != "" && !validMailbox(out.From) {
		t.Errorf("from %q to %q:\n%s", out.From, out.To, out.Content)
	}
	for line := range strings.SplitSeq(head, "\r\n") {
		name, _, ok := strings.Cut(line, ":")
		if line[0] != ' ' && line[0] != '\t' && (!ok || name == "" || strings.ContainsAny(name, " {}")) {
			t.Errorf("header line %q", line)
		}
	}
}

func TestFormsHaveNoUnknownNames(t *testing.T) {
	for dialect := range manners {
		for _, fate := range returning {
			out, err := returnOf(fate, dialect).Compose([]byte("List-Unsubscribe: <mailto:u@s.example>\r\n"), begin)
			if err != nil || bytes.ContainsAny(out.Content, "{}") {
				t.Errorf("%s %s: %v\n%s", dialect, fate, err, out.Content)
			}
		}
	}
}

func TestUnsubscribeFollowsTheMessage(t *testing.T) {
	const (
		post = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
		here = "https://127.0.0.1:8443/u/t0k"
	)
	for _, tc := range []struct {
		name, dialect, header string
		want                  Outgoing // Content is a subject
	}{
		{"mail", "postfix", "List-Unsubscribe: <mailto:u@s.example?subject=a%20b>\r\n", Outgoing{From: "Ann@x.example", To: "u@s.example", Content: []byte("a b")}},
		{"a plus is a plus", "postfix", "List-Unsubscribe: <mailto:u%2Bx@s.example?subject=a+b>\r\n", Outgoing{From: "Ann@x.example", To: "u+x@s.example", Content: []byte("a+b")}},
		{"no subject", "postfix", "List-Unsubscribe: <mailto:u@s.example>\r\n", Outgoing{From: "Ann@x.example", To: "u@s.example", Content: []byte("unsubscribe")}},
		{"both, prefers mail", "postfix", "List-Unsubscribe: <" + here + ">,\r\n <mailto:u@s.example>\r\n" + post, Outgoing{From: "Ann@x.example", To: "u@s.example", Content: []byte("unsubscribe")}},
		{"both, prefers one click", "gmail", "List-Unsubscribe: <mailto:u@s.example>,\r\n <" + here + ">\r\n" + post, Outgoing{URL: here}},
		{"link only", "postfix", "List-Unsubscribe: <" + here + ">\r\n" + post, Outgoing{URL: here}},
		{"a link elsewhere", "gmail", "List-Unsubscribe: <https://s.example/u>, <mailto:u@s.example>\r\n" + post, Outgoing{From: "Ann@x.example", To: "u@s.example", Content: []byte("unsubscribe")}},
		{"only a link elsewhere", "gmail", "List-Unsubscribe: <https://s.example/u>\r\n" + post, Outgoing{}},
		{"a link without one click", "gmail", "List-Unsubscribe: <" + here + ">\r\n", Outgoing{}},
		{"nothing", "gmail", "Subject: x\r\n", Outgoing{}},
		{"injection", "postfix", "List-Unsubscribe: <mailto:u@s.example?subject=a%0d%0aBcc:b@c.example>\r\n", Outgoing{From: "Ann@x.example", To: "u@s.example", Content: []byte("a  Bcc:b@c.example")}},
		{"an address that is none", "postfix", "List-Unsubscribe: <mailto:u%0d%0a@s.example>\r\n", Outgoing{}},
	} {
		out, err := returnOf(FateUnsubscribe, tc.dialect).Compose([]byte(tc.header), begin)
		if tc.want.To == "" && tc.want.URL == "" {
			if !errors.Is(err, ErrNothing) {
				t.Errorf("%s: %+v, %v, want nothing", tc.name, out, err)
			}
			continue
		}
		subject := HeaderField(out.Content, "subject", 100)
		if err != nil || out.From != tc.want.From || out.To != tc.want.To || out.URL != tc.want.URL || subject != string(tc.want.Content) {
			t.Errorf("%s: from %q to %q url %q subject %q, %v", tc.name, out.From, out.To, out.URL, subject, err)
		}
	}
}

func TestNothingComesBackToNobody(t *testing.T) {
	for _, from := range []string{"", "bounce", "@x", "a b@c.example"} {
		r := returnOf(FateOOBUnknown, "gmail")
		r.ReturnPath = from
		if _, err := r.Compose(nil, begin); !errors.Is(err, ErrNothing) {
			t.Errorf("return path %q: %v", from, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	for link, want := range map[string]bool{
		"http://127.0.0.1:1/u": true, "https://localhost/u": true, "https://[::1]:2/u": true, "https://127.8.9.1/": true,
		"https://example.com/": false, "https://127.0.0.1.example.com/": false, "ftp://127.0.0.1/": false, "mailto:a@127.0.0.1": false, "https://10.0.0.1/": false,
	} {
		u, err := url.Parse(link)
		if err != nil || Loopback(u) != want {
			t.Errorf("Loopback(%s) = %v, %v", link, !want, err)
		}
	}
}

func TestHeaderBlockKeepsTheHeaderOnly(t *testing.T) {
	if got := string(HeaderBlock([]byte("A: b\r\nC: d\n e\r\n\r\nBody: no\r\n"))); got != "A: b\r\nC: d\r\n e\r\n" {
		t.Errorf("%q", got)
	}
	if got := HeaderBlock(bytes.Repeat([]byte("X: 0123456789\r\n"), 10_000)); len(got) > maxHeaderBlock+20_000 || len(got) < maxHeaderBlock/2 || !bytes.HasSuffix(got, []byte("9\r\n")) {
		t.Errorf("%d octets kept", len(got))
	}
}

// FuzzCompose reads hostile headers and envelopes.
func FuzzCompose(f *testing.F) {
	f.Add(originalHeader+"List-Unsubscribe: <mailto:u@s.example?subject=x>\r\n", bounce, "Ann@x.example", "gmail")
	f.Add("List-Unsubscribe: <https://127.0.0.1/u>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n", "", "jürgen@x.example", "outlook")
	f.Add("Subject: {header}\r\nMessage-ID: \r\r\n\x00", "{from}@{rcpt}", "{id}@x", "yahoo")
	f.Fuzz(func(t *testing.T, content, from, to, dialect string) {
		header := HeaderBlock([]byte(content))
		for _, fate := range returning {
			if strings.ContainsAny(to+from, "\r\n\x00<>") || !validMailbox(to) {
				return // no server takes such an envelope
			}
			r := returnOf(fate, dialect)
			r.ReturnPath, r.Recipient = from, to
			out, err := r.Compose(header, begin)
			if err != nil {
				continue
			}
			text := strings.ReplaceAll(string(out.Content), "\r\n", "")
			if strings.ContainsAny(text, "\r\n\x00") || strings.ContainsAny(out.From+out.To+out.URL, "\r\n\x00 ") {
				t.Fatalf("%s: %+v", fate, out)
			}
		}
	})
}

func BenchmarkCompose(b *testing.B) {
	header := []byte(originalHeader + strings.Repeat("X-Filler: 0123456789012345678901234567890123456789\r\n", 40))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := returnOf(FateOOBUnknown, "gmail").Compose(header, begin); err != nil {
			b.Fatal(err)
		}
	}
}
