package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/dkim"
)

func TestDoctorOfASandboxSaysWhatIsNotChecked(t *testing.T) {
	config := write(t, "veredus.yaml", "relay: {mode: sandbox}\n")
	got := veredus(t, "doctor", "--config", config)
	got.want(t, exitOK, "node\n", "relay.mode is sandbox", "--live", "data_dir", "in order")
	veredus(t, "doctor", "--config", config, "--json").want(t, exitOK, `{"severity":"ok","code":"data_dir","subject":"node"`)
}

func TestDoctorRefusesWrongCommandLines(t *testing.T) {
	veredus(t, "doctor", "extra").want(t, exitUsage, "unexpected argument")
	veredus(t, "doctor", "--config", "nowhere.yaml").want(t, exitUsage, "nowhere.yaml")
	veredus(t, "doctor", "--probe", "no-port").want(t, exitUsage, "host:port")
	veredus(t, "doctor", "--config", write(t, "bad.yaml", "dkim: {domains: [{domain: brand.example, selector: s1, key_file: none.pem}]}\n")).
		want(t, exitUsage, "none.pem")
}

// A live node on loopback: the DNS has everything, then nothing.
func TestDoctorOfALiveNode(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "s1.pem")
	veredus(t, "dkim", "keygen", "--domain", "brand.example", "--selector", "s1", "--out", keyFile).want(t, exitOK)
	key, err := dkim.LoadKeyFile("brand.example", "s1", keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := &nameServer{records: map[string]dns.RR{}}
	addr, probe := server.start(t), greeting(t)
	config := write(t, "veredus.yaml", fmt.Sprintf(`
dns: {server: %q}
relay:
  mode: live
  allow_private_addresses: true
  pools: {default: {sources: [{name: a, address: 127.0.0.1, hostname: a.brand.example}]}}
dkim: {domains: [{domain: brand.example, selector: s1, key_file: %q, bounce_domain: bounce.brand.example}]}
inbound: {listen: "127.0.0.1:25", hostname: mx.brand.example}
`, addr, keyFile))

	bare := veredus(t, "doctor", "--config", config, "--probe", probe)
	bare.want(t, exitFailed, "source a (127.0.0.1)", "domain brand.example", "errors; see above",
		"name   1.0.0.127.in-addr.arpa\n           type   PTR\n           value  a.brand.example",
		"value  v=spf1 ip4:127.0.0.1 -all", "name   _dmarc.brand.example", "value  v=DMARC1; p=none; rua=mailto:dmarc@brand.example",
		"name   s1._domainkey.brand.example", "value  "+dkim.Record(key), "value  10 mx.brand.example", "greets 127.0.0.1")
	if strings.Contains(bare.out, "--from") {
		t.Errorf("%s", bare.out)
	}

	server.publish(t, "1.0.0.127.in-addr.arpa. PTR a.brand.example.", "a.brand.example. A 127.0.0.1", "mx.brand.example. A 127.0.0.1",
		"bounce.brand.example. MX 10 mx.brand.example.", `bounce.brand.example. TXT "v=spf1 ip4:127.0.0.1 -all"`,
		`_dmarc.brand.example. TXT "v=DMARC1; p=reject; rua=mailto:x@brand.example"`, dkim.ZoneLine(key))
	veredus(t, "doctor", "--config", config, "--probe", probe).want(t, exitOK, "SPF of the bounce domain bounce.brand.example lets source a", "p=reject", "publishes this key")
	veredus(t, "doctor", "--config", config, "--probe", probe, "--from", "news@other.example").want(t, exitFailed, "domain other.example", "no key signs mail")
	veredus(t, "doctor", "--config", config, "--probe", probe, "--json").want(t, exitOK, `"code":"spf"`, `"code":"ptr"`, `"code":"port25"`)
}

// greeting is a mail host that says 220.
func greeting(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 mx.provider.example\r\n"))
			_, _ = conn.Read(make([]byte, 100)) // QUIT
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l.Addr().String()
}

// nameServer has one record of each name and type.
type nameServer struct {
	mu      sync.Mutex
	records map[string]dns.RR
}

func (s *nameServer) publish(t *testing.T, lines ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		s.records[rr.Header().Name+dns.TypeToString[rr.Header().Rrtype]] = rr
	}
}

func (s *nameServer) start(t *testing.T) (addr string) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: packets, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Rcode = dns.RcodeNameError
		s.mu.Lock()
		defer s.mu.Unlock()
		if rr := s.records[strings.ToLower(q.Question[0].Name)+dns.TypeToString[q.Question[0].Qtype]]; rr != nil {
			m.Rcode, m.Answer = dns.RcodeSuccess, []dns.RR{rr}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe(); close(ended) }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	return packets.LocalAddr().String()
}
