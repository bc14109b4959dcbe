package bounce

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

// want is what a reply must lead to; zero fields of effects mean "none".
type want struct {
	code        int
	reason      Reason
	kind        Type
	disposition Disposition
	attempts    int
	address     AddressEffect
	path        PathEffect
	hold        Hold
	uncharged   bool
}

func check(t *testing.T, reply string, v Verdict, w want) {
	t.Helper()
	got := want{v.Code, v.Reason, v.Type, v.Disposition, v.MaxAttempts, v.Address, v.Path, v.Hold, !v.Charged}
	if got != w {
		t.Errorf("%s\n by %s (%s)\n got  %+v\n want %+v", reply, v.Rule, v.Tag, got, w)
	}
}

// TestWhatFollows walks through the kinds of replies and all that follows from each.
func TestWhatFollows(t *testing.T) {
	table := Default()
	for _, tc := range []struct {
		reply string
		phase smtpc.Phase
		want
	}{
		// the recipient
		{"550 5.1.1 User unknown", smtpc.PhaseRCPT, want{10, ReasonUserUnknown, TypeHard, Final, 0, AddressSuppress, PathNone, HoldNone, false}},
		{"450 4.1.1 User unknown", smtpc.PhaseRCPT, want{10, ReasonUserUnknown, TypeSoft, Retry, 0, AddressCount, PathNone, HoldNone, false}},
		{"550 5.4.1 Recipient address rejected: Access denied. [x.prod.protection.outlook.com]", smtpc.PhaseRCPT, want{10, ReasonUserUnknown, TypeHard, Final, 0, AddressSuppress, PathNone, HoldNone, false}},
		{"550 5.2.1 The email account that you tried to reach is disabled.", smtpc.PhaseRCPT, want{10, ReasonAccountDisabled, TypeHard, Final, 0, AddressSuppress, PathNone, HoldNone, false}},
		{"550 5.2.1 Mailbox temporarily disabled", smtpc.PhaseRCPT, want{20, ReasonAccountDisabled, TypeSoft, Final, 0, AddressCount, PathNone, HoldNone, false}},
		{"452 4.2.2 Mailbox full", smtpc.PhaseRCPT, want{22, ReasonMailboxFull, TypeSoft, Retry, 0, AddressCount, PathNone, HoldNone, false}},
		{"550 5.2.2 over quota", smtpc.PhaseRCPT, want{22, ReasonMailboxFull, TypeSoft, Retry, 0, AddressCount, PathNone, HoldNone, false}},
		{"550 5.1.1 Mailbox full", smtpc.PhaseRCPT, want{22, ReasonMailboxFull, TypeSoft, Retry, 0, AddressCount, PathNone, HoldNone, false}},
		{"550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered", smtpc.PhaseRCPT, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathNone, HoldNone, false}},
		{"550 5.1.2 Host unknown", smtpc.PhaseRCPT, want{21, ReasonInvalidDomain, TypeSoft, Final, 0, AddressCount, PathNone, HoldNone, false}},
		{"552 5.3.4 Message too big", smtpc.PhaseMAIL, want{23, ReasonRefused, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
		// the rate
		{"421 4.7.0 Too many connections from your IP", smtpc.PhaseGreeting, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathFewerConnections, HoldNone, true}},
		{"421 Max message per connection reached", smtpc.PhaseMAIL, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathFewerMessages, HoldNone, true}},
		{"451 4.7.1 Rate limit exceeded", smtpc.PhaseRCPT, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathSlow, HoldNone, true}},
		{"451 4.7.500 Server busy. Please try again later from [192.0.2.1].", smtpc.PhaseRCPT, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathRest, HoldNone, true}},
		{"421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints", smtpc.PhaseMAIL, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathRest, HoldNone, true}},
		{"451 4.7.1 Greylisting in action, please come back later", smtpc.PhaseRCPT, want{70, ReasonUnreachable, TypeIgnored, RetrySoon, 0, AddressNone, PathNone, HoldNone, false}},
		// our standing
		{"554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org", smtpc.PhaseRCPT, want{51, ReasonRefused, TypeIgnored, Retry, 3, AddressNone, PathRest, HoldNone, true}},
		{"550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. part of their network is on our block list (S3140).", smtpc.PhaseMAIL, want{51, ReasonRefused, TypeIgnored, Retry, 3, AddressNone, PathRest, HoldNone, true}},
		{"554 5.7.1 denied by policy", smtpc.PhaseRCPT, want{50, ReasonRefused, TypeIgnored, Retry, 3, AddressNone, PathRest, HoldNone, true}},
		{"554 denied", smtpc.PhaseRCPT, want{50, ReasonRefused, TypeIgnored, Retry, 3, AddressNone, PathRest, HoldNone, true}},
		{"550 relaying denied", smtpc.PhaseRCPT, want{54, ReasonRefused, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
		// authentication and content
		{"550 5.7.26 Unauthenticated email from example.com is not accepted due to domain's DMARC policy", smtpc.PhaseEndOfData, want{50, ReasonRefused, TypeIgnored, Final, 0, AddressNone, PathNone, HoldAuthentication, false}},
		{"550 5.7.515 Access denied, sending domain example.com does not meet the required authentication level", smtpc.PhaseEndOfData, want{50, ReasonRefused, TypeIgnored, Final, 0, AddressNone, PathNone, HoldAuthentication, false}},
		{"550 5.7.1 Message considered as spam", smtpc.PhaseEndOfData, want{52, ReasonRefused, TypeIgnored, Final, 0, AddressNone, PathNone, HoldContent, false}},
		{"552 5.7.0 Banned attachment", smtpc.PhaseEndOfData, want{53, ReasonRefused, TypeIgnored, Final, 0, AddressNone, PathNone, HoldContent, false}},
		// the codes alone
		{"550 5.1.1 kxqz", smtpc.PhaseRCPT, want{10, ReasonUserUnknown, TypeHard, Final, 0, AddressSuppress, PathNone, HoldNone, false}},
		{"550 5.7.1 kxqz", smtpc.PhaseRCPT, want{1, ReasonUnreachable, TypeSoft, Retry, 2, AddressNone, PathNone, HoldNone, false}},
		{"550 kxqz", smtpc.PhaseRCPT, want{1, ReasonUnreachable, TypeSoft, Retry, 2, AddressNone, PathNone, HoldNone, false}},
		{"451 kxqz", smtpc.PhaseRCPT, want{70, ReasonUnreachable, TypeIgnored, Retry, 0, AddressNone, PathNone, HoldNone, false}},
		{"550 5.5.0 kxqz", smtpc.PhaseRCPT, want{1, ReasonUnreachable, TypeSoft, Retry, 2, AddressNone, PathNone, HoldNone, false}},
		// before MAIL everything is the path's
		{"554 5.7.1 kxqz", smtpc.PhaseGreeting, want{1, ReasonUnreachable, TypeSoft, Retry, 0, AddressNone, PathRest, HoldNone, true}},
		{"550 5.1.1 User unknown", smtpc.PhaseMAIL, want{50, ReasonRefused, TypeIgnored, Retry, 3, AddressNone, PathNone, HoldNone, false}},
	} {
		r := ParseReply(tc.reply)
		r.Phase = tc.phase
		check(t, tc.reply, table.Qualify(Input{Reply: r}), tc.want)
	}
}

