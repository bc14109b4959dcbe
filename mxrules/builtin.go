package mxrules

import "time"

// BuiltinFile is the file named by the positions of built-in rules.
const BuiltinFile = "built-in"

// builtinRow is one row of the provider table: starting figures per source, as the
// deliverability community practises them. A row without connections has none of its
// own: it is in the table to be known.
type builtinRow struct {
	name                  string
	suffixes              []string
	connections           int
	messagesPerConnection int
	requireTLS            bool
	shared                bool     // its hosts serve unrelated organisations,
	own                   []string // but for these domains of its own
}

func builtinTable() []builtinRow {
	return []builtinRow{
		{"google", []string{".google.com", ".googlemail.com"}, 5, 50, true, true, []string{"gmail.com", "googlemail.com"}},
		{"yahoo", []string{".yahoodns.net"}, 10, 20, false, false, nil},
		{"outlook", []string{".olc.protection.outlook.com"}, 5, 50, false, false, nil},
		{"microsoft365", []string{".mail.protection.outlook.com", ".mx.microsoft"}, 5, 50, false, true, nil},
		{"apple", []string{".icloud.com"}, 10, 5, false, false, nil},
		{"comcast", []string{".comcast.net"}, 25, 1000, false, false, nil},
		{"orange", []string{".orange.fr"}, 2, 100, true, false, nil},
		{"gmx", []string{".gmx.net", ".web.de"}, 4, 20, false, false, nil},
		{"qq", []string{".qq.com"}, 4, 8, false, false, nil},
		{"netease", []string{".163.com", ".netease.com"}, 4, 7, false, false, nil},
		{"yahoo-japan", []string{".yahoo.co.jp"}, 2, 20, false, false, nil},
		{"mimecast", []string{".mimecast.com", ".mimecast.co.za"}, 0, 0, false, true, nil},
		{"proofpoint", []string{".pphosted.com", ".ppe-hosted.com"}, 0, 0, false, true, nil},
		{"barracuda", []string{".barracudanetworks.com"}, 0, 0, false, true, nil},
	}
}

// BuiltinProviders is the built-in provider table.
func BuiltinProviders() []Provider {
	var providers []Provider
	for _, row := range builtinTable() {
		providers = append(providers, Provider{Name: row.name, Suffixes: row.suffixes, SharedHosts: row.shared, OwnDomains: row.own})
	}
	return providers
}

// BuiltinRules is the built-in rule table: one rule "builtin-NAME" per
// provider with figures of its own, then BuiltinGeneric.
func BuiltinRules() []Rule {
	var rules []Rule
	for _, row := range builtinTable() {
		if row.connections > 0 {
			rules = append(rules, row.rule())
		}
	}
	return append(rules, BuiltinGeneric())
}

func (row *builtinRow) rule() Rule {
	r := Rule{
		ID:        "builtin-" + row.name,
		Providers: []string{row.name},
		Set:       FieldsOf(FieldConnections, FieldMessagesPerConnection, FieldTLS),
		Limits: Limits{
			Connections:           row.connections,
			MessagesPerConnection: row.messagesPerConnection,
			TLS:                   TLSOpportunistic,
		},
	}
	if row.requireTLS {
		r.Limits.TLS = TLSEncrypt
	}
	return r.builtin()
}

// BuiltinGeneric is the last built-in rule, "builtin-everyone-else". It sets
// every field, so that nothing is unlimited by omission.
func BuiltinGeneric() Rule {
	l := Defaults()
	l.Connections = 10
	l.MessagesPerConnection = 100
	l.ConnectionRate = Rate{Count: 100, Per: time.Minute}
	l.MessageRate = Rate{Count: 100, Per: time.Second}
	l.Governor = GovernorOn
	r := Rule{ID: "builtin-everyone-else", Set: AllFields, Limits: l}
	return r.builtin()
}

func (r Rule) builtin() Rule {
	r.At.File = BuiltinFile
	for f := range Field(NumFields) {
		if r.Set.Has(f) {
			r.Pos[f].File = BuiltinFile
		}
	}
	return r
}

// Builtin is the built-in set: BuiltinRules over BuiltinProviders.
func Builtin() *Rules {
	set, err := NewRules(BuiltinRules(), BuiltinProviders())
	if err != nil {
		panic("mxrules: the built-in table is broken: " + err.Error()) // a constant table, kept by a test
	}
	return set
}
