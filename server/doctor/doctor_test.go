package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/dkim"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/doctor"
)

func TestANodeInOrderHasNothingToMend(t *testing.T) {
	b := newBrand(t)
	if wrong := b.wrong(); !slices.Equal(wrong, []string{"info inbound.plain"}) {
		t.Errorf("%q", wrong)
	}
	var subjects []string
	for _, f := range b.check() {
		if !slices.Contains(subjects, f.Subject) {
			subjects = append(subjects, f.Subject)
		}
		if f.Record != nil && f.Severity == doctor.OK {
			t.Errorf("a record to publish where all is well: %+v", f)
		}
	}
	if want := []string{"node", "source a (198.51.100.7)", "source b (2001:db8::7)", "domain brand.example"}; !slices.Equal(subjects, want) {
		t.Errorf("subjects %q, want %q", subjects, want)
	}
}

// Each story breaks one thing and says what is found and what is to be published.
func TestWhatIsWrongIsFoundWithItsRecord(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(b *brand)
		find   string
		grave  doctor.Severity
		says   string
		record string
	}{
		{
			"no PTR", func(b *brand) { b.zone.drop("7.100.51.198.in-addr.arpa", dns.TypePTR) },
			"ptr.missing", doctor.Error, "ask whoever gave you the address", "7.100.51.198.in-addr.arpa. IN PTR a.brand.example.",
		},
		{"a PTR that leads elsewhere", func(b *brand) {
			b.zone.drop("7.100.51.198.in-addr.arpa", dns.TypePTR)
			b.zone.add(b.t, "7.100.51.198.in-addr.arpa. PTR host7.isp.example.", "host7.isp.example. A 192.0.2.1")
		}, "ptr.forward", doctor.Error, "host7.isp.example", "host7.isp.example. IN A 198.51.100.7"},
		{"a PTR with another name", func(b *brand) {
			b.zone.drop("7.100.51.198.in-addr.arpa", dns.TypePTR)
			b.zone.add(b.t, "7.100.51.198.in-addr.arpa. PTR host7.isp.example.", "host7.isp.example. A 198.51.100.7")
		}, "ptr.name", doctor.Info, "greets as a.brand.example", ""},
		{
			"no name server for the PTR", func(b *brand) { b.zone.broken["7.100.51.198.in-addr.arpa."] = true },
			"ptr.unknown", doctor.Warning, "SERVFAIL", "",
		},
		{
			"an EHLO name without address", func(b *brand) { b.zone.drop("b.brand.example", dns.TypeAAAA) },
			"ehlo.unknown_name", doctor.Error, "b.brand.example has no AAAA record", "b.brand.example. IN AAAA 2001:db8::7",
		},
		{"an EHLO name with another address", func(b *brand) {
			b.zone.drop("a.brand.example", dns.TypeA)
			b.zone.add(b.t, "a.brand.example. A 192.0.2.9")
		}, "ehlo.other_address", doctor.Warning, "192.0.2.9", "a.brand.example. IN A 198.51.100.7"},
		{
			"port 25 is closed", func(b *brand) { b.err = errors.New("connection timed out") },
			"port25.closed", doctor.Error, "many hosts block outbound port 25", "",
		},
		{"an address of another machine", func(b *brand) {
			b.err = &net.OpError{Op: "dial", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
		}, "source.foreign", doctor.Error, "not an address of this machine", ""},
		{
			"a host that refuses", func(b *brand) { b.greet = "554 5.7.1 198.51.100.7 is listed" },
			"port25.refused", doctor.Warning, "554 5.7.1 198.51.100.7 is listed", "",
		},
		{"a host that says nothing", func(b *brand) {
			b.o.Dial = func(context.Context, netip.Addr, string) (net.Conn, error) {
				here, there := net.Pipe()
				return here, there.Close()
			}
		}, "port25.silent", doctor.Warning, "did not greet", ""},
		{
			"nothing to probe", func(b *brand) { b.o.Probe = nil },
			"port25.not_checked", doctor.Info, "closed network", "",
		},
		{
			"a probe without address", func(b *brand) { b.o.Probe = []string{"nobody.example:25"} },
			"port25.not_checked", doctor.Info, "no probe has an address", "",
		},
		{
			"a private source", func(b *brand) { b.o.Config.Relay.AllowPrivateAddresses = false },
			"source.private", doctor.Warning, "198.51.100.7", "",
		}, // documentation addresses are not public

		{
			"no SPF", func(b *brand) { b.zone.drop("bounce.brand.example", dns.TypeTXT) },
			"spf.missing", doctor.Error, "bounce.brand.example has no SPF record", `bounce.brand.example. IN TXT "v=spf1 ip4:198.51.100.7 ip6:2001:db8::7 -all"`,
		},
		{"SPF without a source", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("bounce.brand.example", "v=spf1 ip6:2001:db8::/32 ~all"))
		}, "spf.source_missing", doctor.Error, "does not contain source a (198.51.100.7): softfail", `bounce.brand.example. IN TXT "v=spf1 ip4:198.51.100.7 ip6:2001:db8::/32 ~all"`},
		{"SPF with a mistake", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("bounce.brand.example", "v=spf1 ipv4:198.51.100.7 -all"))
		}, "spf.invalid", doctor.Error, "ipv4:198.51.100.7", `bounce.brand.example. IN TXT "v=spf1 ip4:198.51.100.7 ip6:2001:db8::7 -all"`},
		{"SPF by the local part", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("bounce.brand.example", "v=spf1 exists:%{l}.x.example -all"))
		}, "spf.unknown", doctor.Info, "differs from mail to mail", ""},
		{
			"no name server for SPF", func(b *brand) { b.zone.broken["bounce.brand.example."] = true },
			"spf.unknown", doctor.Warning, "SERVFAIL", "",
		},

		{
			"no DMARC", func(b *brand) { b.zone.drop("_dmarc.brand.example", dns.TypeTXT) },
			"dmarc.missing", doctor.Warning, "Gmail, Yahoo and Microsoft demand one", `_dmarc.brand.example. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@brand.example"`,
		},
		{
			"two DMARC records", func(b *brand) { b.zone.add(b.t, text("_dmarc.brand.example", "v=DMARC1; p=reject")) },
			"dmarc.several", doctor.Warning, "2 DMARC records", `_dmarc.brand.example. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@brand.example"`,
		},
		{"a DMARC policy that is none", func(b *brand) {
			b.zone.drop("_dmarc.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("_dmarc.brand.example", "v=DMARC1; p=quarantaine"))
		}, "dmarc.invalid", doctor.Warning, "quarantaine", `_dmarc.brand.example. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@brand.example"`},
		{"DMARC without reports", func(b *brand) {
			b.zone.drop("_dmarc.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("_dmarc.brand.example", "v=DMARC1;p=none"))
		}, "dmarc.no_reports", doctor.Info, "rua=", ""},
		{"a bounce domain that does not align", func(b *brand) {
			b.o.Config.DKIM.Domains[0].BounceDomain = "bounce.other.example"
		}, "dmarc.alignment", doctor.Warning, "bounce.other.example does not align with brand.example", ""},
		{"nothing aligns", func(b *brand) {
			b.zone.drop("_dmarc.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("_dmarc.brand.example", "v=DMARC1; p=reject; adkim=s; aspf=s"), text("_dmarc.news.brand.example", "v=DMARC1; p=reject; adkim=s; aspf=s"))
			b.o.From = []string{"news.brand.example"}
		}, "dmarc.alignment", doctor.Error, "fails DMARC", ""},

		{"another key in the DNS", func(b *brand) {
			b.zone.drop("s1._domainkey.brand.example", dns.TypeTXT)
			b.zone.add(b.t, text("s1._domainkey.brand.example", dkim.Record(otherKey())))
		}, "dkim.record", doctor.Error, "holds another key", "own key"},
		{
			"no key in the DNS", func(b *brand) { b.zone.drop("s1._domainkey.brand.example", dns.TypeTXT) },
			"dkim.missing", doctor.Error, "has no TXT record", "own key",
		},
		{
			"no name server for the key", func(b *brand) { b.zone.broken["s1._domainkey.brand.example."] = true },
			"dkim.record.unknown", doctor.Warning, "SERVFAIL", "",
		},
		{
			"a domain without key", func(b *brand) { b.o.From = []string{"other.example"} },
			"dkim.no_key", doctor.Error, "veredus dkim keygen --domain other.example", "",
		},
		{
			"no domain at all", func(b *brand) { b.o.Config.DKIM.Domains = nil },
			"dkim.no_domains", doctor.Error, "dkim.domains is empty", "",
		},
		{
			"no source at all", func(b *brand) { b.o.Config.Relay.Pools = nil },
			"source.none", doctor.Error, "relay.pools", "",
		},

		{
			"no MX of the bounce domain", func(b *brand) { b.zone.drop("bounce.brand.example", dns.TypeMX) },
			"bounce.mx", doctor.Error, "neither MX nor address", "bounce.brand.example. IN MX 10 mx.brand.example.",
		},
		{"an MX that leads elsewhere", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeMX)
			b.zone.add(b.t, "bounce.brand.example. MX 5 mx.provider.example.")
		}, "bounce.mx", doctor.Warning, "mx.provider.example, is not this node", "bounce.brand.example. IN MX 10 mx.brand.example."},
		{"a null MX", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeMX)
			b.zone.add(b.t, "bounce.brand.example. MX 0 .")
		}, "bounce.null_mx", doctor.Error, "takes no mail", "bounce.brand.example. IN MX 10 mx.brand.example."},
		{"an MX without address", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeMX)
			b.zone.add(b.t, "bounce.brand.example. MX 5 gone.example.")
		}, "bounce.mx", doctor.Error, "gone.example", "bounce.brand.example. IN MX 10 mx.brand.example."},
		{"an address of somebody else in place of an MX", func(b *brand) {
			b.zone.drop("bounce.brand.example", dns.TypeMX)
			b.zone.add(b.t, "bounce.brand.example. A 192.0.2.9")
		}, "bounce.mx", doctor.Warning, "192.0.2.9", "bounce.brand.example. IN MX 10 mx.brand.example."},
		{"bounces to the From domain's own MX", func(b *brand) {
			b.o.Config.DKIM.Domains[0].BounceDomain = ""
			b.zone.add(b.t, "brand.example. MX 5 mx.provider.example.")
		}, "bounce.shared", doctor.Warning, "set bounce_domain to bounce.brand.example", "bounce.brand.example. IN MX 10 mx.brand.example."},
		{
			"no listener for bounces", func(b *brand) { b.o.Config.Inbound.Listen = "" },
			"bounce.not_read", doctor.Warning, "inbound.listen is not set", "",
		},
		{
			"a listener without name", func(b *brand) { b.zone.drop("mx.brand.example", dns.TypeA) },
			"inbound.hostname", doctor.Error, "no bounce finds it", "mx.brand.example. IN A 198.51.100.7",
		},
		{
			"a listener on another port", func(b *brand) { b.o.Config.Inbound.Listen = "0.0.0.0:2525" },
			"inbound.port", doctor.Info, "port 25", "",
		},

		{
			"few files", func(b *brand) { b.o.Files = func() (uint64, error) { return 1024, nil } },
			"files", doctor.Error, "LimitNOFILE", "",
		},
		{
			"nearly enough files", func(b *brand) { b.o.Files = func() (uint64, error) { return 2000, nil } },
			"files", doctor.Warning, "LimitNOFILE", "",
		},
		{
			"files nobody knows of", func(b *brand) { b.o.Files = func() (uint64, error) { return 0, errors.New("no") } },
			"files", doctor.Info, "not known", "",
		},
		{"a data directory that is a file", func(b *brand) {
			path := filepath.Join(b.t.TempDir(), "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				b.t.Fatal(err)
			}
			b.o.Config.DataDir = path
		}, "data_dir", doctor.Error, "cannot be written", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBrand(t)
			c.spoil(b)
			got := b.find(c.find)
			record := c.record
			if record == "own key" {
				record = doctor.Record{Name: dkim.RecordName(b.key), Type: "TXT", Value: dkim.Record(b.key)}.String()
			}
			if got.Severity != c.grave || !strings.Contains(got.Description, c.says) {
				t.Errorf("%+v, want %s with %q", got, c.grave, c.says)
			}
			is := ""
			if got.Record != nil {
				is = got.Record.String()
			}
			if is != record {
				t.Errorf("record %q, want %q", is, record)
			}
		})
	}
}