func TestPositiveReplies(t *testing.T) {
	for _, reply := range []string{"250 2.0.0 Ok: queued as 12345", "354 go ahead", "250 user unknown"} {
		v := Default().Qualify(Input{Reply: ParseReply(reply)})
		if v.Disposition != Delivered || v.Code != 0 || v.Address != AddressNone || v.BounceType != BounceNone || v.WillRetry() {
			t.Errorf("%s: %+v", reply, v)
		}
	}
}

func TestMissingReplies(t *testing.T) {
	for _, tc := range []struct {
		phase   smtpc.Phase
		cause   string
		charged bool
	}{
		{smtpc.PhaseDNS, "lookup example.com: i/o timeout", false},
		{smtpc.PhaseConnect, "connect: connection refused", false},
		{smtpc.PhaseTLS, "x509: certificate has expired", false},
		{smtpc.PhaseRCPT, "connection reset by peer", true},
		{smtpc.PhaseEndOfData, "i/o timeout", true},
	} {
		v := Default().Qualify(NoReply(tc.phase, tc.cause))
		if v.Disposition != Retry || v.MaxAttempts != 0 || v.Address != AddressNone || v.Charged != tc.charged {
			t.Errorf("%s in %s: %+v", tc.cause, tc.phase, v)
		}
	}
}

