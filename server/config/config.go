// Package config reads the configuration: one strict YAML file.
//
//	data_dir: data                  # the store; relative paths begin at this file
//	grpc:
//	  listen: 127.0.0.1:8025        # beyond loopback only with tls, or insecure: true
//	  tls: {cert: server.crt, key: server.key}
//	  insecure: false
//	  max_connections: 1000         # at a time; more wait to be taken
//	  max_calls: 1000               # calls under way that take something in, and as many others; more are refused
//	  max_streams: 2000             # open streams of feedback and of other answers; more are refused
//	  max_uploads: 1000             # open streams of recipients and address entries; more are refused
//	  max_ingest_bytes: 64MiB       # of recipients that are not durable yet, and as much of other requests
//	http:
//	  listen: 127.0.0.1:8026        # /metrics, /healthz, /readyz; "" for none
//	dns:
//	  server: ""                    # host:port; "" is the system's (sandbox: the built-in receivers')
//	relay:
//	  hostname: mail.brand.example  # EHLO name of sources without one of their own
//	  mode: sandbox                 # sandbox, redirect or live
//	  redirect: 127.0.0.1:2525      # where everything goes in mode redirect
//	  smtp_port: 25
//	  allow_private_addresses: false
//	  max_sessions: 1000
//	  pools:                        # a pool is its list of sources
//	    default:
//	      sources:
//	        - {name: a, address: 198.51.100.7, hostname: a.brand.example, weight: 1}
//	        - {name: b, address: 198.51.100.8, warm_up: on} # or {stage: 3, plan: slow}; left out: off
//	      overflow: shared          # takes what these may not send for their warm-up; left out: it waits
//	      move_blocked: false       # true: while a receiver blocks a source for its reputation, the others take its mail
//	  warm_up:                      # the plan of new sources; left out: 29 stages from 200 to 10 million a day
//	    caps: [200, 500, 1000]      # messages a UTC day, by stage
//	    hours: "08-20"              # of the UTC day, over which they are released; left out: all
//	    providers: {google: 0.5, yahoo: [100, 200]} # a share of the cap, or caps of their own
//	    plans:                      # others, by name
//	      slow: {caps: [50, 100, 200]}
//	dkim:
//	  domains:                      # a domain may have several, for example RSA and Ed25519
//	    - {domain: brand.example, selector: s1, key_file: s1.pem, bounce_domain: bounce.brand.example}
//	mx_rules: mx.yaml               # "" is the built-in table
//	bounce_rules: bounces.yaml      # in front of the embedded rules; "" is bounces.yaml in data_dir, if there is one
//	inbound:                        # mail that comes back: bounces, complaints, unsubscribes
//	  listen: 0.0.0.0:25            # "" for none; sandbox: a free port of loopback unless given
//	  hostname: bounce.brand.example # of the greeting; "" is relay.hostname
//	  tls: {cert: mx.crt, key: mx.key} # for STARTTLS
//	  addresses: [abuse@brand.example] # taken beside the tokens issued; left out: abuse, postmaster and fbl at each bounce domain
//	  unsubscribe: [leave@brand.example] # for mailto unsubscribes; left out: unsubscribe at each bounce domain
//	  max_message_bytes: 10485760
//	  max_connections: 200
//	  max_connections_per_client: 20
//	  messages_per_minute: 3000     # from one client address
//	public:                         # hosted one-click unsubscribe, nothing else
//	  listen: 0.0.0.0:443           # "" for none; sandbox: a free port of loopback unless given
//	  url: https://u.brand.example  # how readers reach it; links are made of it
//	  tls: {cert: u.crt, key: u.key} # "" behind a proxy that ends TLS
//	addresses:
//	  threshold: 5                  # counted errors that quarantine an address
//	  scope: tenant                 # tenant or all: for whom errors count
//	  unsubscribe: list             # list or tenant: what an unsubscribe ends
//	protection:                     # pauses a delivery that harms its sender
//	  enabled: true
//	  hard_percent: 10              # of the attempts at a destination, after hard_after
//	  hard_after: 500
//	  complaint_percent: 0.3        # of mail delivered to destinations that report complaints
//	  complaint_least: 10
//	  auth_percent: 20              # of the attempts at a destination, after auth_after
//	  auth_after: 20
//	  auth_domains: 5               # or the same rejection from so many unrelated domains
//	  content_percent: 20           # of the attempts at a destination, after content_after, when other
//	  content_after: 50             # deliveries are not refused there for their content as well
//	memory:
//	  max: 3GiB                     # of heap and stacks, above which nothing new is taken in; 0 for no limit;
//	                                # left out: three quarters of what the machine or the control group has
//	storage:
//	  min_free: 1GiB                # free disk below which nothing new is taken in; 0 for no limit
//	  min_free_sending: 512MiB      # below which sending pauses, too; at most min_free
//	retention:                      # 0 keeps for ever
//	  events_age: 30d               # events older than this are removed, the oldest first
//	  events_size: 8GiB             # the same when they take more of the disk than this
//	  messages: 60d                 # content and messages go so long behind a delivery's end
//	sandbox:
//	  time_scale: 1                 # divides retry, validity and greylist periods
//	log:
//	  level: info                   # debug, info, warn or error
//	  format: text                  # text or json
//	  addresses: redact             # redact or plain
//
// Every key may be left out. A reload changes pools, sources, plans of warm-up, MX rules,
// bounce rules, keys, addresses, protection, storage and retention; a source keeps the stage of its warm-up,
// by its name and address, whatever becomes of the plan: `veredus sources warm-up` sets it. Load and Parse report everything that is wrong with
// a file at once, each with its line.
package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Defaults of keys that other programs share.
const (
	// DefaultGRPCListen is where the gRPC services listen, and where clients look for them.
	DefaultGRPCListen = "127.0.0.1:8025"
	// DefaultHTTPListen is where metrics and health are.
	DefaultHTTPListen = "127.0.0.1:8026"
	// DefaultPool is the pool of deliveries that name none.
	DefaultPool = "default"
)

