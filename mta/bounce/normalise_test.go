package bounce

import (
	"strings"
	"testing"

	"github.com/veredus/veredus/mta/smtpc"
)

func TestNormalise(t *testing.T) {
	for text, want := range map[string]string{
		"<John.Doe+x@Example.COM>: Recipient address rejected: User unknown": "<addr> recipient address rejected user unknown",
		"Client host [192.0.2.10] blocked using zen.spamhaus.org":            "client host <ip> blocked using spamhaus.org",
		"IPv6:2001:db8::1 refused":                                           "<ip> refused",
		"see http://mx.example.com/a?b=c for help":                           "see <url> for help",
		"https://support.google.com/mail/?p=NoSuchUser ab12cd34ef - gsmtp":   "<url> google.com mail nosuchuser <id> gsmtp",
		"(S3140) [TSS04] OFR_506 AUP#1310 RP-001":                            "s3140 tss04 ofr_506 aup#1310 rp-001",
		"doesn't exist, l'adresse n’existe pas":                              "doesnt exist l adresse n existe pas",
		"Boîte aux lettres pleine, Empfänger überfüllt, größe":               "boite aux lettres pleine empfanger uberfullt grosse",
		"Bo\xeete pleine": "boite pleine",
		"Пользователь НЕ найдён":                       "пользователь не найден",
		"メールボックスがいっぱいです。":                              "メールボックスがいっぱいです",
		"over-quota over_quota OverQuota e-mail":       "over quota over quota overquota email",
		"at 12:34:56 on 2026-01-31, 3 of 100 messages": "at <time> on <time> <n> of <n> messages",
		"mailbox is full.Please try later":             "mailbox is full please try later",
		"#5.1.1 smtp;550 5.7.1":                        "5.1.1 smtp <n> 5.7.1",
		"":                                             "",
		"...---!!!":                                    "",
		"to:user@example.com":                          "to <addr>",
		"domain mail.example.co.uk not found":          "domain <host> not found",
	} {
		if got := Normalise(text); got != want {
			t.Errorf("%q\n got  %q\n want %q", text, got, want)
		}
	}
}

// TestNormalFormIsStable: a normal form is its own normal form, so that stored
// forms can be qualified again and phrases may be copied from them.
func TestNormalFormIsStable(t *testing.T) {
	for _, s := range loadSamples(t) {
		once := Normalise(s.reply)
		if twice := Normalise(once); twice != once {
			t.Errorf("%q\n once  %q\n twice %q", s.reply, once, twice)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	for _, seed := range []string{"", "550 5.1.1 <a@b.c> unknown", "\xff\xfe\x80", "https://:::@", "a@", "....", "<addr", "1:2:3:4:5", "www.", strings.Repeat("a.", 3000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Normalise(text)
		if len(got) > 3*maxText+16 {
			t.Fatalf("%d bytes from %d", len(got), len(text))
		}
		for i := range len(got) {
			if c := got[i]; c < ' ' || c >= 'A' && c <= 'Z' || c == '@' {
				t.Fatalf("byte %q stands in %q", c, got)
			}
		}
		if strings.HasPrefix(got, " ") || strings.Contains(got, "  ") {
			t.Fatalf("blanks in %q", got)
		}
	})
}

func FuzzQualify(f *testing.F) {
	f.Add(uint8(8), 550, "5.1.1", "user unknown", "google", "mx.google.com")
	f.Add(uint8(0), 0, "", "connection reset", "", "")
	f.Add(uint8(200), -1, "9.9.9", strings.Repeat("mailbox user full quota ", 300), "", "")
	table := Default()
	f.Fuzz(func(t *testing.T, phase uint8, code int, enhanced, text, provider, host string) {
		in := Input{Reply: smtpc.Reply{Phase: smtpc.Phase(phase), Code: code, Enhanced: enhanced, Text: text}, Provider: provider, Host: host}
		v := table.Qualify(in)
		switch {
		case v.Rule == "":
			t.Fatal("no rule decided")
		case !in.Reply.Permanent() && v.Address == AddressSuppress:
			t.Fatalf("suppressed without a 5xx by %s", v.Rule)
		case v.Disposition != Delivered && v.Name == "":
			t.Fatalf("a failure without a code by %s", v.Rule)
		case v.RetryAfter != 0 && (v.RetryAfter < minDelay || v.RetryAfter > maxDelay):
			t.Fatalf("delay %v", v.RetryAfter)
		}
		if e := table.Explain(in); e.Verdict != v {
			t.Fatalf("explained as %+v, qualified as %+v", e.Verdict, v)
		}
		ParseReply(text)
	})
}
