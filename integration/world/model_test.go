package world

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	begin  = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	alice  = netip.MustParseAddr("192.0.2.10")
	bob    = netip.MustParseAddr("198.51.100.7")
	bounce = "b-1@bounce.sender.example"
)

func model(t *testing.T, w World, name string) *Model {
	t.Helper()
	m, err := NewModel(&w, name, begin)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// one is a world of a single receiver for x.example.
func one(r Receiver) World {
	r.Name, r.Domains, r.Hosts = "x", []Domain{{"x.example", 1}}, []Host{{Name: "mx.x.example"}}
	return World{Name: "one", Receivers: []Receiver{r}}
}

func connect(t *testing.T, m *Model, now time.Time, source netip.Addr) *Session {
	t.Helper()
	s, d := m.Connect(now, source, "mx.x.example")
	if !d.Positive() {
		t.Fatalf("connect: %v", d)
	}
	s.Secured()
	return s
}

// send runs one transaction and returns the decision that ended it.
func send(s *Session, now time.Time, from, to string) Decision {
	if d := s.Mail(now, from); !d.Positive() {
		return d
	}
	if d := s.Rcpt(now, to); !d.Positive() {
		return d
	}
	if d := s.Data(now); !d.Positive() {
		return d
	}
	return s.EndOfData(now)
}

func TestMagicLocalPartsAtEveryReceiver(t *testing.T) {
	w := Default()
	for _, r := range w.Receivers {
		if !r.HasHosts() {
			continue
		}
		domain := r.Domains[0].Name
		m := model(t, w, r.Name)
		now := begin.Add(30 * time.Minute) // after the flapping host's outage
		fresh := func(now time.Time) *Session {
			s, d := m.Connect(now, alice, r.Hosts[0].NameFor(domain))
			if !d.Positive() {
				t.Fatalf("%s: connect: %v", r.Name, d)
			}
			s.Secured()
			return s
		}
		attempt := func(now time.Time, local string) Decision {
			s := fresh(now)
			defer s.Close()
			return send(s, now, bounce, local+"@"+domain)
		}
		expect := func(local string, d Decision, class int, enhanced, text string) {
			t.Helper()
			if d.Code/100 != class || !strings.HasPrefix(d.Enhanced, enhanced) || !strings.Contains(strings.ToLower(d.Text), text) {
				t.Errorf("%s: %s@: got %v, want %dxx %s with %q", r.Name, local, d, class, enhanced, text)
			}
		}
		for _, label := range []string{"", "+news"} {
			if d := attempt(now, "ok"+label); !d.Accepted || d.Code != 250 {
				t.Errorf("%s: ok%s@: %v", r.Name, label, d)
			}
			expect("unknown", attempt(now, "Unknown"+label), 5, "5.", "")
			full := attempt(now, "full"+label)
			if full.Cause != CauseMailbox || !strings.HasSuffix(full.Enhanced, ".2.2") {
				t.Errorf("%s: full@: %v", r.Name, full)
			}
			expect("disabled", attempt(now, "disabled"+label), 5, "5.2.1", "")
			expect("block", attempt(now, "block"+label), 5, "5.7.1", "")
			expect("spam", attempt(now, "spam"+label), 5, "5.7.1", "spam")

			expect("greylist", attempt(now, "greylist"+label), 4, "4.", "")
			expect("greylist", attempt(now.Add(time.Minute), "greylist"+label), 4, "4.", "")
			if d := attempt(now.Add(6*time.Minute), "greylist"+label); !d.Accepted {
				t.Errorf("%s: greylist%s@ after the delay: %v", r.Name, label, d)
			}
			for range 2 {
				if d := attempt(now, "ratelimit"+label); d.Code/100 != 4 || d.Cause != CausePacing {
					t.Errorf("%s: ratelimit%s@: %v", r.Name, label, d)
				}
			}
			if d := attempt(now, "ratelimit"+label); !d.Accepted {
				t.Errorf("%s: ratelimit%s@, third time: %v", r.Name, label, d)
			}
			if d := attempt(now, "slow"+label); !d.Accepted || d.Delay < 2*time.Second {
				t.Errorf("%s: slow%s@: %v after %v", r.Name, label, d, d.Delay)
			}
			if d := attempt(now, "drop"+label); !d.Accepted || d.Drop != DropSilent || d.Code != 0 {
				t.Errorf("%s: drop%s@: %v", r.Name, label, d)
			}
			if d := attempt(now, "drop"+label); !d.Accepted || d.Code != 250 {
				t.Errorf("%s: drop%s@, second time: %v", r.Name, label, d)
			}
		}
	}
}

func TestMagicFateNeedsTheWholeName(t *testing.T) {
	for local, want := range map[string]Fate{
		"ok": FateOK, "OK+a+b": FateOK, "Spam+": FateSpam, "okay": FateNone, "": FateNone, "+ok": FateNone, "not.ok": FateNone,
	} {
		if got := MagicFate(local); got != want {
			t.Errorf("MagicFate(%q) = %q, want %q", local, got, want)
		}
	}
}

func TestForeignDomainsAreRefused(t *testing.T) {
	m := model(t, Default(), "google")
	s, _ := m.Connect(begin, alice, "gmail-smtp-in.l.google.com")
	s.Secured()
	if d := send(s, begin, bounce, "ok@yahoo.example"); d.Code != 550 || d.Cause != CausePolicy {
		t.Errorf("mail for another provider: %v", d)
	}
	m = model(t, Default(), "microsoft365")
	s, _ = m.Connect(begin, alice, "contoso-example.mail.protection.outlook.com")
	if d := send(s, begin, bounce, "ok@contoso.example"); !d.Accepted {
		t.Errorf("own tenant: %v", d)
	}
	if d := send(s, begin, bounce, "ok@fabrikam.example"); d.Code != 550 {
		t.Errorf("mail for another tenant's host: %v", d)
	}
	m = model(t, Default(), "elsewhere")
	s, _ = m.Connect(begin, alice, "mx.village.example")
	if d := send(s, begin, bounce, "ok@some-shop.test"); !d.Accepted {
		t.Errorf("catch-all: %v", d)
	}
}

func TestHiddenConnectionCap(t *testing.T) {
	m := model(t, one(Receiver{Hidden: Hidden{Connections: 2, TotalConnections: 3}}), "x")
	a1, a2 := connect(t, m, begin, alice), connect(t, m, begin, alice)
	refused, d := m.Connect(begin, alice, "mx.x.example")
	if d.Code != 421 || d.Drop != DropAfterReply || d.Cause != CausePacing {
		t.Errorf("third connection: %v", d)
	}
	refused.Close() // never counted, so nothing becomes free
	connect(t, m, begin, bob)
	if _, d := m.Connect(begin, bob, "mx.x.example"); d.Code != 421 {
		t.Errorf("fourth over all sources: %v", d)
	}
	a1.Close()
	a1.Close()
	connect(t, m, begin, alice)
	if _, d := m.Connect(begin, alice, "mx.x.example"); d.Code != 421 {
		t.Errorf("closing twice freed two places: %v", d)
	}
	a2.Close()
}

func TestHiddenMessagesPerConnection(t *testing.T) {
	m := model(t, one(Receiver{Dialect: "yahoo", Hidden: Hidden{MessagesPerConnection: 2}}), "x")
	s := connect(t, m, begin, alice)
	for range 2 {
		if d := send(s, begin, bounce, "ann@x.example"); !d.Accepted {
			t.Fatal(d)
		}
	}
	d := s.Mail(begin, bounce)
	if d.Code != 421 || d.Drop != DropAfterReply || !strings.Contains(d.Text, "Max message per connection") {
		t.Errorf("third message: %v", d)
	}
}

func TestHiddenRateAtEachStage(t *testing.T) {
	for _, at := range []Stage{"", AtMail, AtRcpt, AtEndOfData} {
		m := model(t, one(Receiver{Hidden: Hidden{MessageRate: Rate{Count: 1, Per: second, Burst: 2}, At: at}}), "x")
		s := connect(t, m, begin, alice)
		try := func(after time.Duration, to string) Decision { return send(s, begin.Add(after), bounce, to) }
		for i := range 2 {
			if d := try(0, "ann@x.example"); !d.Accepted {
				t.Errorf("%s: message %d of the burst: %v", at, i, d)
			}
		}
		if d := try(0, "ann@x.example"); d.Code != 450 || d.Cause != CausePacing || d.Accepted {
			t.Errorf("%s: beyond the burst: %v", at, d)
		}
		if d := try(0, "ok@x.example"); d.Accepted != (at == AtRcpt || at == AtEndOfData) {
			t.Errorf("%s: ok@ beyond the burst: %v", at, d)
		}
		if d := try(999*time.Millisecond, "ann@x.example"); d.Accepted {
			t.Errorf("%s: too early: %v", at, d)
		}
		if d := try(time.Second, "ann@x.example"); !d.Accepted {
			t.Errorf("%s: a second later: %v", at, d)
		}
	}
}

func TestHourlyQuotaSlides(t *testing.T) {
	m := model(t, one(Receiver{Hidden: Hidden{MessagesPerHour: 3}}), "x")
	s := connect(t, m, begin, alice)
	for i, step := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true},
		{20 * time.Minute, true},
		{40 * time.Minute, true},
		{59 * time.Minute, false},
		{61 * time.Minute, true},
		{70 * time.Minute, false},
		{81 * time.Minute, true},
		{10 * time.Hour, true},
	} {
		if d := send(s, begin.Add(step.after), bounce, "ann@x.example"); d.Accepted != step.want {
			t.Errorf("step %d after %v: %v, want accepted %v", i, step.after, d, step.want)
		}
	}
}

