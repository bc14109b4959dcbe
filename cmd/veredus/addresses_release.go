package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// released is what release and confirm answer.
type released interface {
	proto.Message
	GetCount() int64
	GetSample() []*veredusv1.AddressEntry
}

// bulk is a command that changes many quarantined entries.
type bulk struct {
	addresses
	filter  filterFlags
	comment string
	dry     bool
	did     string
}

func newAddressesRelease() *cobra.Command {
	b := &bulk{did: "released"}
	cmd := b.command("release", "Release quarantined addresses, for example after an outage",
		`Release quarantined addresses, for example when an outage at a provider had produced
false errors: by domain, time of the last change and text of the reply. They can be
mailed again at once. Denylist and allowlist entries are never released.`,
		func(ctx context.Context, c veredusv1.AddressServiceClient, f *veredusv1.AddressFilter) (released, error) {
			return persist(ctx, c.ReleaseAddressEntries, &veredusv1.ReleaseAddressEntriesRequest{Filter: f, DryRun: b.dry, Comment: b.comment, RequestId: b.id()})
		})
	cmd.Flags().BoolVar(&b.filter.provisional, "provisional", false, "only provisional entries")
	return cmd
}

func newAddressesConfirm() *cobra.Command {
	b := &bulk{did: "confirmed"}
	return b.command("confirm", "Confirm provisional quarantine entries: they were right",
		`Confirm provisional quarantine entries: what was quarantined while its destination
refused unusually many addresses stays quarantined, and is not put to the test.`,
		func(ctx context.Context, c veredusv1.AddressServiceClient, f *veredusv1.AddressFilter) (released, error) {
			return persist(ctx, c.ConfirmAddressEntries, &veredusv1.ConfirmAddressEntriesRequest{Filter: f, DryRun: b.dry, Comment: b.comment, RequestId: b.id()})
		})
}

// id makes a call idempotent; a dry run needs no memory.
func (b *bulk) id() string {
	if b.dry {
		return ""
	}
	return requestID()
}

func (b *bulk) command(name, short, long string, call func(context.Context, veredusv1.AddressServiceClient, *veredusv1.AddressFilter) (released, error)) *cobra.Command {
	cmd := b.with(&cobra.Command{
		Use: name, Short: short, Long: long, Args: noArgs,
		Example: fmt.Sprintf("  veredus addresses %s --domain provider.example --since 2026-03-01T08:00:00Z --until 2026-03-01T12:00:00Z --text \"user unknown\" --dry-run", name),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := b.filter.read(cmd, time.Now())
			if err != nil {
				return err
			}
			return b.call(cmd, func(c veredusv1.AddressServiceClient) error {
				answer, err := call(cmd.Context(), c, f)
				if err != nil {
					return err
				}
				return b.report(answer)
			})
		},
	}, "print the answer as JSON")
	b.filter.flags(cmd)
	cmd.Flags().StringVar(&b.comment, "comment", "", "why, for the event")
	cmd.Flags().BoolVar(&b.dry, "dry-run", false, "count and show, and change nothing")
	return cmd
}

func (b *bulk) report(answer released) error {
	if b.json {
		return printProto(b.out, answer)
	}
	verb := b.did
	if b.dry {
		verb = "would be " + b.did
	}
	fmt.Fprintf(b.out, "%s entries %s\n", thousands(answer.GetCount()), verb)
	if len(answer.GetSample()) > 0 {
		t := entryTable()
		for _, e := range answer.GetSample() {
			entryRow(t, e, time.Now())
		}
		fmt.Fprintln(b.out)
		t.print(b.out)
	}
	return nil
}
