package serve

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"github.com/veredus/veredus/integration/world"
)

// signed signs a message for domain s1._domainkey.domain.
func signed(t testing.TB, key crypto.Signer, domain, content string) string {
	t.Helper()
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(content), &dkim.SignOptions{
		Domain: domain, Selector: "s1", Signer: key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func rsaRecord(t testing.TB, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestDKIMVerdicts(t *testing.T) {
	good, other := newRSA(t), newRSA(t)
	public, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, alone(world.Receiver{}))
	for name, value := range map[string]string{
		"s1._domainkey.sender.example": rsaRecord(t, good), "S1._domainkey.Ed.example.": "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public),
	} {
		if err := w.AddTXT(name, value); err != nil {
			t.Fatal(err)
		}
	}
	plain := func(id string) string { return fmt.Sprintf(message, id) }
	sub := strings.Replace(plain("sub"), "@sender.example>\r\nTo", "@mail.sender.example>\r\nTo", 1)
	both := signed(t, edKey, "ed.example", signed(t, good, "sender.example", plain("both")))
	c := greet(t, addressOf(t, w, "x.example"))
	for i, content := range []string{
		signed(t, good, "sender.example", plain("pass")),
		signed(t, good, "sender.example", sub),
		both,
		plain("none"),
		signed(t, other, "sender.example", plain("wrong key")),
		strings.Replace(signed(t, good, "sender.example", plain("changed")), "Hello", "Hullo", 1),
		signed(t, good, "nokey.example", plain("no key")),
		signed(t, edKey, "ed.example", plain("not aligned")),
		strings.Replace(both, "d=ed.example", "d=no.example", 1),
	} {
		c.say(250, "MAIL FROM:<b@sender.example>")
		c.say(250, "RCPT TO:<ok+"+strconv.Itoa(i)+"@x.example>")
		c.say(354, "DATA")
		c.say(250, strings.ReplaceAll(content, "\r\n.", "\r\n..")+".")
	}
	s := w.Ledger()
	if s.DKIMVerified != 3 || s.DKIMMissing != 1 || s.DKIMFailed != 5 || len(s.DKIMFailures) != 5 || s.Messages != 9 {
		t.Errorf("%+v\n%+v", s.Counts, s.DKIMFailures)
	}
	// A new key under the old name replaces it.
	if err := w.AddTXT("s1._domainkey.sender.example", rsaRecord(t, other)); err != nil {
		t.Fatal(err)
	}
	c.say(250, "MAIL FROM:<b@sender.example>")
	c.say(250, "RCPT TO:<ok@x.example>")
	c.say(354, "DATA")
	c.say(250, strings.ReplaceAll(signed(t, other, "sender.example", plain("rotated")), "\r\n.", "\r\n..")+".")
	if s := w.Ledger(); s.DKIMVerified != 4 {
		t.Errorf("after the rotation: %+v", s.DKIMFailures)
	}
}

func TestVerifyEveryChecksASample(t *testing.T) {
	cfg := alone(world.Receiver{})
	cfg.VerifyEvery = 4
	w := start(t, cfg)
	c := greet(t, addressOf(t, w, "x.example"))
	for i := range 10 {
		c.mail(250, "ok@x.example", strconv.Itoa(i))
	}
	if s := w.Ledger(); s.DKIMUnchecked != 8 || s.DKIMMissing != 2 {
		t.Errorf("%+v", s.Counts)
	}
}

func TestDNSAnswers(t *testing.T) {
	w := start(t, Config{World: world.Default()})
	long := strings.Repeat("k", 700) + `"\;`
	if err := w.AddTXT("s1._domainkey.sender.example", long); err != nil {
		t.Fatal(err)
	}
	text := func(m *dns.Msg) string {
		var parts []string
		for _, rr := range m.Answer {
			parts = append(parts, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		slices.Sort(parts)
		return dns.RcodeToString[m.Rcode] + " " + strings.Join(parts, ", ")
	}
	for _, tc := range []struct {
		name string
		kind uint16
		want string
	}{
		{"Gmail.Example", dns.TypeMX, "NOERROR 10 alt1.gmail-smtp-in.l.google.com., 20 alt2.gmail-smtp-in.l.google.com., 5 gmail-smtp-in.l.google.com."},
		{"gmail.example", dns.TypeA, "NOERROR "},
		{"gmail-smtp-in.l.google.com", dns.TypeA, "NOERROR 127.77.1.1"},
		{"gmail-smtp-in.l.google.com", dns.TypeAAAA, "NOERROR "},
		{"gmail-smtp-in.l.google.com", dns.TypeMX, "NOERROR "},
		{"1.1.77.127.in-addr.arpa", dns.TypePTR, "NOERROR gmail-smtp-in.l.google.com."},
		{"9.9.9.127.in-addr.arpa", dns.TypePTR, "NXDOMAIN "},
		{"contoso.example", dns.TypeMX, "NOERROR 0 contoso-example.mail.protection.outlook.com."},
		{"fabrikam-example.mail.protection.outlook.com", dns.TypeA, "NOERROR 127.77.4.2"},
		{"nomail.example", dns.TypeMX, "NOERROR 0 ."},
		{"gone.example", dns.TypeMX, "NXDOMAIN "},
		{"www.gone.example", dns.TypeA, "NXDOMAIN "},
		{"smallshop.example", dns.TypeMX, "NOERROR "},
		{"smallshop.example", dns.TypeA, "NOERROR 127.77.9.1"},
		{"any.company.test", dns.TypeMX, "NOERROR 10 mx.village.example."},
		{"nobody.invalid", dns.TypeMX, "NXDOMAIN "},
		{"_dmarc.gmail.example", dns.TypeTXT, "NXDOMAIN "},
		{"_domainkey.sender.example", dns.TypeTXT, "NOERROR "},
		{"a.root-servers.net", dns.TypeA, "NOERROR "},
		{".", dns.TypeNS, "NOERROR "},
	} {
		if got := text(query(t, w, tc.name, tc.kind)); got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.name, dns.TypeToString[tc.kind], got, tc.want)
		}
	}
	if m := query(t, w, "s1._domainkey.sender.example", dns.TypeTXT); !m.Truncated {
		t.Error("a long answer over UDP was not truncated")
	}
	m := queryOver(t, w, "tcp", "s1._DOMAINKEY.sender.example", dns.TypeTXT)
	// The library's text form escapes quotes and backslashes.
	joined := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(strings.Join(m.Answer[0].(*dns.TXT).Txt, ""))
	if joined != long {
		t.Errorf("TXT over TCP: %q", joined)
	}
	if m := query(t, w, "gone.example", dns.TypeMX); len(m.Ns) != 1 {
		t.Error("NXDOMAIN without an SOA")
	}
}

func TestDeadHostHasNobodyListening(t *testing.T) {
	w := start(t, Config{World: world.Default()})
	port := strconv.Itoa(w.SMTPPort())
	reach := func(name string) error {
		a := query(t, w, name, dns.TypeA).Answer[0].(*dns.A)
		conn, err := net.Dial("tcp", net.JoinHostPort(a.A.String(), port))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if err := reach("mx1.twohosts.example"); err == nil {
		t.Error("the dead host answers")
	}
	if err := reach("mx2.twohosts.example"); err != nil {
		t.Errorf("the backup: %v", err)
	}
}

func TestServFailAndNoCatchAll(t *testing.T) {
	w := world.Default()
	w.CatchAll = ""
	w.Receivers = append(w.Receivers, world.Receiver{Name: "lame", DNS: world.DNSServFail, Domains: []world.Domain{{Name: "lame.example"}}})
	run := start(t, Config{World: w})
	if m := query(t, run, "lame.example", dns.TypeMX); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("lame.example: %v", m)
	}
	if m := query(t, run, "any.company.test", dns.TypeMX); m.Rcode != dns.RcodeNameError {
		t.Errorf("unlisted domain: %v", m)
	}
}

func TestControlEndpoint(t *testing.T) {
	cfg := alone(world.Receiver{})
	cfg.ControlListen = "127.0.0.1:0"
	w := start(t, cfg)
	base := "http://" + w.ControlAddr()
	get := func(path string, into any) string {
		t.Helper()
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s %s %v", path, resp.Status, body, err)
		}
		if into != nil {
			if err := json.Unmarshal(body, into); err != nil {
				t.Fatalf("GET %s: %v in %s", path, err, body)
			}
		}
		return string(body)
	}
	post := func(path, body string, want int) {
		t.Helper()
		resp, err := http.Post(base+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != want {
			t.Errorf("POST %s %s: %s, want %d", path, body, resp.Status, want)
		}
	}
	post("/txt", `{"name":"a.example","value":"v=spf1 -all"}`, http.StatusNoContent)
	post("/txt", `{"name":"","value":"x"}`, http.StatusBadRequest)
	post("/txt", `{"nome":"x"}`, http.StatusBadRequest)
	post("/limits", `{"x":{"connections":1,"message_rate":"5/s burst 2"}}`, http.StatusNoContent)
	post("/limits", `{"y":{}}`, http.StatusBadRequest)
	if m := query(t, w, "a.example", dns.TypeTXT); len(m.Answer) != 1 {
		t.Errorf("posted TXT: %v", m)
	}
	var config ControlConfig
	get("/config", &config)
	if config.DNS != w.DNSAddr() || config.SMTPPort != w.SMTPPort() || config.Limits["x"].Connections != 1 || config.Receivers[0] != "x" {
		t.Errorf("%+v", config)
	}
	greet(t, addressOf(t, w, "x.example")).mail(250, "Ann@x.example", "c1")
	var ledger Snapshot
	body := get("/ledger", &ledger)
	for _, field := range []string{"messages", "dkim_verified", "dkim_failed", "duplicates", "duplicates_provoked", "accepted_unconfirmed", "limit_violations", "by_provider", "violations"} {
		if !strings.Contains(body, `"`+field+`":`) {
			t.Errorf("the ledger lacks %q: %s", field, body)
		}
	}
	if ledger.Messages != 1 || ledger.ByProvider[0].Provider != "x" || ledger.ByProvider[0].Messages != 1 {
		t.Errorf("%+v", ledger)
	}
	var record Record
	get("/messages", &record)
	if record.Recipient != "Ann@x.example" || record.DKIM != dkimNone || !record.Confirmed || record.Time.IsZero() {
		t.Errorf("%+v", record)
	}
	for query, want := range map[string]string{"recipient=" + url.QueryEscape("ann@X.example"): "1", "recipient=bob@x.example": "0", "message_id=" + url.QueryEscape("<c1@sender.example>"): "1"} {
		if got := strings.TrimSpace(get("/accepted?"+query, nil)); got != `{"accepted":`+want+`}` {
			t.Errorf("/accepted?%s: %s, want %s", query, got, want)
		}
	}
	if !strings.Contains(get("/certificate", nil), "BEGIN CERTIFICATE") {
		t.Error("no certificate")
	}
}

func TestLoadIsStrict(t *testing.T) {
	for _, w := range []world.World{world.Default(), world.Open()} {
		var file bytes.Buffer
		if err := Save(&file, w); err != nil {
			t.Fatal(err)
		}
		got, err := Load(&file)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, w) {
			t.Errorf("%s changed on its way through YAML", w.Name)
		}
	}
	for _, tc := range []struct{ yaml, want string }{
		{"name: x\nreceiver: []\n", "line 2: field receiver not found"},
		{"name: x\n", "receivers: the list is empty"},
		{"receivers:\n  - name: a\n    stated: {message_rate: 5}\n", `write it as "100/s"`},
		{"receivers:\n  - name: a\n    latency: {command: soon}\n", "write it as a number with a unit"},
		{"", "EOF"},
		{"receivers: [{name: a, dns: null_mx}]\n---\nname: y\n", "more than one document"},
	} {
		if _, err := Load(strings.NewReader(tc.yaml)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: error %v, want one with %q", tc.yaml, err, tc.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	var file bytes.Buffer
	if err := Save(&file, world.Default()); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("receivers: [{name: a, dns: null_mx}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if w, err := Load(bytes.NewReader(data)); err == nil {
			if err := w.Validate(); err != nil {
				t.Fatalf("loaded but not valid: %v", err)
			}
		}
	})
}