func TestConnectionRate(t *testing.T) {
	m := model(t, one(Receiver{Hidden: Hidden{ConnectionRate: Rate{Count: 60, Per: minute, Burst: 1}}}), "x")
	connect(t, m, begin, alice).Close()
	if _, d := m.Connect(begin.Add(500*time.Millisecond), alice, "mx"); d.Code != 421 {
		t.Errorf("half a second later: %v", d)
	}
	connect(t, m, begin.Add(time.Second), alice)
	connect(t, m, begin.Add(time.Second), bob)
}

func TestPenaltyBox(t *testing.T) {
	hidden := Hidden{
		MessageRate: Rate{Count: 1, Per: second},
		Penalty:     Penalty{After: 2, Window: minute, For: 10 * minute, Extend: true},
	}
	m := model(t, one(Receiver{Hidden: hidden}), "x")
	s := connect(t, m, begin, alice)
	send(s, begin, bounce, "ann@x.example")
	for range 2 {
		if d := send(s, begin, bounce, "ann@x.example"); d.Cause != CausePacing {
			t.Fatal(d)
		}
	}
	if _, d := m.Connect(begin.Add(9*time.Minute), alice, "mx"); d.Code != 421 {
		t.Errorf("in the box: %v", d)
	}
	if _, d := m.Connect(begin.Add(15*time.Minute), alice, "mx"); d.Code != 421 {
		t.Errorf("the knock at 9 min should have extended the box: %v", d)
	}
	connect(t, m, begin.Add(26*time.Minute), alice)
	connect(t, m, begin.Add(time.Minute), bob) // others are not punished
}

