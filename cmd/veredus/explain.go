package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
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
limit with its origin, and what is limiting right now.`,
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
	fmt.Fprintln(out, e.GetDomain())
	pairs(out,
		"destination", destination,
		"no mail exchanger", oneLine(e.GetMxError()),
		"MX rule", rule,
		"limited now by", e.GetLimitedBy(),
		"last error", oneLine(e.GetLastError()),
		"backlog", nonZero(e.GetBacklog()),
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
		printLimits(out, e.GetLimits())
	}
	if len(e.GetPaths()) > 0 {
		fmt.Fprintln(out)
		t := newTable("path from", "sessions", "limited by", "until", "last error")
		for _, p := range e.GetPaths() {
			t.row(p.GetSource(), p.GetSessions(), p.GetLimitedBy(), clock(p.GetUntil(), now), clip(oneLine(p.GetLastError()), 80))
		}
		t.print(out)
	}
}

func printLimits(out io.Writer, limits *veredusv1.EffectiveLimits) {
	t := newTable("limit", "value", "in force", "from rule", "in")
	for _, l := range limits.GetLimits() {
		effective := l.GetEffective()
		if effective == l.GetValue() {
			effective = ""
		}
		t.row(l.GetField(), l.GetValue(), effective, l.GetRule(), place(l.GetFile(), l.GetLine()))
	}
	t.print(out)
}

func place(file string, line int32) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}