// What it says to publish mends what it found.
func TestPublishingTheRecordsMendsEverything(t *testing.T) {
	b := newBrand(t)
	for _, gone := range []struct {
		name  string
		qtype uint16
	}{
		{"7.100.51.198.in-addr.arpa", dns.TypePTR},
		{"a.brand.example", dns.TypeA},
		{"b.brand.example", dns.TypeAAAA},
		{"bounce.brand.example", dns.TypeTXT},
		{"bounce.brand.example", dns.TypeMX},
		{"_dmarc.brand.example", dns.TypeTXT},
		{"s1._domainkey.brand.example", dns.TypeTXT},
		{"mx.brand.example", dns.TypeA},
	} {
		b.zone.drop(gone.name, gone.qtype)
	}
	published := map[string]bool{}
	for round := 0; round < 3; round++ { // the PTR's name and the mail host come after
		for _, f := range b.check() {
			if f.Record != nil && !published[f.Record.String()] {
				published[f.Record.String()] = true
				b.zone.add(t, f.Record.String())
			}
		}
	}
	if wrong := b.wrong(); !slices.Equal(wrong, []string{"info inbound.plain"}) {
		t.Errorf("%q after publishing %v", wrong, published)
	}
}

func TestASandboxSaysWhatItWouldCheckAndWhatToPublish(t *testing.T) {
	b := newBrand(t)
	b.o.Config.Relay.Mode = config.Sandboxed
	b.o.DNS = nobody{t}
	wrong := b.wrong()
	if want := []string{"info mode", "info dkim.record", "info spf", "info dmarc"}; !slices.Equal(wrong, want) {
		t.Errorf("%q, want %q", wrong, want)
	}
	if got := b.find("mode").Description; !strings.Contains(got, "sandbox") || !strings.Contains(got, "--live") {
		t.Errorf("%s", got)
	}
	b.o.DNS, b.o.Live = b.zone, true
	if wrong := b.wrong(); !slices.Equal(wrong, []string{"info inbound.plain"}) {
		t.Errorf("as if live: %q", wrong)
	}
}

