package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// rulesDiff compares rules.
type rulesDiff struct {
	node
	domains []string
	json    bool
}

func newRulesDiff() *cobra.Command {
	d := &rulesDiff{}
	cmd := &cobra.Command{
		Use:   "diff [OLD] NEW",
		Short: "Show what a change of rules means for each destination",
		Long: `Compare two rule files by their effect, not by their text: for every provider, every
mask on MX hosts and domains that either file names, and for everyone else, the
settings that hold otherwise, with the rule that sets them. Where rules are about
sources, also for these.

With one file it is compared with the built-in rules. With --addr and one file it is
compared with the rules in force at that node, for the destinations that have mail
there and for the domains that --domain names; shared_hosts then says whether a domain
is received on hosts that serve others as well.`,
		Example: `  veredus rules diff old.yaml new.yaml
  veredus rules diff mx.yaml
  veredus rules diff mx.yaml --addr 127.0.0.1:7025 --domain gmail.com`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && !cmd.Flags().Changed("addr") {
				return nil
			}
			return exactArgs("the rule file")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return d.run(cmd, args) },
	}
	d.flags(cmd)
	cmd.Flags().StringSliceVar(&d.domains, "domain", nil, "with --addr: also compare for this recipient domain; may be repeated")
	cmd.Flags().BoolVar(&d.json, "json", false, "print one JSON object per difference")
	return cmd
}

func (d *rulesDiff) run(cmd *cobra.Command, args []string) error {
	is, err := loadRules(args[len(args)-1])
	if err != nil {
		return &usageError{nil, err}
	}
	var list []rulefile.Difference
	if cmd.Flags().Changed("addr") {
		if list, err = d.withNode(cmd, is); err != nil {
			return err
		}
		return d.print(cmd.OutOrStdout(), list)
	}
	if len(d.domains) > 0 {
		return usagef(cmd, "--domain is for the comparison with a node (--addr); files name their domains themselves")
	}
	was := mxrules.Builtin()
	if len(args) == 2 {
		if was, err = loadRules(args[0]); err != nil {
			return &usageError{nil, err}
		}
	}
	return d.print(cmd.OutOrStdout(), rulefile.Diff(was, is))
}

// withNode compares with what a node applies now.
func (d *rulesDiff) withNode(cmd *cobra.Command, is *mxrules.Rules) ([]rulefile.Difference, error) {
	conn, err := d.dial(cmd)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	relay := veredusv1.NewRelayServiceClient(conn)
	domains, err := d.ofNode(cmd.Context(), relay)
	if err != nil {
		return nil, d.explain(err)
	}
	var list []rulefile.Difference
	for _, domain := range domains {
		e, err := relay.ExplainDestination(cmd.Context(), &veredusv1.ExplainDestinationRequest{Domain: domain})
		if err != nil {
			return nil, d.explain(err)
		}
		if e.GetMxError() != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is left out: %s\n", domain, oneLine(e.GetMxError()))
			continue
		}
		list = append(list, nodeDifferences(e, is)...)
	}
	return list, nil
}

// ofNode is a recipient domain of every destination with mail, and those asked for.
func (d *rulesDiff) ofNode(ctx context.Context, relay veredusv1.RelayServiceClient) ([]string, error) {
	domains := append([]string(nil), d.domains...)
	req := &veredusv1.ListDestinationsRequest{PageSize: 1000}
	page, err := relay.ListDestinations(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, dest := range page.GetDestinations() {
		if len(dest.GetDomains()) > 0 {
			domains = append(domains, dest.GetDomains()[0])
		}
	}
	return domains, nil
}

// nodeDifferences compares one explanation with a file. The file's rules on sources
// meet no source: a node tells of its first one only.
func nodeDifferences(e *veredusv1.ExplainDestinationResponse, is *mxrules.Rules) (list []rulefile.Difference) {
	name := e.GetDestination() + " (" + e.GetDomain() + ")"
	if shared := sharesHosts(e, is); shared != e.GetSharedHosts() {
		list = append(list, rulefile.Difference{
			Destination: name, Provider: "shared_hosts",
			Before: rulefile.Setting{Value: strconv.FormatBool(e.GetSharedHosts())}, After: rulefile.Setting{Value: strconv.FormatBool(shared)},
		})
	}
	after := is.Match(mxrules.Query{Host: e.GetMxHosts()[0].GetHost(), Domain: e.GetDomain()})
	before := map[string]*veredusv1.Limit{}
	for _, l := range e.GetLimits().GetLimits() {
		before[l.GetField()] = l
	}
	for f := range mxrules.Field(mxrules.NumFields) {
		l := before[f.String()]
		if b := after.Limits.Text(f); l != nil && l.GetValue() != b {
			list = append(list, rulefile.Difference{
				Destination: name, Field: f,
				Before: rulefile.Setting{Value: l.GetValue(), Origin: mxrules.Origin{Rule: l.GetRule(), File: l.GetFile(), Line: int(l.GetLine())}},
				After:  rulefile.Setting{Value: b, Origin: after.Origins[f]},
			})
		}
	}
	return list
}

// sharesHosts reports whether the file has a domain on hosts that serve others as well.
func sharesHosts(e *veredusv1.ExplainDestinationResponse, is *mxrules.Rules) bool {
	for _, h := range e.GetMxHosts() {
		if provider := is.ProviderOf(h.GetHost()); provider != "" {
			return is.SharesHosts(provider, e.GetDomain())
		}
	}
	return false
}

// differenceJSON is a difference as --json prints it.
type differenceJSON struct {
	Destination string `json:"destination"`
	Source      string `json:"source,omitempty"`
	Field       string `json:"field"`
	Before      string `json:"before"`
	BeforeRule  string `json:"before_rule"`
	BeforeAt    string `json:"before_at,omitempty"`
	After       string `json:"after"`
	AfterRule   string `json:"after_rule"`
	AfterAt     string `json:"after_at,omitempty"`
}

func (d *rulesDiff) print(out io.Writer, list []rulefile.Difference) error {
	rows := newTable("destination", "from source", "setting", "before", "after", "before by", "after by")
	for _, one := range list {
		if d.json {
			err := printJSON(out, differenceJSON{
				Destination: one.Destination, Source: one.Source, Field: one.Name(),
				Before: one.Before.Value, BeforeRule: one.Before.Origin.Rule, BeforeAt: at(one.Before.Origin.File, one.Before.Origin.Line),
				After: one.After.Value, AfterRule: one.After.Origin.Rule, AfterAt: at(one.After.Origin.File, one.After.Origin.Line),
			})
			if err != nil {
				return err
			}
			continue
		}
		rows.row(one.Destination, one.Source, one.Name(), one.Before.Value, one.After.Value, by(one.Before.Origin), by(one.After.Origin))
	}
	if d.json {
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintln(out, "no destination is treated otherwise")
		return nil
	}
	rows.print(out)
	return nil
}

// by is a rule with its place.
func by(o mxrules.Origin) string {
	if place := at(o.File, o.Line); place != "" {
		return strings.TrimSpace(o.Rule + " (" + place + ")")
	}
	return o.Rule
}