func TestGreylistKnowsTheTriple(t *testing.T) {
	m := model(t, one(Receiver{Greylist: Greylist{Delay: 5 * minute, Expire: Duration(4 * time.Hour)}}), "x")
	s := connect(t, m, begin, alice)
	neighbour := connect(t, m, begin, netip.MustParseAddr("192.0.2.99"))
	stranger := connect(t, m, begin, bob)
	for i, step := range []struct {
		s        *Session
		after    time.Duration
		from, to string
		want     bool
	}{
		{s, 0, "a@s.example", "ann@x.example", false},
		{s, 4 * time.Minute, "a@s.example", "ann@x.example", false},
		{neighbour, 5 * time.Minute, "a@s.example", "Ann@x.example", true},
		{s, 5 * time.Minute, "other@s.example", "ann@x.example", false},
		{stranger, 5 * time.Minute, "a@s.example", "ann@x.example", false},
		{s, 100 * time.Hour, "a@s.example", "ann@x.example", true}, // known by now
		{s, 0, "late@s.example", "ann@x.example", false},
		{s, 5 * time.Hour, "late@s.example", "ann@x.example", false}, // forgotten meanwhile
		{s, 5*time.Hour + 5*time.Minute, "late@s.example", "ann@x.example", true},
	} {
		d := send(step.s, begin.Add(step.after), step.from, step.to)
		if d.Accepted != step.want || (!step.want && d.Cause != CauseGreylist) {
			t.Errorf("step %d: %v, want accepted %v", i, d, step.want)
		}
	}
}

func TestOutagesFollowTheirSchedule(t *testing.T) {
	outages := []Outage{
		{After: 10 * minute, For: 5 * minute, Every: 30 * minute},
		{After: Duration(2 * time.Hour), For: Duration(time.Hour), Mode: OutageRefuse},
	}
	m := model(t, one(Receiver{Outages: outages}), "x")
	open := connect(t, m, begin, alice)
	for _, step := range []struct {
		after time.Duration
		drop  Drop
		code  int
	}{
		{0, Stay, 220},
		{10 * time.Minute, DropReset, 0},
		{14 * time.Minute, DropReset, 0},
		{15 * time.Minute, Stay, 220},
		{41 * time.Minute, DropReset, 0},
		{2*time.Hour + 20*time.Minute, DropAfterReply, 421},
		{3 * time.Hour, Stay, 220},
	} {
		if _, d := m.Connect(begin.Add(step.after), alice, "mx"); d.Drop != step.drop || d.Code != step.code {
			t.Errorf("after %v: %v (%v), want %d (%v)", step.after, d, d.Drop, step.code, step.drop)
		}
	}
	if d := open.Mail(begin.Add(11*time.Minute), bounce); d.Drop != DropReset || d.Cause != CauseOutage {
		t.Errorf("an open connection in the outage: %v", d)
	}
}

