package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// addresses is what the commands about quarantine, denylist and allowlist share.
type addresses struct {
	node
	json bool
	out  io.Writer
}

func newAddresses() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "addresses",
		Short: "Look after quarantine, denylist and allowlist",
		Long: `Look after the addresses that are not mailed, or mailed whatever their errors.

An entry is about one address and one scope: all tenants or one, all mail or marketing
mail only, or one list of a tenant. It counts errors, or it is quarantined (the mailbox
failed), denylisted (a complaint, an unsubscribe, an operator) or allowlisted.`,
		Example: `  veredus addresses get ada@example.com
  veredus addresses put ada@example.com --status denylisted --comment "asked by phone"
  veredus addresses release --domain provider.example --since 6h --dry-run`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newAddressesGet(), newAddressesList(), newAddressesPut(), newAddressesDelete(), newAddressesImport(), newAddressesExport(),
		newAddressesRelease(), newAddressesConfirm(), newAddressesRotate(),
	)
	return cmd
}

// with adds the flags that all of them have.
func (a *addresses) with(cmd *cobra.Command, json string) *cobra.Command {
	a.flags(cmd)
	cmd.Flags().BoolVar(&a.json, "json", false, json)
	return cmd
}

// call calls a node.
func (a *addresses) call(cmd *cobra.Command, call func(veredusv1.AddressServiceClient) error) error {
	a.out = cmd.OutOrStdout()
	conn, err := a.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return a.explain(call(veredusv1.NewAddressServiceClient(conn)))
}

// scopeFlags name where an entry holds.
type scopeFlags struct {
	tenant, class, list string
}

func (s *scopeFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.tenant, "tenant", "", "tenant (default: all tenants)")
	f.StringVar(&s.class, "class", "", `everything, or marketing for mail of deliveries only (default "everything"; with --list "marketing")`)
	f.StringVar(&s.list, "list", "", "list (List-Id) of the tenant; default: all lists")
}

func (s *scopeFlags) read(cmd *cobra.Command) (*veredusv1.AddressScope, error) {
	class, err := optionalEnum(veredusv1.MailClass_value, "MAIL_CLASS_", s.class)
	if err != nil {
		return nil, &usageError{cmd, prefixed("--class", err)}
	}
	if s.list != "" && s.class == "" {
		class = int32(veredusv1.MailClass_MAIL_CLASS_MARKETING) // as an unsubscribe from it
	}
	return &veredusv1.AddressScope{Tenant: s.tenant, MailClass: veredusv1.MailClass(class), ListId: s.list}, nil
}

// filterFlags choose entries.
type filterFlags struct {
	status, tenant, domain, since, until, text, reason, origin, list string
	provisional                                                      bool
}

func (f *filterFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.tenant, "tenant", "", `only of this tenant; "*" for entries of all tenants`)
	flags.StringVar(&f.domain, "domain", "", "only addresses of this domain")
	flags.StringVar(&f.since, "since", "", "only last changed at or after: a time such as 2026-03-01T12:00:00Z, or how long ago, such as 6h")
	flags.StringVar(&f.until, "until", "", "only last changed before: a time, or how long ago")
	flags.StringVar(&f.text, "text", "", "only if the latest evidence (the reply) contains this text")
	flags.StringVar(&f.reason, "reason", "", "only with this reason of the last error, such as user_unknown")
	flags.StringVar(&f.origin, "origin", "", "only of this origin: bounce, out_of_band_bounce, complaint, unsubscribe, operator, import")
	flags.StringVar(&f.list, "list", "", "only of this list (List-Id)")
}

// wide adds the flags of filters that are not about quarantine only.
func (f *filterFlags) wide(cmd *cobra.Command) {
	f.flags(cmd)
	cmd.Flags().StringVar(&f.status, "status", "", "only with this status: counting, quarantined, denylisted, allowlisted")
	cmd.Flags().BoolVar(&f.provisional, "provisional", false, "only provisional entries")
}

