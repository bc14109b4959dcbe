package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// paths steers paths: source -> destination.
type paths struct {
	node
	source, reason, id string

	connections, each, rate, connectionRate string

	delivery, tenant string

	lasts  time.Duration
	older  time.Duration
	end    bool
	dryRun bool
	json   bool
}

func newPaths() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "paths",
		Short: "Override the limits of paths for a while, or make them forget what they learned",
		Long: `A path leads from a source to a destination. What holds on it comes from the MX
rules and from what was learned of the receiver's replies; 'veredus explain' shows
both. 'override' puts other limits in their place for a while, and 'reset' makes a
path forget and begin as at first. Name the destination, or choose paths by the mail
that waits for them: of a --delivery, of a --tenant, or --older-than some time. Begin
with --dry-run: it shows the paths concerned, and changes nothing.`,
		Example: `  veredus paths override google --message-rate 5/s --for 2h --reason "asked by postmaster"
  veredus paths reset google --source s1`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPathsOverride(), newPathsReset())
	return cmd
}

func newPathsOverride() *cobra.Command {
	p := &paths{}
	cmd := &cobra.Command{
		Use:   "override [DESTINATION]",
		Short: "Put other limits on paths for a while",
		Long: `Put other limits on the paths to a destination, in place of the rule's and of what was
learned: your word counts, also above the rule's limit. They hold at once, for present
and later paths, over restarts, and end by themselves. Rests after replies still come
first, and quotas per hour and day hold beside them.

Values are written as in a rule file: 4, unlimited, 20/s, 6000/min burst 50. An
override replaces the one in force for the same source and destination; --end ends it.`,
		Example: `  veredus paths override google --message-rate 5/s --for 2h --reason "asked by postmaster"
  veredus paths override acme.example --source s1 --connections 1 --for 30m
  veredus paths override google --end`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.override(cmd, args) },
	}
	p.bothFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&p.connections, "connections", "", "connections open at once")
	f.StringVar(&p.each, "messages-per-connection", "", "messages on each connection")
	f.StringVar(&p.rate, "message-rate", "", "messages per time")
	f.StringVar(&p.connectionRate, "connection-rate", "", "new connections per time")
	f.DurationVar(&p.lasts, "for", 0, "how long, 1m to 720h")
	f.BoolVar(&p.end, "end", false, "end the override in force")
	return cmd
}

func newPathsReset() *cobra.Command {
	p := &paths{}
	cmd := &cobra.Command{
		Use:   "reset [DESTINATION]",
		Short: "Make paths forget what they learned, and end their rests",
		Long: `Make the paths to a destination forget what was learned of its replies, and end their
rests and waits: they begin as at first. What was used of quotas stays used.`,
		Example: `  veredus paths reset google --reason "block lifted"`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, destination, selector, err := p.chosen(cmd, args)
			if err != nil {
				return err
			}
			req := &veredusv1.ResetPathRequest{
				Source: source, Destination: destination, Selector: selector, Reason: p.reason, RequestId: p.id, DryRun: p.dryRun,
			}
			return p.call(cmd, func(relay veredusv1.RelayServiceClient) error {
				answer, err := relay.ResetPath(cmd.Context(), req)
				if err != nil {
					return err
				}
				if p.json {
					return printProto(cmd.OutOrStdout(), answer)
				}
				p.print(cmd.OutOrStdout(), answer)
				return nil
			})
		},
	}
	p.bothFlags(cmd)
	return cmd
}

// chosen are the paths meant: by destination, or by a selector of mail.
func (p *paths) chosen(cmd *cobra.Command, args []string) (source, destination string, sel *veredusv1.QueueSelector, err error) {
	older := cmd.Flags().Changed("older-than")
	if p.delivery == "" && p.tenant == "" && !older {
		if len(args) == 0 {
			return "", "", nil, usagef(cmd, "the destination is missing: name it, such as google, or choose by --delivery, --tenant or --older-than")
		}
		return p.source, args[0], nil, nil
	}
	sel = &veredusv1.QueueSelector{Tenant: p.tenant, Source: p.source}
	if len(args) > 0 {
		sel.Destination = args[0]
	}
	if p.delivery != "" {
		sel.Delivery = "deliveries/" + strings.TrimPrefix(p.delivery, "deliveries/")
	}
	if older {
		sel.OlderThan = durationpb.New(p.older)
	}
	return "", "", sel, nil
}

// pathsAnswer is what both answers have in common.
type pathsAnswer interface {
	GetPaths() []*veredusv1.Path
	GetDestinations() []string
	GetCount() int64
}

