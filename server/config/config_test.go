package config

import (
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestWithoutAFileItIsASandboxOnLoopback(t *testing.T) {
	c := Default()
	empty, err := Parse("veredus.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	comments, err := Parse("veredus.yaml", []byte("# nothing yet\ngrpc:\nrelay:\n  # pools:\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*Config{empty, comments} {
		f.File = ""
		if !reflect.DeepEqual(f, c) {
			t.Errorf("an empty file is %+v, no file %+v", f, c)
		}
	}
	if !Loopback(c.GRPC.Listen) || !Loopback(c.HTTP.Listen) || c.Relay.Mode != Sandboxed || c.Relay.SMTPPort != 25 || c.Sandbox.TimeScale != 1 || c.Log.Plain {
		t.Errorf("defaults: %+v", c)
	}
	if p := c.Relay.Pools; len(p) != 1 || p[0].Name != "default" || p[0].Sources[0].Address.IsValid() || p[0].Sources[0].Hostname == "" {
		t.Errorf("default pool: %+v", p)
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	c, err := Parse("/etc/veredus/veredus.yaml", []byte(`
data_dir: /var/lib/veredus
grpc:
  listen: 0.0.0.0:9000
  tls: {cert: tls/server.crt, key: /etc/tls/server.key}
  max_connections: 77
  max_calls: 11
  max_streams: 12
  max_uploads: 13
  max_ingest_bytes: 9MiB
http: {listen: ""}
dns: {server: "127.0.0.1:5353"}
relay:
  hostname: mail.brand.example
  mode: live
  redirect: 127.0.0.1:2525
  smtp_port: 2525
  allow_private_addresses: true
  max_sessions: 50
  pools:
    warm: [{name: w, address: "2001:db8::1", hostname: w.brand.example, weight: 7}]
    default:
      sources:
        - {address: 127.0.0.1}
        - {name: b, address: "::ffff:127.0.0.2"}
dkim:
  domains:
    - {domain: Brand.Example, selector: s1, key_file: keys/s1.pem, bounce_domain: Bounce.brand.example}
    - {domain: brand.example, selector: 2026, key_file: /keys/ed.pem}
mx_rules: mx.yaml
bounce_rules: bounces.yaml
inbound:
  listen: 0.0.0.0:25
  hostname: mx.brand.example
  tls: {cert: mx.crt, key: mx.key}
  addresses: [Abuse@brand.example]
  unsubscribe: [leave@brand.example]
  max_message_bytes: 1000000
  max_connections: 7
  max_connections_per_client: 3
  messages_per_minute: 60
public:
  listen: 127.0.0.1:8027
  url: https://u.brand.example/mail
  tls: {cert: u.crt, key: /u.key}
addresses: {threshold: 3, scope: all, unsubscribe: tenant}
protection: {enabled: false, hard_percent: 5, hard_after: 100, complaint_percent: 0.1, complaint_least: 5, auth_percent: 10, auth_after: 30, auth_domains: 4, content_percent: 30, content_after: 40}
memory: {max: 2GiB}
storage: {min_free: 3GiB, min_free_sending: 1GiB}
retention: {events_age: 10d, events_size: 1GiB, messages: 20d}
sandbox: {time_scale: 1}
log: {level: warn, format: json, addresses: plain}
`))
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	want := &Config{
		File: "/etc/veredus/veredus.yaml", DataDir: "/var/lib/veredus",
		GRPC: GRPC{Listen: "0.0.0.0:9000", TLS: TLSFiles{Cert: "/etc/veredus/tls/server.crt", Key: "/etc/tls/server.key"}, MaxConnections: 77, MaxCalls: 11, MaxStreams: 12, MaxUploads: 13, MaxIngestBytes: 9 << 20},
		DNS:  DNS{Server: "127.0.0.1:5353"},
		Relay: Relay{
			Hostname: "mail.brand.example", Mode: Live, Redirect: "127.0.0.1:2525", SMTPPort: 2525, AllowPrivateAddresses: true, MaxSessions: 50,
			Pools: []Pool{
				{Name: "default", Sources: []Source{
					{Name: "127.0.0.1", Address: addr("127.0.0.1"), Hostname: "mail.brand.example", Weight: 1},
					{Name: "b", Address: addr("127.0.0.2"), Hostname: "mail.brand.example", Weight: 1},
				}},
				{Name: "warm", Sources: []Source{{Name: "w", Address: addr("2001:db8::1"), Hostname: "w.brand.example", Weight: 7}}},
			},
		},
		DKIM: DKIM{Domains: []Domain{
			{Domain: "brand.example", Selector: "s1", KeyFile: "/etc/veredus/keys/s1.pem", BounceDomain: "bounce.brand.example"},
			{Domain: "brand.example", Selector: "2026", KeyFile: "/keys/ed.pem"},
		}},
		MXRules: "/etc/veredus/mx.yaml", BounceRules: "/etc/veredus/bounces.yaml",
		Inbound: Inbound{
			Listen: "0.0.0.0:25", Hostname: "mx.brand.example",
			TLS:       TLSFiles{Cert: "/etc/veredus/mx.crt", Key: "/etc/veredus/mx.key"},
			Addresses: []string{"abuse@brand.example"}, Unsubscribe: []string{"leave@brand.example"},
			MaxMessageBytes: 1_000_000, MaxConnections: 7, MaxConnectionsPerClient: 3, MessagesPerMinute: 60,
		},
		Public: Public{
			Listen: "127.0.0.1:8027", URL: "https://u.brand.example/mail",
			TLS: TLSFiles{Cert: "/etc/veredus/u.crt", Key: "/u.key"},
		},
		Addresses: Addresses{Threshold: 3, AllTenants: true, TenantUnsubscribe: true},
		Protection: Protection{
			HardPercent: 5, HardAfter: 100, ComplaintPercent: 0.1, ComplaintLeast: 5,
			AuthPercent: 10, AuthAfter: 30, AuthDomains: 4, ContentPercent: 30, ContentAfter: 40,
		},
		Memory:    Memory{Max: 2 << 30},
		Storage:   Storage{MinFree: 3 << 30, MinFreeSending: 1 << 30},
		Retention: Retention{EventsAge: 10 * day, EventsSize: 1 << 30, Messages: 20 * day},
		Sandbox:   Sandbox{TimeScale: 1}, Log: Log{Level: slog.LevelWarn, Format: "json", Plain: true},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// Each file of testdata is wrong in several places; beside it stands what is said.
func TestEverythingWrongIsSaidWithItsLine(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), data)
			var bad *Errors
			if !errors.As(err, &bad) {
				t.Fatalf("error %v", err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".errors"
			if *update {
				if err := os.WriteFile(golden, []byte(bad.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := bad.Error() + "\n"; got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// One wrong key at a time.
func TestWhatIsRefused(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"grpc: {listen: 0.0.0.0:8025}", "grpc.listen: 0.0.0.0:8025 can be reached from other machines"},
		{"grpc: {listen: ':8025'}", "can be reached from other machines"},
		{"grpc: {listen: 192.0.2.1:8025}", "can be reached from other machines"},
		{"grpc: {listen: mail.example:8025}", "can be reached from other machines"},
		{"grpc: {listen: '[::]:8025'}", "can be reached from other machines"},
		{"grpc: {listen: 8025}", `"8025" is not host:port`},
		{"grpc: {tls: {cert: a}}", "grpc.tls needs both cert and key"},
		{"grpc: {insecure: true, tls: {cert: a, key: b}}", "contradicts grpc.tls"},
		{"relay: {mode: production}", `relay.mode: "production" is unknown; use sandbox, redirect or live`},
		{"relay: {mode: redirect}", "needs relay.redirect"},
		{"relay: {mode: live, hostname: a.example}", "needs relay.pools"},
		{"relay: {mode: live, pools: {p: [{name: a, address: 198.51.100.7}]}}", "has no hostname"},
		{"relay: {mode: live, hostname: a.example, pools: {p: [{name: a}]}}", "has no address"},
		{"relay: {mode: live, hostname: a.example, pools: {p: [{name: a, address: 127.0.0.1}]}}", "cannot reach the internet"},
		{"relay: {mode: live, hostname: a.example, pools: {p: [{name: a, address: 0.0.0.0}]}}", "0.0.0.0 names no address"},
		{"relay: {mode: live, hostname: a.example, pools: {p: [{name: a, address: '::'}]}}", ":: names no address"},
		{"relay: {pools: {p: [{name: a, address: ff02::1}]}}", "multicast"},
		{"relay: {pools: {p: []}}", "relay.pools.p has no source"},
		{"relay: {pools: {'a b': [{name: a}]}}", "pool name"},
		{"relay: {pools: {p: [{name: a, address: 127.0.0.1}, {name: a, address: 127.0.0.2}]}}", "source a is in this pool already"},
		{"relay: {pools: {p: [{name: a, address: 127.0.0.1}], q: [{name: a, address: 127.0.0.2}]}}", "another address or hostname in another pool"},
		{"relay: {pools: {p: [{weight: 0, name: a}]}}", "weight: 0 is out of range; use 1 to 1000"},
		{"relay: {hostname: mail}", "not a full host name"},
		{"relay: {smtp_port: 0}", "use 1 to 65535"},
		{"relay: {mode: redirect, redirect: 'a.example:25'}\nsandbox: {time_scale: 10}", "works in relay.mode sandbox only"},
		{"sandbox: {time_scale: 0.5}", "use 1 to 1000000"},
		{"sandbox: {time_scale: .nan}", "out of range"},
		{"dkim: {domains: [{domain: a.example}]}", "has no selector"},
		{"dkim: {domains: [{domain: a.example, selector: s, key_file: k}, {domain: A.example, selector: s, key_file: l}]}", "s._domainkey.a.example is given twice"},
		{"dkim: {domains: [{domain: a.example, selector: s, key_file: k, bounce_domain: x.a.example}, {domain: a.example, selector: t, key_file: l, bounce_domain: y.a.example}]}", "a domain has one"},
		{"grpc: {max_calls: 0}", "grpc.max_calls: 0 is out of range; use 1 to 100000"},
		{"grpc: {max_ingest_bytes: 1MiB}", "grpc.max_ingest_bytes: 1MiB is out of range; use 8MiB or more"},
		{"memory: {max: 64MiB}", "memory.max: 64MiB is out of range; use 128MiB or more, or 0 for no limit"},
		{"data_dir: [a]", "data_dir must be a text, not a list"},
		{"data_dir: ''", "data_dir: is empty"},
		{"mx_rules: *rules", "unknown anchor"},
		{"- a", "the file must be a mapping"},
		{"a: &x 1\nb: *x", "unknown key"},
		{"dns: &x {server: ''}", "anchors, aliases and tags"},
		{"dns: {server: '127.0.0.1'}", "not host:port"},
		{"grpc: {}\n---\nhttp: {}", "a second document"},
		{"grpc: {", "did not find"},
	} {
		_, err := Parse("f.yaml", []byte(c.yaml))
		var bad *Errors
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngives %v\nwithout %q", c.yaml, err, c.want)
		}
	}
}

func TestWhatIsAllowed(t *testing.T) {
	for _, yaml := range []string{
		"grpc: {listen: 'localhost:0'}",
		"grpc: {listen: '[::1]:8025'}",
		"grpc: {listen: 127.5.5.5:8025}",
		"grpc: {listen: 0.0.0.0:8025, insecure: true}",
		"grpc: {listen: ':8025', tls: {cert: a, key: b}}",
		"relay: {mode: live, allow_private_addresses: true, hostname: a.example, pools: {p: {sources: [{name: a, address: 127.0.0.1}]}}}",
		"relay: {mode: redirect, redirect: 'mailhog:1025'}",
		"relay: {hostname: mta.localhost}",
		"sandbox: {time_scale: 36000}",
	} {
		if _, err := Parse("f.yaml", []byte(yaml)); err != nil {
			t.Errorf("%s\ngives %v", yaml, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	c, err := Parse("f.yaml", []byte("http: {listen: 0.0.0.0:80}\nrelay: {pools: {p: [{name: a, address: 127.0.0.1}, {name: b, address: 127.0.0.1}]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 2 || !strings.Contains(c.Warnings[0], "http.listen") || !strings.Contains(c.Warnings[1], "share the address 127.0.0.1") {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestWhatNeedsARestart(t *testing.T) {
	was, is := Default(), Default()
	is.GRPC.Listen, is.Relay.MaxSessions, is.Log.Plain, is.DNS.Server = "127.0.0.1:9", 7, true, "127.0.0.1:53"
	is.Relay.Hostname, is.MXRules = "new.example", "mx.yaml"
	want := []string{
		"grpc.listen: 127.0.0.1:8025 -> 127.0.0.1:9 needs a restart",
		`dns.server: "" -> 127.0.0.1:53 needs a restart`,
		"relay.max_sessions: 1000 -> 7 needs a restart",
		"log.addresses: redact -> plain needs a restart",
	}
	if got := NeedsRestart(was, is); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	force := is.WithFixed(was)
	if got := NeedsRestart(was, force); got != nil {
		t.Errorf("still different: %q", got)
	}
	if force.Relay.Hostname != "new.example" || force.MXRules != "mx.yaml" {
		t.Errorf("what can change did not: %+v", force)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "missing.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a folder was read")
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("big: %v", err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("f.yaml", []byte(strings.Repeat("? []\n: 1\n", 10*MaxErrors)))
	var bad *Errors
	if !errors.As(err, &bad) || len(bad.List) != MaxErrors || bad.More != 9*MaxErrors || !strings.HasSuffix(err.Error(), "and 450 more") {
		t.Errorf("error %v", err)
	}
}

// Whatever a file holds: it is read or refused, and what is read holds its promises.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"several.yaml", "types.yaml", "modes.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("relay: {pools: {p: {sources: [{name: a, address: 127.0.0.1}]}}}"))
	f.Add([]byte("a: &a [*a]\n<<: *a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.yaml", data)
		if err != nil {
			var bad *Errors
			if !errors.As(err, &bad) || len(bad.List) == 0 || len(bad.List) > MaxErrors {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !Loopback(c.GRPC.Listen) && !c.GRPC.Insecure && c.GRPC.TLS.Cert == "" {
			t.Errorf("open port %s", c.GRPC.Listen)
		}
		if len(c.Relay.Pools) == 0 || c.Relay.SMTPPort < 1 || c.Relay.MaxSessions < 1 || !(c.Sandbox.TimeScale >= 1) {
			t.Errorf("config %+v", c)
		}
		for _, p := range c.Relay.Pools {
			for _, s := range p.Sources {
				if s.Name == "" || s.Hostname == "" || s.Weight < 1 || s.Address.IsValid() && s.Address.IsUnspecified() {
					t.Errorf("source %+v", s)
				}
			}
		}
	})
}