// MaxSize is the largest file read, in bytes.
const MaxSize = 1 << 20

// Config is a checked configuration. Paths in it are ready to be opened.
type Config struct {
	// File is where it was read from; empty without a file.
	File        string
	DataDir     string
	GRPC        GRPC
	HTTP        HTTP
	DNS         DNS
	Relay       Relay
	DKIM        DKIM
	MXRules     string // file; empty: the built-in table
	BounceRules string // file; empty: bounces.yaml in DataDir, if there is one
	Inbound     Inbound
	Public      Public
	Addresses   Addresses
	Protection  Protection
	Memory      Memory
	Storage     Storage
	Retention   Retention
	Sandbox     Sandbox
	Log         Log
	// Warnings are things that work and should be mended.
	Warnings []string
}

// GRPC is the port of the services.
type GRPC struct {
	Listen   string // host:port; port 0 takes a free one
	TLS      TLSFiles
	Insecure bool // plaintext beyond loopback is wanted
	// MaxConnections are served at a time: 1 to 100,000.
	MaxConnections int
	// MaxCalls that take something in may be under way at a time, and as many others: 1 to 100,000.
	MaxCalls int
	// MaxStreams of answers, and MaxUploads, may be open at a time: 1 to 100,000 each.
	MaxStreams, MaxUploads int
	// MaxIngestBytes is how many octets of recipients may be taken in and not durable,
	// and how many octets of other requests may be under way: from LeastIngestBytes.
	MaxIngestBytes int64
}

// TLSFiles name a certificate and its key, in PEM; both empty for plaintext.
type TLSFiles struct{ Cert, Key string }

// HTTP is the port of metrics and health.
type HTTP struct {
	Listen string // host:port; empty: none
}

// DNS is who answers the relay's questions.
type DNS struct {
	Server string // host:port; empty: the system's
}

// Mode is where mail may go.
type Mode string

