package config

import "fmt"

// NeedsRestart lists what differs between two configurations and cannot change
// while the server runs, one line for each key: "KEY: OLD -> NEW".
func NeedsRestart(was, is *Config) []string {
	var lines []string
	before, after := was.fixed(), is.fixed()
	for i, key := range after {
		if old := before[i].value; old != key.value {
			lines = append(lines, fmt.Sprintf("%s: %s -> %s needs a restart", key.name, old, key.value))
		}
	}
	return lines
}

type key struct{ name, value string }

// fixed are the keys that hold until the process ends.
func (c *Config) fixed() []key {
	addresses := "redact"
	if c.Log.Plain {
		addresses = "plain"
	}
	return []key{
		{"data_dir", c.DataDir},
		{"grpc.listen", c.GRPC.Listen},
		{"grpc.insecure", fmt.Sprint(c.GRPC.Insecure)},
		{"grpc.max_connections", fmt.Sprint(c.GRPC.MaxConnections)},
		{"grpc.max_calls", fmt.Sprint(c.GRPC.MaxCalls)},
		{"grpc.max_streams", fmt.Sprint(c.GRPC.MaxStreams)},
		{"grpc.max_uploads", fmt.Sprint(c.GRPC.MaxUploads)},
		{"grpc.max_ingest_bytes", SizeText(c.GRPC.MaxIngestBytes)},
		{"grpc.tls.cert", quoted(c.GRPC.TLS.Cert)},
		{"grpc.tls.key", quoted(c.GRPC.TLS.Key)},
		{"http.listen", quoted(c.HTTP.Listen)},
		{"dns.server", quoted(c.DNS.Server)},
		{"relay.smtp_port", fmt.Sprint(c.Relay.SMTPPort)},
		{"relay.mode", string(c.Relay.Mode)},
		{"relay.redirect", quoted(c.Relay.Redirect)},
		{"relay.allow_private_addresses", fmt.Sprint(c.Relay.AllowPrivateAddresses)},
		{"relay.max_sessions", fmt.Sprint(c.Relay.MaxSessions)},
		{"inbound.listen", quoted(c.Inbound.Listen)},
		{"inbound.hostname", c.Inbound.Hostname},
		{"inbound.tls.cert", quoted(c.Inbound.TLS.Cert)},
		{"inbound.tls.key", quoted(c.Inbound.TLS.Key)},
		{"inbound.max_message_bytes", fmt.Sprint(c.Inbound.MaxMessageBytes)},
		{"inbound.max_connections", fmt.Sprint(c.Inbound.MaxConnections)},
		{"inbound.max_connections_per_client", fmt.Sprint(c.Inbound.MaxConnectionsPerClient)},
		{"inbound.messages_per_minute", fmt.Sprint(c.Inbound.MessagesPerMinute)},
		{"public.listen", quoted(c.Public.Listen)},
		{"public.url", quoted(c.Public.URL)},
		{"public.tls.cert", quoted(c.Public.TLS.Cert)},
		{"public.tls.key", quoted(c.Public.TLS.Key)},
		{"memory.max", c.Memory.text()},
		{"sandbox.time_scale", fmt.Sprint(c.Sandbox.TimeScale)},
		{"log.level", c.Log.Level.String()},
		{"log.format", c.Log.Format},
		{"log.addresses", addresses},
	}
}

// quoted shows an empty value.
func quoted(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// WithFixed is a copy of c in which the keys that hold until the process ends are
// those of boot: what is in force after a reload of c.
func (c *Config) WithFixed(boot *Config) *Config {
	n := *c
	n.DataDir, n.GRPC, n.HTTP, n.DNS = boot.DataDir, boot.GRPC, boot.HTTP, boot.DNS
	n.Memory, n.Sandbox, n.Log = boot.Memory, boot.Sandbox, boot.Log
	addresses, unsubscribe := n.Inbound.Addresses, n.Inbound.Unsubscribe
	n.Inbound, n.Public = boot.Inbound, boot.Public
	n.Inbound.Addresses, n.Inbound.Unsubscribe = addresses, unsubscribe
	hostname, pools, warmUps := n.Relay.Hostname, n.Relay.Pools, n.Relay.WarmUps
	n.Relay = boot.Relay
	n.Relay.Hostname, n.Relay.Pools, n.Relay.WarmUps = hostname, pools, warmUps
	return &n
}