// print shows the paths concerned.
func (p *paths) print(out io.Writer, a pathsAnswer) {
	if p.dryRun || len(a.GetDestinations()) > 1 {
		done := "changed"
		if p.dryRun {
			done = "would be changed"
		}
		fmt.Fprintf(out, "%s paths to %d destinations %s\n", thousands(a.GetCount()), len(a.GetDestinations()), done)
	}
	printPaths(out, a.GetPaths(), time.Now())
}

func (p *paths) bothFlags(cmd *cobra.Command) {
	p.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&p.source, "source", "", "only the path from this source (default all)")
	f.StringVar(&p.delivery, "delivery", "", "paths for which mail of this delivery waits")
	f.StringVar(&p.tenant, "tenant", "", "paths for which mail of this tenant waits")
	f.DurationVar(&p.older, "older-than", 0, "paths for which mail waits that entered the relay at least so long ago")
	f.BoolVar(&p.dryRun, "dry-run", false, "show the paths concerned, and change nothing")
	f.StringVar(&p.reason, "reason", "", "why, for the record, up to 256 bytes")
	f.StringVar(&p.id, "request-id", "", "makes the call idempotent: the same again answers the same")
	f.BoolVar(&p.json, "json", false, "print the answer as JSON")
}

// call runs f with a client of the node.
func (p *paths) call(cmd *cobra.Command, f func(veredusv1.RelayServiceClient) error) error {
	conn, err := p.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return p.explain(f(veredusv1.NewRelayServiceClient(conn)))
}

func (p *paths) override(cmd *cobra.Command, args []string) error {
	fields := map[string]string{}
	for name, value := range map[string]string{
		"connections": p.connections, "messages_per_connection": p.each, "message_rate": p.rate, "connection_rate": p.connectionRate,
	} {
		if value != "" {
			fields[name] = value
		}
	}
	switch {
	case p.end && (len(fields) > 0 || p.lasts != 0):
		return usagef(cmd, "--end ends the override: give no limits and no --for with it")
	case !p.end && len(fields) == 0:
		return usagef(cmd, "no limit is given: use --connections, --messages-per-connection, --message-rate or --connection-rate, or --end")
	case !p.end && p.lasts <= 0:
		return usagef(cmd, "--for is missing: say how long the override holds, such as 2h")
	}
	word := &veredusv1.PathOverride{Fields: fields, Reason: p.reason}
	if !p.end {
		word.EndTime = timestamppb.New(time.Now().Add(p.lasts))
	}
	source, destination, selector, err := p.chosen(cmd, args)
	if err != nil {
		return err
	}
	req := &veredusv1.OverridePathRequest{
		Source: source, Destination: destination, Selector: selector, Override: word, RequestId: p.id, DryRun: p.dryRun,
	}
	return p.call(cmd, func(relay veredusv1.RelayServiceClient) error {
		answer, err := relay.OverridePath(cmd.Context(), req)
		if err != nil {
			return err
		}
		if p.json {
			return printProto(cmd.OutOrStdout(), answer)
		}
		p.print(cmd.OutOrStdout(), answer)
		return nil
	})
}

// printPaths shows paths with what holds on them.
func printPaths(out io.Writer, list []*veredusv1.Path, now time.Time) {
	if len(list) == 0 {
		fmt.Fprintln(out, "no path has mail now; the order holds for those that come")
		return
	}
	t := newTable("path from", "sessions", "limited by", "until", "governor", "override", "last error")
	for _, p := range list {
		limited := p.GetLimitedBy()
		if p.GetIdle() && limited == "none" {
			limited = "no mail"
		}
		t.row(p.GetSource(), p.GetSessions(), limited, clock(p.GetUntil(), now), p.GetGovernor(), overrideWords(p.GetOverride(), now), clip(oneLine(p.GetLastError()), 60))
	}
	t.print(out)
}

// overrideWords says an override in a cell.
func overrideWords(o *veredusv1.PathOverride, now time.Time) string {
	if o == nil {
		return ""
	}
	var words []string
	for name, value := range o.GetFields() {
		words = append(words, name+" "+value)
	}
	slices.Sort(words)
	text := strings.Join(words, ", ")
	if since := clock(o.GetCreateTime(), now); since != "" {
		text += " since " + since
	}
	text += " until " + clock(o.GetEndTime(), now)
	if o.GetReason() != "" {
		text += " (" + oneLine(o.GetReason()) + ")"
	}
	return text
}