func TestTLSRequired(t *testing.T) {
	m := model(t, one(Receiver{Dialect: "gmail", TLS: TLSRequired}), "x")
	s, _ := m.Connect(begin, alice, "mx.x.example")
	if d := s.Mail(begin, bounce); d.Code != 530 || d.Enhanced != "5.7.0" {
		t.Errorf("without TLS: %v", d)
	}
	if d := s.StartTLS(begin); d.Code != 220 || !s.OffersTLS() {
		t.Errorf("STARTTLS: %v", d)
	}
	s.Secured()
	if d := s.Mail(begin, bounce); !d.Positive() || s.OffersTLS() {
		t.Errorf("with TLS: %v", d)
	}
}

func TestQuirksShowOnTheirConnections(t *testing.T) {
	m := model(t, one(Receiver{Quirks: []Quirk{{Kind: QuirkDropAtHello, Every: 3}, {Kind: QuirkDataWithoutRcpt}}}), "x")
	for i := 1; i <= 6; i++ {
		s := connect(t, m, begin, alice)
		if d := s.Hello(begin, true); (d.Drop == DropSilent) != (i%3 == 0) {
			t.Errorf("connection %d: %v (%v)", i, d, d.Drop)
		}
		s.Mail(begin, bounce)
		s.Rcpt(begin, "unknown@x.example")
		if d := s.Data(begin); d.Code != 354 {
			t.Errorf("DATA without a recipient: %v", d)
		}
		if d := s.EndOfData(begin); d.Accepted || d.Code != 250 {
			t.Errorf("the lone dot: %v, accepted %v", d, d.Accepted)
		}
	}
}

func TestRepliesAreFilledIn(t *testing.T) {
	own := map[Situation]string{SayUnknown: "550 5.1.1 {rcpt} from {from} at {domain} via {host} [{ip}] {oops} }{"}
	m := model(t, one(Receiver{Replies: own}), "x")
	d := send(connect(t, m, begin, alice), begin, bounce, "unknown@x.example")
	want := "unknown@x.example from " + bounce + " at x.example via mx.x.example [192.0.2.10] {oops} }{"
	if d.Text != want {
		t.Errorf("text %q, want %q", d.Text, want)
	}
}

// TestSameSeedSameAnswers drives every receiver twice and compares all decisions.
func TestSameSeedSameAnswers(t *testing.T) {
	run := func(w World) string {
		var log strings.Builder
		for _, r := range w.Receivers {
			if !r.HasHosts() {
				continue
			}
			m := model(t, w, r.Name)
			for i := range 40 {
				now := begin.Add(time.Duration(i) * 90 * time.Second)
				s, d := m.Connect(now, alice, r.Hosts[0].NameFor(r.Domains[0].Name))
				fmt.Fprintln(&log, r.Name, d, d.Delay, d.Drop)
				if d.Positive() {
					s.Secured()
					d = send(s, now, bounce, fmt.Sprintf("user%d@%s", i, r.Domains[0].Name))
					fmt.Fprintln(&log, d, d.Delay, d.Drop)
				}
				s.Close()
			}
		}
		return log.String()
	}
	first, again := run(Default()), run(Default())
	if first != again {
		t.Error("the same world answered differently")
	}
	other := Default()
	other.Seed = 2
	if first == run(other) {
		t.Error("another seed changed nothing")
	}
}

func TestMemoryStaysBounded(t *testing.T) {
	m := newMemory(100)
	for i := range uint64(10_000) {
		m.put(i, memo{count: 1})
		if i > 150 {
			if _, ok := m.get(i - 50); !ok {
				t.Fatalf("key %d forgotten too soon", i-50)
			}
		}
	}
	if n := len(m.young) + len(m.old); n > 200 {
		t.Errorf("%d keys kept, at most 200", n)
	}
	w := one(Receiver{})
	mod := model(t, w, "x")
	for i := range 3 * maxSources {
		s := connect(t, mod, begin, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		s.Close()
	}
	if len(mod.sources) > maxSources {
		t.Errorf("%d sources kept, at most %d", len(mod.sources), maxSources)
	}
}

func BenchmarkTransaction(b *testing.B) {
	w := Default()
	m, err := NewModel(&w, "google", begin)
	if err != nil {
		b.Fatal(err)
	}
	s, _ := m.Connect(begin, alice, "gmail-smtp-in.l.google.com")
	s.Secured()
	b.ReportAllocs()
	now := begin
	for b.Loop() {
		now = now.Add(10 * time.Millisecond)
		send(s, now, bounce, "ann.smith@gmail.example")
	}
}
