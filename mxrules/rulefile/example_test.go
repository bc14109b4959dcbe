package rulefile_test

import (
	"fmt"

	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
)

// The example of the package comment.
const example = `
# false leaves the built-in providers and rules out; the default is true.
builtin: true

# Providers by MX host suffix. One with the name of a built-in provider replaces it.
providers:
  - name: acme
    suffixes: [.mx.acme.example]

# In order: for each setting the first rule that matches and has it decides.
rules:
  - id: acme-from-new-sources       # unique; letters, digits, . - _
    match:                          # every kind given must be met, by one of its values
      mx: "*.mx.acme.example"       # mask on the best MX host; * and ? are wildcards
      provider: acme                # one name or a list, built-in or from providers
      domain: [acme.example, "*.acme.example"]
      source: 192.0.2.0/28          # address, prefix or first-last
    connections: 2                  # open at once: 1 to 10000 or unlimited
    messages_per_connection: 20     # 1 to 1000000 or unlimited
    connection_rate: 30/min         # COUNT/UNIT: s, min, h, d or a duration
    message_rate: 6000/min burst 50 # at most 50 at once; 1 if not said
    messages_per_hour: 20000        # metered continuously, 5 % kept for transactional mail
    messages_per_day: 200000        # metered continuously
    scope: shared                   # shared by all sources, or per_source
    tls: encrypt                    # none, opportunistic, encrypt or verify
    pipelining: auto                # auto or off
    chunking: off                   # auto or off
    connect_timeout: 10s            # 10ms to 1h, as all timeouts
    data_timeout: 4m                # without progress while content is sent
    final_dot_timeout: 10m          # for the reply to the whole message
    command_timeout: 1m             # for every other reply
  - id: everyone                    # without match: every path; only as the last rule
    connections: 8
`

func ExampleParse() {
	rules, err := rulefile.Parse("mx.yaml", []byte(example))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, host := range []string{"in.mx.acme.example", "gmail-smtp-in.l.google.com"} {
		e := rules.Match(mxrules.Query{Host: host, Domain: "acme.example"})
		fmt.Println(host, rules.ProviderOf(host))
		for _, f := range []mxrules.Field{mxrules.FieldConnections, mxrules.FieldTLS} {
			o := e.Origins[f]
			fmt.Printf("  %v %s (%s, %s)\n", f, e.Limits.Text(f), o.Rule, mxrules.Position{File: o.File, Line: o.Line})
		}
	}
	// Output:
	// in.mx.acme.example acme
	//   connections 8 (everyone, mx.yaml:33)
	//   tls opportunistic (builtin-everyone-else, built-in)
	// gmail-smtp-in.l.google.com google
	//   connections 8 (everyone, mx.yaml:33)
	//   tls encrypt (builtin-google, built-in)
}

func ExampleParse_errors() {
	_, err := rulefile.Parse("mx.yaml", []byte(`
rules:
  - id: acme
    match: {mx: "*.acme.example"}
    conections: 4
    message_rate: 100 per second
`))
	fmt.Println(err)
	// Output:
	// mx.yaml:5: unknown key "conections" in rule; known are id, match, connections, messages_per_connection, connection_rate, message_rate, messages_per_hour, messages_per_day, scope, tls, pipelining, chunking, connect_timeout, command_timeout, data_timeout, final_dot_timeout, governor, reactions
	// mx.yaml:6: message_rate: "100 per second" is not a rate; write "100/s", "6000/min burst 50", "50000/h" or "unlimited"
}