// The modes.
const (
	// Sandboxed: built-in receivers on loopback only.
	Sandboxed Mode = "sandbox"
	// Redirect: everything goes to one host and port.
	Redirect Mode = "redirect"
	// Live: the public internet.
	Live Mode = "live"
)

// Relay is the embedded MTA.
type Relay struct {
	Hostname              string // EHLO name; empty: chosen by Hello
	SMTPPort              int    // 1 to 65535
	Mode                  Mode
	Redirect              string // host:port
	AllowPrivateAddresses bool
	MaxSessions           int          // 1 to 100000
	Pools                 []Pool       // by name; in sandbox and redirect there is always a default pool
	WarmUps               []WarmUpPlan // by name: those configured or used
}

// Pool is a named set of sources.
type Pool struct {
	Name     string
	Sources  []Source
	Overflow string // pool that takes what Sources may not send for their warm-up; empty: none
	// MoveBlocked lets mail that a source may not send for a block of its reputation go by
	// the others.
	MoveBlocked bool
}

// Source is a sending identity.
type Source struct {
	Name     string
	Address  netip.Addr // the zero Addr leaves the choice to the system; never in live mode
	Hostname string     // EHLO name
	Weight   int        // 1 to 1000
	WarmUp   *WarmUp    // nil: none
}

// DKIM holds what signs.
type DKIM struct{ Domains []Domain }

// Domain is a signing key and the return path of what it signs.
type Domain struct {
	Domain       string // A-label
	Selector     string
	KeyFile      string
	BounceDomain string // A-label; empty: the From domain itself
}

// Inbound is the listener for mail that comes back.
type Inbound struct {
	Listen      string // host:port; empty: none
	Hostname    string
	TLS         TLSFiles
	Addresses   []string // full addresses in lower case; nil: the usual ones at each bounce domain
	Unsubscribe []string // the same for unsubscribe mails
	// MaxMessageBytes is 64 KiB to 1 GiB; the others are 1 to 100,000.
	MaxMessageBytes, MaxConnections, MaxConnectionsPerClient, MessagesPerMinute int
}

// Public is the listener of hosted unsubscribe links.
type Public struct {
	Listen string // host:port; empty: none
	URL    string // https://host[/path] without a slash at its end; links begin with it
	TLS    TLSFiles
}

// Addresses say what errors and wishes do to addresses.
type Addresses struct {
	Threshold         int  // 1 to 100
	AllTenants        bool // scope: all
	TenantUnsubscribe bool // unsubscribe: tenant
}

// Protection has the thresholds that pause a delivery.
type Protection struct {
	Enabled          bool
	HardPercent      float64
	HardAfter        int
	ComplaintPercent float64
	ComplaintLeast   int
	AuthPercent      float64
	AuthAfter        int
	AuthDomains      int
	ContentPercent   float64
	ContentAfter     int
}

// Memory says how much the process may use.
type Memory struct {
	// Max is octets of heap and stacks above which nothing new is taken in; 0 is no
	// limit, and below it the node decides by what the machine has.
	Max int64
}

// text shows the limit.
func (m Memory) text() string {
	if m.Max < 0 {
		return "by the machine"
	}
	return SizeText(m.Max)
}

// LeastIngestBytes is two of the largest requests.
const LeastIngestBytes = 8 << 20

// LeastMemory is what a node needs in any case.
const LeastMemory = 128 << 20

// Storage says how much of the disk stays free, in octets; 0 is no limit.
type Storage struct {
	MinFree        int64 // below it nothing new is taken in
	MinFreeSending int64 // below it sending pauses; at most MinFree
}

// Retention says how long things are kept; 0 is for ever.
type Retention struct {
	EventsAge  time.Duration // of feedback events
	EventsSize int64         // octets of disk that feedback events may take
	Messages   time.Duration // of content and messages, behind the end of their delivery
}

// Sandbox changes how fast time passes for mail.
type Sandbox struct {
	TimeScale float64 // at least 1
}

// Log is what operators read.
type Log struct {
	Level  slog.Level
	Format string // text or json
	Plain  bool   // mail addresses are written out
}