func (f *filterFlags) read(cmd *cobra.Command, now time.Time) (*veredusv1.AddressFilter, error) {
	status, err1 := optionalEnum(veredusv1.AddressStatus_value, "ADDRESS_STATUS_", f.status)
	reason, err2 := optionalEnum(veredusv1.FailureReason_value, "FAILURE_REASON_", f.reason)
	origin, err3 := optionalEnum(veredusv1.AddressOrigin_value, "ADDRESS_ORIGIN_", f.origin)
	since, err4 := when(f.since, now)
	until, err5 := when(f.until, now)
	err := errors.Join(prefixed("--status", err1), prefixed("--reason", err2), prefixed("--origin", err3), prefixed("--since", err4), prefixed("--until", err5))
	if err != nil {
		return nil, &usageError{cmd, err}
	}
	return &veredusv1.AddressFilter{
		Status: veredusv1.AddressStatus(status), Tenant: f.tenant, Domain: f.domain, StartTime: since, EndTime: until, Text: f.text,
		Reason: veredusv1.FailureReason(reason), Provisional: f.provisional, Origin: veredusv1.AddressOrigin(origin), ListId: f.list,
	}, nil
}

// when reads a time, or how long ago it was.
func when(text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return timestamppb.New(now.Add(-ago)), nil
	}
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, fmt.Errorf("%q is no time; write 2026-03-01T12:00:00Z, 2026-03-01, or how long ago, such as 6h", text)
}

func newAddressesGet() *cobra.Command {
	a, req := &addresses{}, &veredusv1.GetAddressRequest{}
	cmd := a.with(&cobra.Command{
		Use:     "get ADDRESS",
		Short:   "Show what is known of an address, and whether it would be mailed",
		Example: `  veredus addresses get ada@example.com --tenant acme --list news.acme.example`,
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Address = args[0]
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				answer, err := c.GetAddress(cmd.Context(), req)
				if err != nil {
					return err
				}
				if a.json {
					return printProto(a.out, answer)
				}
				printAddress(a.out, req, answer, time.Now())
				return nil
			})
		},
	}, "print the answer as JSON")
	f := cmd.Flags()
	f.StringVar(&req.Tenant, "tenant", "", `whether mail of this tenant would go (default "default")`)
	f.StringVar(&req.ListId, "list", "", "whether mail of this list (List-Id) would go")
	f.BoolVar(&req.Transactional, "transactional", false, "whether single transactional mail would go, instead of a delivery's")
	return cmd
}

// printAddress shows the verdict and then each entry with its causes.
func printAddress(out io.Writer, req *veredusv1.GetAddressRequest, answer *veredusv1.GetAddressResponse, now time.Time) {
	verdict := "would be mailed"
	if answer.GetExcluded() {
		verdict = "would not be mailed (" + reasonName(answer.GetReason()) + ")"
	}
	fmt.Fprintf(out, "%s %s: %s\n", oneLine(req.GetAddress()), verdict, oneLine(answer.GetBecause()))
	for _, e := range answer.GetEntries() {
		fmt.Fprintln(out)
		printEntry(out, e, now)
	}
}

func printEntry(out io.Writer, e *veredusv1.AddressEntry, now time.Time) {
	fmt.Fprintln(out, e.GetName())
	reason, code := "", ""
	if e.GetReason() != 0 {
		reason = reasonName(e.GetReason())
	}
	if e.GetBounceCode() != 0 {
		code = joinWords([]string{fmt.Sprint(e.GetBounceCode()), e.GetTag()})
	}
	pairs(out, "address", oneLine(e.GetAddress()), "status", entryStatus(e), "for", scopeName(e.GetScope()),
		"origin", enumName(e.GetOrigin().String(), "ADDRESS_ORIGIN_"), "reason", reason, "bounce code", code, "errors counted", nonZero(int64(e.GetErrorCount())),
		"comment", oneLine(e.GetComment()), "created", clock(e.GetCreateTime(), now), "changed", clock(e.GetUpdateTime(), now), "last error", clock(e.GetLastErrorTime(), now))
	for _, c := range e.GetEvidence() {
		fmt.Fprintf(out, "  %s  %s\n", clock(c.GetTime(), now), causeLine(c))
	}
}

