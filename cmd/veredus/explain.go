package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/forecast"
)

// explain asks a node how it treats mail to a domain.
type explain struct {
	node
	json bool
}

func newExplain() *cobra.Command {
	e := &explain{}
	cmd := &cobra.Command{
		Use:   "explain DOMAIN",
		Short: "Explain how mail to a domain is treated, and what limits it now",
		Long: `Explain how mail to a recipient domain is treated: its mail exchangers, the
destination it belongs to and why, the MX rule that matches with file and line, each
limit with its origin, the value that a path begins with, the one learned from
replies and the one in force with what set it, what limits right now and since when,
the last decisions with the replies that caused them, and how long the backlog takes.`,
		Example: `  veredus explain gmail.com`,
		Args:    exactArgs("the recipient domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := e.dial(cmd)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			domain := args[0][strings.LastIndexByte(args[0], '@')+1:]
			answer, err := veredusv1.NewRelayServiceClient(conn).ExplainDestination(cmd.Context(), &veredusv1.ExplainDestinationRequest{Domain: domain})
			if err != nil {
				return e.node.explain(err)
			}
			if e.json {
				return printProto(cmd.OutOrStdout(), answer)
			}
			printExplanation(cmd.OutOrStdout(), answer, time.Now())
			return nil
		},
	}
	e.flags(cmd)
	cmd.Flags().BoolVar(&e.json, "json", false, "print the explanation as JSON")
	return cmd
}

func printExplanation(out io.Writer, e *veredusv1.ExplainDestinationResponse, now time.Time) {
	rule := e.GetRule()
	if rule != "" {
		rule += " (" + place(e.GetRuleFile(), e.GetRuleLine()) + ")"
	}
	destination := e.GetDestination()
	if destination != "" && e.GetDestinationBecause() != "" {
		destination += ", because " + e.GetDestinationBecause()
	}
	limited := e.GetLimitedBy()
	if since := e.GetLimitedSince(); since != nil {
		limited += ", since " + clock(since, now)
	}
	fmt.Fprintln(out, e.GetDomain())
	pairs(out,
		"destination", destination,
		"no mail exchanger", oneLine(e.GetMxError()),
		"MX rule", rule,
		"limited now by", oneLine(limited),
		"last error", oneLine(e.GetLastError()),
		"backlog", nonZero(e.GetBacklog()),
		"time to drain", drainWords(e),
		"next attempt", clock(e.GetNextAttemptTime(), now),
	)
	if len(e.GetMxHosts()) > 0 {
		fmt.Fprintln(out)
		t := newTable("preference", "mail exchanger", "addresses")
		for _, h := range e.GetMxHosts() {
			t.row(h.GetPreference(), h.GetHost(), strings.Join(h.GetAddresses(), " "))
		}
		t.print(out)
	}
	if len(e.GetLimits().GetLimits()) > 0 {
		fmt.Fprintln(out)
		printLimits(out, e.GetLimits(), now)
	}
	if len(e.GetPaths()) > 0 {
		fmt.Fprintln(out)
		printPaths(out, e.GetPaths(), now)
	}
	printLearned(out, e.GetPaths(), now)
	for _, p := range e.GetPaths() {
		printDecisions(out, p, now)
	}
}

// printLearned shows what is known of receivers, how old that is and what becomes of it.
func printLearned(out io.Writer, paths []*veredusv1.Path, now time.Time) {
	t, any := newTable("learned of the path from", "limit", "value", "last confirmed", "decays to", "forgotten"), false
	for _, p := range paths {
		for _, l := range p.GetLimits().GetLimits() {
			if l.GetLearnedTime() == nil {
				continue
			}
			any = true
			age := max(0, now.Sub(l.GetLearnedTime().AsTime()))
			t.row(p.GetSource(), l.GetField(), l.GetLearned(), forecast.Span(age)+" ago", l.GetDecaysTo(), clock(l.GetForgetTime(), now))
		}
	}
	if any {
		fmt.Fprintln(out)
		t.print(out)
	}
}

// drainWords is how long the backlog takes at the pace of the last minutes.
func drainWords(e *veredusv1.ExplainDestinationResponse) string {
	if e.GetDrainTime() == nil {
		return ""
	}
	return e.GetDrainTime().AsDuration().String() + " at the pace of the last minutes"
}

// printDecisions shows what was decided about a path, the latest first.
func printDecisions(out io.Writer, p *veredusv1.Path, now time.Time) {
	if len(p.GetDecisions()) == 0 && p.GetNextChangeTime() == nil {
		return
	}
	fmt.Fprintf(out, "\ndecisions about the path from %s", p.GetSource())
	if at := p.GetNextChangeTime(); at != nil {
		fmt.Fprintf(out, " (a limit may be raised at %s, unless replies prevent it)", clock(at, now))
	}
	fmt.Fprintln(out)
	t := newTable("time", "what", "limit", "from", "to", "because")
	for _, d := range p.GetDecisions() {
		t.row(clock(d.GetTime(), now), d.GetAction(), d.GetField(), d.GetFrom(), d.GetTo(), clip(oneLine(d.GetCause()), 80))
	}
	t.print(out)
}

func printLimits(out io.Writer, limits *veredusv1.EffectiveLimits, now time.Time) {
	t := newTable("limit", "value", "start", "low", "learned", "in force", "set by", "since", "from rule", "in")
	for _, l := range limits.GetLimits() {
		effective, start, setBy := l.GetEffective(), l.GetStart(), l.GetSetBy()
		if effective == l.GetValue() {
			effective = ""
		}
		if start == l.GetValue() {
			start = ""
		}
		if setBy == "rule" {
			setBy = ""
		}
		t.row(l.GetField(), l.GetValue(), start, l.GetLow(), l.GetLearned(), effective, setBy, clock(l.GetSetTime(), now), l.GetRule(), place(l.GetFile(), l.GetLine()))
	}
	t.print(out)
}

func place(file string, line int32) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}