// Default is the configuration without a file: a sandbox on loopback. DNS.Server
// and Relay.SMTPPort must be set to receivers on loopback before it is of use.
func Default() *Config {
	c := blank()
	c.fill()
	return c
}

// blank has the values of keys that are left out.
func blank() *Config {
	return &Config{
		DataDir: "data",
		GRPC: GRPC{
			Listen: DefaultGRPCListen, MaxConnections: 1000,
			MaxCalls: 1000, MaxStreams: 2000, MaxUploads: 1000, MaxIngestBytes: 64 << 20,
		},
		HTTP:  HTTP{Listen: DefaultHTTPListen},
		Relay: Relay{Mode: Sandboxed, SMTPPort: 25, MaxSessions: 1000},
		Inbound: Inbound{
			MaxMessageBytes: 10 << 20, MaxConnections: 200, MaxConnectionsPerClient: 20, MessagesPerMinute: 3000,
		},
		Addresses: Addresses{Threshold: 5},
		Protection: Protection{
			Enabled: true, HardPercent: 10, HardAfter: 500, ComplaintPercent: 0.3, ComplaintLeast: 10,
			AuthPercent: 20, AuthAfter: 20, AuthDomains: 5, ContentPercent: 20, ContentAfter: 50,
		},
		Memory:    Memory{Max: -1},
		Storage:   Storage{MinFree: 1 << 30, MinFreeSending: 512 << 20},
		Retention: Retention{EventsAge: 30 * day, EventsSize: 8 << 30, Messages: 60 * day},
		Sandbox:   Sandbox{TimeScale: 1},
		Log:       Log{Format: "text"},
	}
}

// Load reads a file. What is wrong with its content is an *Errors.
func Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if info.IsDir() || info.Size() > MaxSize {
		return nil, fmt.Errorf("configuration file %s: give a file of at most %d bytes", path, MaxSize)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration. name is the file's path: it stands in errors, and
// relative paths begin at its directory. Errors are an *Errors.
func Parse(name string, data []byte) (*Config, error) {
	c := blank()
	c.File = name
	p := &parser{file: name, lines: map[string]int{}}
	if p.read(c, data) {
		p.check(c)
	}
	if p.errs.count() > 0 {
		return nil, p.errs.sorted()
	}
	c.resolvePaths(filepath.Dir(name))
	c.fill()
	return c, nil
}

// resolvePaths makes relative paths begin at the file's directory.
func (c *Config) resolvePaths(dir string) {
	paths := []*string{
		&c.DataDir, &c.GRPC.TLS.Cert, &c.GRPC.TLS.Key, &c.MXRules, &c.BounceRules,
		&c.Inbound.TLS.Cert, &c.Inbound.TLS.Key, &c.Public.TLS.Cert, &c.Public.TLS.Key,
	}
	for i := range c.DKIM.Domains {
		paths = append(paths, &c.DKIM.Domains[i].KeyFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// fill completes what follows from other keys.
func (c *Config) fill() {
	if c.Relay.Hostname == "" {
		c.Relay.Hostname = "sandbox.veredus.example"
		if host, err := os.Hostname(); c.Relay.Mode != Sandboxed && err == nil && hostname(host) == nil {
			c.Relay.Hostname = host
		}
	}
	if c.Relay.Mode != Live && !c.hasPool(DefaultPool) {
		c.Relay.Pools = append(c.Relay.Pools, Pool{Name: DefaultPool, Sources: []Source{{Name: "local", Weight: 1}}})
	}
	c.fillWarmUps()
	if c.Inbound.Hostname == "" {
		c.Inbound.Hostname = c.Relay.Hostname
	}
	for _, pool := range c.Relay.Pools {
		for i := range pool.Sources {
			if pool.Sources[i].Hostname == "" {
				pool.Sources[i].Hostname = c.Relay.Hostname
			}
		}
	}
}

func (c *Config) hasPool(name string) bool {
	for _, p := range c.Relay.Pools {
		if p.Name == name {
			return true
		}
	}
	return false
}