// nobody must not be asked.
type nobody struct{ t *testing.T }

func (n nobody) Lookup(_ context.Context, name string, _ uint16) (doctor.Answer, error) {
	n.t.Errorf("asked for %s", name)
	return doctor.Answer{}, nil
}

func TestARedirectIsConnectedTo(t *testing.T) {
	b := newBrand(t)
	b.o.Config.Relay.Mode, b.o.Config.Relay.Redirect = config.Redirect, "127.0.0.1:2525"
	for _, c := range []struct {
		greet string
		err   error
		grave doctor.Severity
	}{{"220 hello", nil, doctor.OK}, {"554 go away", nil, doctor.Error}, {"", errors.New("refused"), doctor.Error}} {
		b.o.DialRedirect = func(context.Context, string) (net.Conn, error) { return greeter(c.greet), c.err }
		list := b.check()
		i := slices.IndexFunc(list, func(f doctor.Finding) bool { return f.Code == "redirect" })
		if i < 0 || list[i].Severity != c.grave {
			t.Errorf("%q, %v: %+v", c.greet, c.err, list)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	if _, err := doctor.Check(t.Context(), doctor.Options{}); err == nil {
		t.Error("no configuration")
	}
	b := newBrand(t)
	b.o.Probe = []string{"mx.provider.example"}
	if _, err := doctor.Check(t.Context(), b.o); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("%v", err)
	}
	b.o.Probe, b.o.DNS, b.o.Config.DNS.Server = nil, nil, "localhost"
	if _, err := doctor.Check(t.Context(), b.o); err == nil || !strings.Contains(err.Error(), "dns.server") {
		t.Errorf("%v", err)
	}
}

func TestTheClientReadsRealAnswers(t *testing.T) {
	z := newZone(t,
		"a.example. A 192.0.2.1", "a.example. AAAA 2001:db8::1", "a.example. MX 10 Mx.A.example.", "null.example. MX 0 .",
		"1.2.0.192.in-addr.arpa. PTR a.example.", text("long.example", strings.Repeat("x", 2000)))
	z.broken["broken.example."] = true
	c, err := doctor.NewClient(z.serve(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"a.example", dns.TypeA, "{[192.0.2.1] [] [] []}"},
		{"A.EXAMPLE.", dns.TypeAAAA, "{[2001:db8::1] [] [] []}"},
		{"a.example", dns.TypeMX, "{[] [{10 mx.a.example}] [] []}"},
		{"null.example", dns.TypeMX, "{[] [{0 }] [] []}"},
		{"1.2.0.192.in-addr.arpa", dns.TypePTR, "{[] [] [a.example] []}"},
		{"long.example", dns.TypeTXT, "{[] [] [] [" + strings.Repeat("x", 2000) + "]}"},
		{"nobody.example", dns.TypeA, "{[] [] [] []}"},
		{strings.Repeat("x", 64) + ".example", dns.TypeA, "{[] [] [] []}"},
		{"a..example", dns.TypeA, "{[] [] [] []}"},
	} {
		a, err := c.Lookup(t.Context(), q.name, q.qtype)
		if got := fmt.Sprint(a); err != nil || got != q.want {
			t.Errorf("%s: %s, %v; want %s", q.name, got, err, q.want)
		}
	}
	if _, err := c.Lookup(t.Context(), "broken.example", dns.TypeA); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Lookup(ended, "a.example", dns.TypeA); err == nil {
		t.Error("an answer behind the end")
	}
}

func TestADeliverysFindingsBlockOnlyWhatCertainlyFails(t *testing.T) {
	b := newBrand(t)
	b.o.Config.Relay.AllowPrivateAddresses = false
	for i := range b.o.Config.Relay.Pools { // addresses of the public internet, and of nobody in this test
		public := []string{"9.9.9.7", "2620:fe::7"}[i]
		b.o.Config.Relay.Pools[i].Sources[0].Address = netip.MustParseAddr(public)
	}
	b.zone.drop("a.brand.example", dns.TypeA)
	b.zone.drop("b.brand.example", dns.TypeAAAA)
	b.zone.drop("bounce.brand.example", dns.TypeTXT)
	b.zone.add(t, "7.9.9.9.in-addr.arpa. PTR a.brand.example.", "a.brand.example. A 9.9.9.7", "b.brand.example. AAAA 2620:fe::7",
		"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.f.0.0.0.2.6.2.ip6.arpa. PTR b.brand.example.",
		text("bounce.brand.example", "v=spf1 ip4:9.9.9.7 ip6:2620:fe::7 -all"))
	ask := func(pool string) string {
		t.Helper()
		d := doctor.New(func() doctor.Options { return b.o }, nil)
		var out []string
		for _, f := range d.Delivery(t.Context(), "brand.example", pool) {
			out = append(out, strings.ToLower(strings.TrimPrefix(f.GetSeverity().String(), "SEVERITY_"))+" "+f.GetCode()+" "+f.GetField())
		}
		return strings.Join(out, ", ")
	}
	const passed = "info doctor.passed sender.from"
	if got := ask("default"); got != passed {
		t.Errorf("in order: %s", got)
	}
	b.zone.drop("b.brand.example", dns.TypeAAAA)
	if got := ask("default"); got != passed {
		t.Errorf("another pool's source: %s", got)
	}
	if got, want := ask("warm"), "warning ptr.forward pool, warning ehlo.unknown_name pool, "; !strings.HasPrefix(got, want) {
		t.Errorf("%s", got)
	}
	b.zone.drop("bounce.brand.example", dns.TypeTXT)
	if got, want := ask("default"), "warning spf.missing sender.from, "+passed; got != want {
		t.Errorf("no SPF and a good signature: %s", got)
	}
	b.zone.drop("s1._domainkey.brand.example", dns.TypeTXT)
	if got, want := ask("default"), "error dkim.missing sender.from, error spf.missing sender.from, "+passed; got != want {
		t.Errorf("no SPF and no signature: %s", got)
	}
	b.o.Config.Relay.AllowPrivateAddresses = true
	if got, want := ask("default"), "warning dkim.missing sender.from, warning spf.missing sender.from, "+passed; got != want {
		t.Errorf("in a closed network: %s", got)
	}
	b.zone.add(t, text("s1._domainkey.brand.example", dkim.Record(otherKey())))
	if got, want := ask("default"), "error dkim.record sender.from, "; !strings.HasPrefix(got, want) {
		t.Errorf("another key in a closed network: %s", got)
	}
	b.zone.drop("_dmarc.brand.example", dns.TypeTXT)
	if got := ask("default"); !strings.Contains(got, "warning dmarc.missing sender.from") {
		t.Errorf("no DMARC: %s", got)
	}
	b.o.Config.Relay.Mode = config.Sandboxed
	if got := ask("default"); got != "" {
		t.Errorf("a sandbox: %s", got)
	}
}

func TestADeliverysFindingsNameTheRecord(t *testing.T) {
	b := newBrand(t)
	b.zone.drop("_dmarc.brand.example", dns.TypeTXT)
	d := doctor.New(func() doctor.Options { return b.o }, nil)
	list := d.Prepare(t.Context(), &campaign.Delivery{Spec: &veredusv1.Delivery{Sender: &veredusv1.Sender{From: "news@brand.example"}}})
	if len(list) != 2 || !strings.Contains(list[0].GetDescription(), "[_dmarc.brand.example TXT v=DMARC1; p=none; rua=mailto:dmarc@brand.example]") {
		t.Errorf("%v", list)
	}
}

func TestResultsAreKeptForAWhile(t *testing.T) {
	b := newBrand(t)
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	d := doctor.New(func() doctor.Options { return b.o }, func() time.Time { return now })
	questions := func(from string) int {
		b.zone.asked = 0
		d.Delivery(t.Context(), from, "default")
		return b.zone.asked
	}
	if questions("brand.example") == 0 || questions("brand.example") != 0 || questions("Brand.Example.") != 0 {
		t.Error("a result is not kept")
	}
	if questions("news.brand.example") == 0 {
		t.Error("another domain has the same result")
	}
	now = now.Add(5 * time.Minute)
	if questions("brand.example") == 0 {
		t.Error("a result is kept for ever")
	}
	other := *b.o.Config
	b.o.Config = &other // a reload
	if questions("brand.example") == 0 {
		t.Error("a result outlives the configuration")
	}
	b.zone.broken["bounce.brand.example."] = true
	now = now.Add(5 * time.Minute)
	questions("brand.example")
	now = now.Add(15 * time.Second)
	if questions("brand.example") == 0 {
		t.Error("a look-up that failed is remembered as long as one that did not")
	}
	for i := range 600 {
		questions(fmt.Sprintf("d%d.example", i))
	}
}

// silent never answers.
type silent struct{}

func (silent) Lookup(ctx context.Context, _ string, _ uint16) (doctor.Answer, error) {
	<-ctx.Done()
	return doctor.Answer{}, ctx.Err()
}

func TestADeliveryWaitsForNobodyLongerThanFiveSeconds(t *testing.T) {
	b := newBrand(t)
	b.o.DNS = silent{}
	synctest.Test(t, func(t *testing.T) {
		d := doctor.New(func() doctor.Options { return b.o }, nil)
		began := time.Now()
		list := d.Delivery(t.Context(), "brand.example", "default")
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
		if len(list) == 0 {
			t.Error("nothing was said")
		}
		for _, f := range list {
			if f.GetSeverity() == veredusv1.Severity_SEVERITY_ERROR {
				t.Errorf("what is not known blocks: %v", f)
			}
		}
	})
}
