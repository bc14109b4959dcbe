package main

import (
	"fmt"
	"strings"
	"time"
)

// report is what a run found.
type report struct {
	seed        uint64
	kills       int
	byPhase     map[string]*tally
	tables      int // rounds killed as table files came or went
	compactions int // rounds of those in which tables went

	messages, delivered, givenUp, lost int
	singles                            int
	events, claims, uncertain          int
	repeated, repeats, fromClaims      int
	connections                        int64
	faults                             []string
	breaches                           int
	took                               time.Duration
}

// tally is one phase's.
type tally struct{ rounds, kills int }

func newReport(seed uint64) *report { return &report{seed: seed, byPhase: map[string]*tally{}} }

func (r *report) count(phase string, kills int) {
	t := r.byPhase[phase]
	if t == nil {
		t = &tally{}
		r.byPhase[phase] = t
	}
	t.rounds++
	t.kills += kills
}

// String is the report as Markdown.
func (r *report) String() string {
	var b strings.Builder
	rounds, kills := 0, 0
	fmt.Fprintf(&b, "| phase | rounds | kills |\n|---|---:|---:|\n")
	for _, p := range phases {
		if t := r.byPhase[p.name]; t != nil {
			fmt.Fprintf(&b, "| %s | %d | %d |\n", p.name, t.rounds, t.kills)
			rounds, kills = rounds+t.rounds, kills+t.kills
		}
	}
	fmt.Fprintf(&b, "| all | %d | %d |\n\n", rounds, kills)
	fmt.Fprintf(&b, "| seed %d | |\n|---|---:|\n", r.seed)
	for _, row := range []struct {
		what string
		n    any
	}{
		{"messages acknowledged", r.messages},
		{"of these single messages", r.singles},
		{"delivered", r.delivered},
		{"given up after three lost claims", r.givenUp},
		{"lost", r.lost},
		{"claims that restarts announced", r.claims},
		{"attempts whose event says delivery_uncertain", r.uncertain},
		{"messages that a receiver took more than once", r.repeated},
		{"of these announced by a restart", r.fromClaims},
		{"copies too many", r.repeats},
		{"feedback events, each once and in order", r.events},
		{"kills as table files came or went", r.tables},
		{"of these when a compaction had removed tables", r.compactions},
		{"connections through the bad network", r.connections},
		{"breaches", r.breaches},
		{"time", r.took.Round(time.Second)},
	} {
		fmt.Fprintf(&b, "| %s | %v |\n", row.what, row.n)
	}
	fmt.Fprintf(&b, "\nThe bad network: %s.\n", strings.Join(r.faults, ", "))
	return b.String()
}