func TestFailuresOfOurOwn(t *testing.T) {
	last := Default().Qualify(Input{Reply: ParseReply("452 4.2.2 mailbox full")})
	for _, tc := range []struct {
		name string
		v    Verdict
		tag  string
		want
	}{
		{"expired", Expired(last), "mailbox_full", want{24, ReasonUnreachable, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
		{"expired, never attempted", Expired(Verdict{}), "timeout", want{24, ReasonUnreachable, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
		{"NXDOMAIN", UnknownDomain(), "domain_unknown", want{21, ReasonInvalidDomain, TypeSoft, Final, 0, AddressCount, PathNone, HoldNone, false}},
		{"null MX", NullMX(), "null_mx", want{10, ReasonUserUnknown, TypeHard, Final, 0, AddressSuppress, PathNone, HoldNone, false}},
		{"denylisted", Suppressed(ReasonDenylisted), "suppressed", want{25, ReasonDenylisted, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
		{"rendering", RenderFailed(), "render_failed", want{25, ReasonUnreachable, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
		{"crashes", CrashLoop(), "crash_loop", want{25, ReasonUnreachable, TypeIgnored, Final, 0, AddressNone, PathNone, HoldNone, false}},
	} {
		check(t, tc.name, tc.v, tc.want)
		if tc.v.Tag != tc.tag || !strings.HasPrefix(tc.v.Rule, "own:") {
			t.Errorf("%s: tag %q by %q", tc.name, tc.v.Tag, tc.v.Rule)
		}
	}
}

func TestNamedDelay(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Greylisted, please try again in 300 seconds":            5 * time.Minute,
		"Greylisting in action, please come back in 00:04:56":    4*time.Minute + 56*time.Second,
		"try again in 10 minutes":                                10 * time.Minute,
		"retry in 5min":                                          5 * time.Minute,
		"please wait 1 hour":                                     time.Hour,
		"try again in 5 seconds":                                 time.Minute,
		"retry after 40 hours":                                   12 * time.Hour,
		"retry-after: 600":                                       10 * time.Minute,
		"Veuillez réessayer dans 15 minutes":                     15 * time.Minute,
		"Bitte in 20 Minuten erneut versuchen":                   0,
		"more than 100 messages in 60 minutes":                   0,
		"try again later":                                        0,
		"greylisted for 7 minutes":                               7 * time.Minute,
		"Too many connections, retry later (see 192.0.2.1)":      0,
		"again 99999999999999999999 minutes":                     12 * time.Hour,
		"повторите через 10 минут":                               10 * time.Minute,
		"请于稍后 5 分钟重试":                                            5 * time.Minute,
		"retry " + strings.Repeat("9", 2000) + " minutes please": 0,
	} {
		if got := namedDelay(text); got != want {
			t.Errorf("%.60s: %v, want %v", text, got, want)
		}
	}
	v := Default().Qualify(Input{Reply: ParseReply("450 4.2.0 Greylisted for 10 minutes")})
	if v.Disposition != RetrySoon || v.RetryAfter != 10*time.Minute {
		t.Errorf("greylisted for 10 minutes: %v after %v", v.Disposition, v.RetryAfter)
	}
}

func TestProviderScope(t *testing.T) {
	rules := `
rules:
  - id: own.google
    match: {text: ["strange words"], provider: [google]}
    tag: rate_limit
`
	table, err := Load([]byte(rules), "own.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		in      Input
		matches bool
	}{
		{Input{Reply: ParseReply("550 strange words")}, false},
		{Input{Reply: ParseReply("550 strange words"), Provider: "google"}, true},
		{Input{Reply: ParseReply("550 strange words - gsmtp"), Provider: "yahoo"}, false},
		{Input{Reply: ParseReply("550 strange words"), Host: "ALT1.ASPMX.L.Google.com"}, true},
		{Input{Reply: ParseReply("550 strange words q2-gsmtp - gsmtp")}, true},
	} {
		if got := table.Qualify(tc.in).Rule == "own.google"; got != tc.matches {
			t.Errorf("%+v: matched %v", tc.in, got)
		}
	}
}

func TestDomainScope(t *testing.T) {
	table, err := Load([]byte("rules: [{id: own.d, match: {code: [5xx], domain: [example.com, .example.org]}, tag: policy}]"), "own.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for domain, matches := range map[string]bool{"Example.com": true, "a.example.com": false, "a.example.org": true, "example.org": false, "": false} {
		if got := table.Qualify(Input{Reply: ParseReply("550 kxqz"), Domain: domain}).Rule == "own.d"; got != matches {
			t.Errorf("%q: matched %v", domain, got)
		}
	}
}

func TestParseReply(t *testing.T) {
	for line, want := range map[string]smtpc.Reply{
		"550 5.1.1 User unknown":                          {Code: 550, Enhanced: "5.1.1", Text: "User unknown"},
		"550-5.1.1 The account\n550 5.1.1 does not exist": {Code: 550, Enhanced: "5.1.1", Text: "The account\ndoes not exist"},
		"550 #5.1.0 Address rejected":                     {Code: 550, Enhanced: "5.1.0", Text: "Address rejected"},
		"421":                                             {Code: 421},
		"user unknown":                                    {Text: "user unknown"},
		"5501 x":                                          {Text: "5501 x"},
		"550 5.1.1.1 x":                                   {Code: 550, Text: "5.1.1.1 x"},
		"  554 no":                                        {Code: 554, Text: "no"},
		"":                                                {},
		"550-first\r\n550-second\r\n550 third":            {Code: 550, Text: "first\nsecond\nthird"},
		"451 4.7.650 The mail server [192.0.2.1] is limited": {Code: 451, Enhanced: "4.7.650", Text: "The mail server [192.0.2.1] is limited"},
	} {
		if got := ParseReply(line); got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	table := Default()
	for _, s := range loadSamples(t) {
		in := Input{Reply: ParseReply(s.reply)}
		e := table.Explain(in)
		last := e.Steps[len(e.Steps)-1]
		if e.Verdict != table.Qualify(in) || !last.Matched || last.Rule != e.Verdict.Rule {
			t.Fatalf("%s: decided by %s, explained as %+v", s.reply, e.Verdict.Rule, e.Steps)
		}
	}
	e := table.Explain(Input{Reply: ParseReply("550 5.7.1 <user@example.com>: mailbox full")})
	if e.Normalised != "<addr> mailbox full" || e.Enhanced != "5.7.1" {
		t.Errorf("explained as %+v", e)
	}
}

// TestConcurrentUse lets many goroutines share one table; run with -race.
func TestConcurrentUse(t *testing.T) {
	table := Default()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				if v := table.Qualify(Input{Reply: ParseReply("550 5.1.1 User unknown")}); v.Code != 10 {
					t.Errorf("code %d", v.Code)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		ReasonUserUnknown.String(): "User unknown", ReasonInQuarantine.String(): "In quarantine", Reason(99).String(): "(99)",
		TypeIgnored.String(): "ignored", RetrySoon.String(): "retry_soon", AddressSuppress.String(): "suppress",
		PathFewerConnections.String(): "fewer_connections", HoldAuthentication.String(): "authentication",
		BounceUndetermined.String(): "undetermined", Disposition(9).String(): "(9)", CodeName(51): "Spam block", CodeName(2): "",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, c := range codeTable {
		if CodeName(c.code) == "" || CodeType(c.code) == BounceNone {
			t.Errorf("code %d has no name or category", c.code)
		}
	}
}

// A 421 ends the session (RFC 5321 section 3.8): unless its words are about the
// mailbox or the message, the path pays and the message does not.
func TestClosingChannelIsThePathsTrouble(t *testing.T) {
	cases := []struct {
		reply   string
		phase   smtpc.Phase
		charged bool
		path    PathEffect
	}{
		{"421 4.3.2 Service not available, closing transmission channel", smtpc.PhaseMAIL, false, PathSlow},
		{"421 Service closing transmission channel", smtpc.PhaseRCPT, false, PathSlow},
		{"421 4.3.0 Temporary System Problem. Try again later", smtpc.PhaseDATA, false, PathSlow},
		{"421 4.4.2 Error: timeout exceeded", smtpc.PhaseEndOfData, false, PathSlow},
		{"421", smtpc.PhaseMAIL, false, PathSlow},
		{"421 frobnicated", smtpc.PhaseMAIL, false, PathSlow},
		{"421 4.7.0 Too many connections from your host", smtpc.PhaseMAIL, false, PathFewerConnections},
		{"421 4.2.2 mailbox full", smtpc.PhaseRCPT, true, PathNone},
		{"421 4.2.1 The user you are trying to contact is receiving mail too quickly", smtpc.PhaseRCPT, true, PathNone},
		{"421 4.7.1 Greylisted, please try again", smtpc.PhaseRCPT, true, PathNone},
		{"421 4.7.0 This message is suspicious due to the nature of the content", smtpc.PhaseEndOfData, true, PathNone},
		{"451 4.3.0 Temporary System Problem. Try again later", smtpc.PhaseMAIL, false, PathSlow}, // nobody was named yet
		{"451 4.3.0 Temporary System Problem. Try again later", smtpc.PhaseRCPT, true, PathNone},
	}
	for _, c := range cases {
		in := Input{Reply: ParseReply(c.reply)}
		in.Reply.Phase = c.phase
		v := Default().Qualify(in)
		if v.Charged != c.charged || v.Path != c.path || !v.WillRetry() {
			t.Errorf("%s at %s: %+v", c.reply, c.phase, v)
		}
	}
}

// A number that begins an identifier is no delay, whatever letters follow it.
func TestIdentifiersAreNoDelays(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Please try again later. [2HRI25E0BO3UF.outlook.com]": 0,
		"try again later 36HR77QZ":                            0,
		"try again later 5MIN7EO3 - gsmtp":                    0,
		"try again in 2 hrs":                                  2 * time.Hour,
		"try again in 2hr.":                                   2 * time.Hour,
		"retry in 300 seconds":                                5 * time.Minute,
		"wait 5min":                                           5 * time.Minute,
		"in 2 Stunden erneut versuchen":                       0, // the word comes behind
		"erneut versuchen in 2 Stunden":                       2 * time.Hour,
	} {
		if got := namedDelay(text); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
