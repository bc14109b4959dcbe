package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// sources shows sources and steers their warm-up.
type sources struct {
	node
	json bool
}

func newSources() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sources",
		Short: "Show the sources that mail goes by, and steer their warm-up",
		Long: `A source is an address that a node sends from. One that the configuration says is to
be warmed up may send so many messages a UTC day, more from stage to stage: it gets on
when more than 90 % of a day's cap was delivered and the receivers' signs are good.`,
		Example: `  veredus sources list
  veredus sources warm-up b --stage 12
  veredus sources warm-up b --off`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSourcesList(), newSourcesWarmUp())
	return cmd
}

func (s *sources) bothFlags(cmd *cobra.Command) {
	s.flags(cmd)
	cmd.Flags().BoolVar(&s.json, "json", false, "print the answer as JSON")
}

// call runs f with a client of the node.
func (s *sources) call(cmd *cobra.Command, f func(veredusv1.RelayServiceClient) error) error {
	conn, err := s.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return s.explain(f(veredusv1.NewRelayServiceClient(conn)))
}

func newSourcesList() *cobra.Command {
	s := &sources{}
	pool := ""
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List sources with their pools and warm-up",
		Long: `List the sources of all pools, or of one: address, EHLO name, weight, and how far
each one's warm-up is: stage, what it sent today of its cap, and why it holds.`,
		Example: `  veredus sources list
  veredus sources list --pool marketing --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(relay veredusv1.RelayServiceClient) error {
				resp, err := relay.ListSources(cmd.Context(), &veredusv1.ListSourcesRequest{Pool: pool})
				if err != nil {
					return err
				}
				return s.print(cmd.OutOrStdout(), resp.GetSources())
			})
		},
	}
	s.bothFlags(cmd)
	cmd.Flags().StringVar(&pool, "pool", "", "only sources of this pool")
	return cmd
}

func newSourcesWarmUp() *cobra.Command {
	s := &sources{}
	req := &veredusv1.SetWarmUpRequest{}
	cmd := &cobra.Command{
		Use:   "warm-up SOURCE",
		Short: "Set the stage of a source's warm-up, or end it",
		Long: `Set the stage of a source's warm-up, from 1: for one that is warm already, or that has
to begin anew. A stage behind the plan's last finishes it. --off ends it where it is:
the source is limited no more.`,
		Example: `  veredus sources warm-up b --stage 12
  veredus sources warm-up b --off`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Source = args[0]
			if !req.GetOff() && req.GetStage() < 1 {
				return usagef(cmd, "give --stage N, from 1, or --off")
			}
			return s.call(cmd, func(relay veredusv1.RelayServiceClient) error {
				one, err := relay.SetWarmUp(cmd.Context(), req)
				if err != nil {
					return err
				}
				return s.print(cmd.OutOrStdout(), []*veredusv1.Source{one})
			})
		},
	}
	s.bothFlags(cmd)
	cmd.Flags().Int32Var(&req.Stage, "stage", 0, "stage to be at from now on")
	cmd.Flags().BoolVar(&req.Off, "off", false, "end the warm-up")
	cmd.Flags().StringVar(&req.RequestId, "request-id", "", "makes the call idempotent")
	return cmd
}

// print writes sources as a table, or as JSON, one per line.
func (s *sources) print(out io.Writer, list []*veredusv1.Source) error {
	rows := newTable("source", "address", "hostname", "pools", "weight", "stage", "sent today", "cap", "warm-up")
	for _, one := range list {
		if s.json {
			if err := printProto(out, one); err != nil {
				return err
			}
			continue
		}
		stage, sent, most, state := "-", "-", "-", "none"
		if w := one.GetWarmUp(); w != nil {
			stage, sent, state = fmt.Sprintf("%d of %d", w.GetStage(), w.GetStages()), thousands(w.GetSent()), warmUpState(w)
			if w.GetActive() {
				most = thousands(w.GetCap())
			}
		}
		rows.row(one.GetName(), orDash(one.GetAddress()), one.GetHostname(), strings.Join(one.GetPools(), " "), one.GetWeight(), stage, sent, most, state)
	}
	if !s.json {
		rows.print(out)
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// warmUpState is what a warm-up does, since when, and the caps of single providers.
func warmUpState(w *veredusv1.WarmUp) string {
	text := w.GetState()
	if t := w.GetStageTime(); t.IsValid() && w.GetActive() {
		text += " (since " + t.AsTime().UTC().Format(time.DateOnly) + ")"
	}
	if w.GetActive() {
		for _, p := range slices.Sorted(maps.Keys(w.GetProviderCaps())) {
			text += fmt.Sprintf("; %s %s", p, thousands(w.GetProviderCaps()[p]))
		}
	}
	return text
}
