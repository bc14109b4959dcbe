package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// queue changes waiting mail.
type queue struct {
	node
	delivery, tenant, destination, source string

	older  time.Duration
	pool   string
	dryRun bool
	reason string
	id     string
	json   bool
}

func newQueue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Change waiting mail: retry it now, move it to another pool, or fail it",
		Long: `Change mail that waits: all of a delivery, a tenant or a destination, what was last
tried from a source, or what is older than some time. Fields that are given must all
hold. Begin with --dry-run: it counts, shows some messages, and changes nothing.

What is being sent at that moment is passed over and keeps its real outcome. Each
change is recorded in the feedback stream with its count and reason.`,
		Example: `  veredus queue retry --destination google --dry-run
  veredus queue retry --destination google --reason "block lifted"
  veredus queue fail --delivery spring --older-than 24h --reason "offer has ended"`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQueueRetry(), newQueueMove(), newQueueFail())
	return cmd
}

func newQueueRetry() *cobra.Command {
	q := &queue{}
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Make waiting retries due now",
		Long: `Make waiting retries due now. They do not leave all at once: the limits of their
paths spread them, and a path that rests goes on resting (see 'veredus paths reset').`,
		Example: `  veredus queue retry --destination google --reason "block lifted"`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return q.run(cmd, "made due now", func(relay veredusv1.RelayServiceClient, sel *veredusv1.QueueSelector) (proto.Message, error) {
				return relay.RetryNow(cmd.Context(), &veredusv1.RetryNowRequest{Selector: sel, DryRun: q.dryRun, Reason: q.reason, RequestId: q.id})
			})
		},
	}
	q.allFlags(cmd)
	return cmd
}

func newQueueMove() *cobra.Command {
	q := &queue{}
	cmd := &cobra.Command{
		Use:   "move --pool POOL",
		Short: "Move waiting mail of deliveries to another pool of sources",
		Long: `Move waiting mail to another pool of sources. Chosen by delivery or tenant alone,
deliveries move as a whole. Chosen by destination, source or age, only mail moves: all
of a delivery's mail to a recipient domain, if some of that is chosen; it stays there
until the delivery itself gets another pool. Single (transactional) messages stay: each
names its pool when it is sent.`,
		Example: `  veredus queue move --delivery spring --pool reserve --reason "main pool blocked"
  veredus queue move --destination google --pool reserve --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.pool == "" {
				return usagef(cmd, "--pool is missing: name the pool that the mail moves to")
			}
			return q.run(cmd, "moved to pool "+q.pool, func(relay veredusv1.RelayServiceClient, sel *veredusv1.QueueSelector) (proto.Message, error) {
				return relay.MoveToPool(cmd.Context(), &veredusv1.MoveToPoolRequest{Selector: sel, Pool: q.pool, DryRun: q.dryRun, Reason: q.reason, RequestId: q.id})
			})
		},
	}
	q.allFlags(cmd)
	cmd.Flags().StringVar(&q.pool, "pool", "", "pool that the mail moves to")
	return cmd
}

func newQueueFail() *cobra.Command {
	q := &queue{}
	cmd := &cobra.Command{
		Use:   "fail --reason TEXT",
		Short: "Fail waiting mail for good",
		Long: `Fail waiting mail for good: bounce code 25, event suppressed, with the reason as its
error text. It cannot be undone. A delivery of which nothing is left is finished.`,
		Example: `  veredus queue fail --delivery spring --older-than 24h --reason "offer has ended"`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.reason == "" {
				return usagef(cmd, "--reason is missing: say why; it becomes the messages' error text")
			}
			return q.run(cmd, "failed", func(relay veredusv1.RelayServiceClient, sel *veredusv1.QueueSelector) (proto.Message, error) {
				return relay.FailMessages(cmd.Context(), &veredusv1.FailMessagesRequest{Selector: sel, DryRun: q.dryRun, Reason: q.reason, RequestId: q.id})
			})
		},
	}
	q.allFlags(cmd)
	return cmd
}

func (q *queue) allFlags(cmd *cobra.Command) {
	q.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&q.delivery, "delivery", "", "only of this delivery")
	f.StringVar(&q.tenant, "tenant", "", "only of this tenant")
	f.StringVar(&q.destination, "destination", "", "only to this destination, such as google")
	f.StringVar(&q.source, "source", "", "only what was last tried from this source")
	f.DurationVar(&q.older, "older-than", 0, "only what entered the relay at least so long ago, such as 24h")
	f.BoolVar(&q.dryRun, "dry-run", false, "count and show, and change nothing")
	f.StringVar(&q.reason, "reason", "", "why, for the record, up to 256 bytes")
	f.StringVar(&q.id, "request-id", "", "makes the call idempotent: the same again answers the same")
	f.BoolVar(&q.json, "json", false, "print the answer as JSON")
}

// selector is what the flags choose.
func (q *queue) selector(cmd *cobra.Command) (*veredusv1.QueueSelector, error) {
	sel := &veredusv1.QueueSelector{Tenant: q.tenant, Destination: q.destination, Source: q.source}
	if q.delivery != "" {
		sel.Delivery = "deliveries/" + strings.TrimPrefix(q.delivery, "deliveries/")
	}
	if cmd.Flags().Changed("older-than") {
		sel.OlderThan = durationpb.New(q.older)
	}
	if proto.Equal(sel, &veredusv1.QueueSelector{}) {
		return nil, usagef(cmd, "nothing is chosen: name a --delivery, --tenant or another choice of --help")
	}
	return sel, nil
}

func (q *queue) run(cmd *cobra.Command, done string, call func(veredusv1.RelayServiceClient, *veredusv1.QueueSelector) (proto.Message, error)) error {
	sel, err := q.selector(cmd)
	if err != nil {
		return err
	}
	conn, err := q.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	answer, err := call(veredusv1.NewRelayServiceClient(conn), sel)
	if err != nil {
		return q.explain(err)
	}
	if q.json {
		return printProto(cmd.OutOrStdout(), answer)
	}
	q.print(cmd.OutOrStdout(), done, answer.(queueAnswer))
	return nil
}

// queueAnswer is what the three answers have in common.
type queueAnswer interface {
	GetCount() int64
	GetSample() []*veredusv1.QueueSample
}

func (q *queue) print(out io.Writer, done string, a queueAnswer) {
	if q.dryRun {
		done = "would be " + done
	}
	fmt.Fprintf(out, "%s messages %s\n", thousands(a.GetCount()), done)
	if len(a.GetSample()) == 0 {
		return
	}
	fmt.Fprintln(out)
	now := time.Now()
	t := newTable("recipient", "destination", "next attempt", "last error", "message")
	for _, s := range a.GetSample() {
		t.row(oneLine(s.GetRecipient()), s.GetDestination(), clock(s.GetNextAttemptTime(), now), clip(oneLine(s.GetErrorText()), 60), s.GetMessage())
	}
	t.print(out)
}