// causeLine is one cause of a change.
func causeLine(c *veredusv1.AddressEvidence) string {
	reply := oneLine(c.GetText())
	if c.GetReplyCode() != 0 {
		reply = replyWords(c.GetReplyCode(), c.GetEnhancedCode(), c.GetText())
	}
	rule := ""
	if c.GetRule() != "" {
		rule = "by rule " + c.GetRule()
	}
	return joinWords([]string{c.GetChange(), c.GetMessage(), reply, rule})
}

func entryStatus(e *veredusv1.AddressEntry) string {
	status := enumName(e.GetStatus().String(), "ADDRESS_STATUS_")
	if e.GetProvisional() {
		status += " (provisional)"
	}
	return status
}

// scopeName says where an entry holds.
func scopeName(s *veredusv1.AddressScope) string {
	tenant := "all tenants"
	if s.GetTenant() != "" {
		tenant = "tenant " + s.GetTenant()
	}
	switch {
	case s.GetListId() != "":
		return tenant + ", list " + oneLine(s.GetListId())
	case s.GetMailClass() == veredusv1.MailClass_MAIL_CLASS_MARKETING:
		return tenant + ", marketing"
	}
	return tenant
}

func newAddressesList() *cobra.Command {
	a, filter, limit := &addresses{}, filterFlags{}, 50
	cmd := a.with(&cobra.Command{
		Use:     "list",
		Short:   "List entries",
		Example: `  veredus addresses list --status quarantined --domain provider.example --since 24h`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filter.read(cmd, time.Now())
			if err != nil {
				return err
			}
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				return a.list(cmd, c, &veredusv1.ListAddressEntriesRequest{Filter: f}, limit)
			})
		},
	}, "print entries as JSON, one per line")
	filter.wide(cmd)
	cmd.Flags().IntVar(&limit, "limit", limit, "at most this many; 0 shows all")
	return cmd
}

// list prints pages as they come; a table at the end, since its columns depend on all rows.
func (a *addresses) list(cmd *cobra.Command, c veredusv1.AddressServiceClient, req *veredusv1.ListAddressEntriesRequest, limit int) error {
	shown, rows := 0, entryTable()
	for {
		req.PageSize = 1000
		if limit > 0 {
			req.PageSize = int32(min(1000, limit-shown))
		}
		page, err := c.ListAddressEntries(cmd.Context(), req)
		if err != nil {
			return err
		}
		for _, e := range page.GetEntries() {
			shown++
			if !a.json {
				entryRow(rows, e, time.Now())
			} else if err := printProto(a.out, e); err != nil {
				return err
			}
		}
		req.PageToken = page.GetNextPageToken()
		if req.PageToken == "" || limit > 0 && shown >= limit {
			break
		}
	}
	if !a.json {
		rows.print(a.out)
	}
	if req.PageToken != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are more; see them with --limit 0")
	}
	return nil
}

func entryTable() *table {
	return newTable("address", "status", "for", "reason", "errors", "changed", "latest cause")
}

func entryRow(t *table, e *veredusv1.AddressEntry, now time.Time) {
	reason, cause := "", ""
	if e.GetReason() != 0 {
		reason = reasonName(e.GetReason())
	}
	if list := e.GetEvidence(); len(list) > 0 {
		cause = clip(causeLine(list[0]), 80)
	}
	t.row(oneLine(e.GetAddress()), entryStatus(e), scopeName(e.GetScope()), reason, e.GetErrorCount(), clock(e.GetUpdateTime(), now), cause)
}

func newAddressesPut() *cobra.Command {
	a, scope := &addresses{}, scopeFlags{}
	status, reason, comment := "", "", ""
	cmd := a.with(&cobra.Command{
		Use:   "put ADDRESS --status STATUS",
		Short: "Quarantine, denylist or allowlist an address",
		Long: `Quarantine, denylist or allowlist an address. It replaces the entry of the same scope.

Without --tenant it holds for all tenants, without --class for all mail.`,
		Example: `  veredus addresses put ada@example.com --status denylisted --tenant acme --class marketing --comment "asked by phone"
  veredus addresses put monitor@example.com --status allowlisted`,
		Args: exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if status == "" {
				return usagef(cmd, "--status is required: quarantined, denylisted or allowlisted")
			}
			where, err := scope.read(cmd)
			if err != nil {
				return err
			}
			says, err1 := optionalEnum(veredusv1.AddressStatus_value, "ADDRESS_STATUS_", status)
			why, err2 := optionalEnum(veredusv1.FailureReason_value, "FAILURE_REASON_", reason)
			if err := errors.Join(prefixed("--status", err1), prefixed("--reason", err2)); err != nil {
				return &usageError{cmd, err}
			}
			req := &veredusv1.PutAddressEntryRequest{RequestId: requestID(), Entry: &veredusv1.AddressEntry{
				Address: args[0], Scope: where, Status: veredusv1.AddressStatus(says), Reason: veredusv1.FailureReason(why), Comment: comment,
			}}
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				e, err := persist(cmd.Context(), c.PutAddressEntry, req)
				return a.show(e, err)
			})
		},
	}, "print the entry as JSON")
	scope.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&status, "status", "", "quarantined, denylisted or allowlisted")
	f.StringVar(&reason, "reason", "", "reason, such as user_unknown")
	f.StringVar(&comment, "comment", "", "why")
	return cmd
}

// show prints an entry, unless the call that answered it failed.
func (a *addresses) show(e *veredusv1.AddressEntry, err error) error {
	switch {
	case err != nil:
		return err
	case a.json:
		return printProto(a.out, e)
	}
	printEntry(a.out, e, time.Now())
	return nil
}

func newAddressesDelete() *cobra.Command {
	a, scope := &addresses{}, scopeFlags{}
	cmd := a.with(&cobra.Command{
		Use:   "delete {ADDRESS | NAME}",
		Short: "Delete an entry",
		Long: `Delete an entry: name it as 'veredus addresses get' shows it (addressEntries/...), or give the
address and the scope. What it was is printed.`,
		Example: `  veredus addresses delete ada@example.com --tenant acme --class marketing`,
		Args:    exactArgs("the address or the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := scope.read(cmd)
			if err != nil {
				return err
			}
			req := &veredusv1.DeleteAddressEntryRequest{Address: args[0], Scope: where, RequestId: requestID()}
			if strings.HasPrefix(args[0], "addressEntries/") {
				req.Name, req.Address, req.Scope = args[0], "", nil
				if scope != (scopeFlags{}) {
					return usagef(cmd, "the name says the scope; leave --tenant, --class and --list out")
				}
			}
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				e, err := persist(cmd.Context(), c.DeleteAddressEntry, req)
				return a.show(e, err)
			})
		},
	}, "print the entry as JSON")
	scope.flags(cmd)
	return cmd
}

func newAddressesRotate() *cobra.Command {
	a := &addresses{}
	return a.with(&cobra.Command{
		Use:   "rotate-unsubscribe-key",
		Short: "Make a new key for hosted unsubscribe links",
		Long:  `Make a new key for hosted unsubscribe links. Links made with older keys go on working.`,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &veredusv1.RotateUnsubscribeKeyRequest{RequestId: requestID()}
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				answer, err := persist(cmd.Context(), c.RotateUnsubscribeKey, req)
				if err != nil {
					return err
				}
				if a.json {
					return printProto(a.out, answer)
				}
				fmt.Fprintf(a.out, "new links have key %d; %d keys are accepted\n", answer.GetKeyId(), answer.GetKeyCount())
				return nil
			})
		},
	}, "print the answer as JSON")
}
