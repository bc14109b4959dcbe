package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// replies shows and settles what receivers said.
type replies struct {
	node
	json bool
}

func newReplies() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replies",
		Short: "Show the texts of failed replies, and say what they mean",
		Long: `A node keeps each distinct text of failed replies, with what varies in it masked.
Those that no rule names are to be qualified: 'list' shows them, most frequent
first; 'qualify' makes a rule of your choice, which is in force at once; 'keep' and
'ignore' settle them without one. After a change of rules, 'requalify' shows what
they change about the past, and undoes what they no longer hold against addresses.`,
		Example: `  veredus replies list
  veredus replies qualify 3f2a... --tag mailbox_full
  veredus replies requalify --dry-run`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRepliesList(), newRepliesQualify(), newRepliesStatus("keep", "Confirm what the rules make of a text", veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_KEEP),
		newRepliesStatus("ignore", "Set a text aside", veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_IGNORE),
		newRepliesStatus("reopen", "Undo 'keep' or 'ignore'", veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_TO_QUALIFY), newRequalify())
	return cmd
}

func (r *replies) bothFlags(cmd *cobra.Command) {
	r.flags(cmd)
	cmd.Flags().BoolVar(&r.json, "json", false, "print the answer as JSON")
}

// call runs f with a client of the node.
func (r *replies) call(cmd *cobra.Command, f func(veredusv1.RelayServiceClient) error) error {
	conn, err := r.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return r.explain(f(veredusv1.NewRelayServiceClient(conn)))
}

// repliesList lists texts.
type repliesList struct {
	replies
	status, provider string
	limit            int
}

func newRepliesList() *cobra.Command {
	l := &repliesList{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List texts of failed replies, most frequent first",
		Long: `List the distinct texts of failed replies, those said most often first. Without
--status these are the texts that no rule names, which await your choice.`,
		Example: `  veredus replies list
  veredus replies list --status all --provider google --limit 0 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return l.run(cmd) },
	}
	l.bothFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&l.status, "status", "to_qualify", "to_qualify, keep, ignore or all")
	f.StringVar(&l.provider, "provider", "", `only said by this provider, such as "google"; "other" where none is known`)
	f.IntVar(&l.limit, "limit", 50, "at most this many; 0 shows all")
	return cmd
}

func (l *repliesList) run(cmd *cobra.Command) error {
	req := &veredusv1.ListReplyTextsRequest{Provider: l.provider}
	if l.status != "all" {
		status, err := optionalEnum(veredusv1.ReplyTextStatus_value, "REPLY_TEXT_STATUS_", l.status)
		if err != nil {
			return usagef(cmd, "--status %w, all", err)
		}
		req.Status = veredusv1.ReplyTextStatus(status)
	}
	if l.limit < 0 {
		return usagef(cmd, "--limit %d: give a number of texts, or 0 for all", l.limit)
	}
	return l.call(cmd, func(relay veredusv1.RelayServiceClient) error { return l.print(cmd, relay, req) })
}

func (l *repliesList) print(cmd *cobra.Command, relay veredusv1.RelayServiceClient, req *veredusv1.ListReplyTextsRequest) error {
	rows := newTable("text", "said", "status", "code", "rule", "providers", "first reply")
	shown, more := 0, false
	for !more {
		req.PageSize = 1000
		if l.limit > 0 {
			req.PageSize = int32(min(1000, l.limit-shown))
		}
		page, err := relay.ListReplyTexts(cmd.Context(), req)
		if err != nil {
			return err
		}
		for _, t := range page.GetReplyTexts() {
			shown++
			if l.json {
				if err := printProto(cmd.OutOrStdout(), t); err != nil {
					return err
				}
				continue
			}
			q := t.GetQualification()
			rows.row(textID(t), t.GetCount(), textStatus(t), fmt.Sprint(q.GetBounceCode()), q.GetRule(), strings.Join(t.GetProviders(), " "), clip(oneLine(t.GetFirstReply()), 100))
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		more = l.limit > 0 && shown >= l.limit
	}
	if !l.json {
		rows.print(cmd.OutOrStdout())
	}
	if more && !l.json {
		fmt.Fprintf(cmd.ErrOrStderr(), "there are more; see them with --limit 0\n")
	}
	return nil
}

const textsPrefix = "replyTexts/"

func textID(t *veredusv1.ReplyText) string { return strings.TrimPrefix(t.GetName(), textsPrefix) }

func textStatus(t *veredusv1.ReplyText) string {
	return enumName(t.GetStatus().String(), "REPLY_TEXT_STATUS_")
}

// textName accepts the id as 'list' shows it.
func textName(id string) string { return textsPrefix + strings.TrimPrefix(id, textsPrefix) }

// repliesQualify makes a rule.
type repliesQualify struct {
	replies
	tag, provider string
	code          int32
}

func newRepliesQualify() *cobra.Command {
	q := &repliesQualify{}
	cmd := &cobra.Command{
		Use:   "qualify TEXT",
		Short: "Say what a text means; it becomes a rule in the node's file",
		Long: `Say what a text of failed replies means. Your choice becomes a rule for exactly
this text in the node's file of bounce rules (bounce_rules) and is in force at once.
Another choice for the same text replaces the rule.`,
		Example: `  veredus replies qualify 3f2a... --tag mailbox_full
  veredus replies qualify 3f2a... --code 52 --provider google`,
		Args: exactArgs("the text (its id, as 'veredus replies list' shows it)"),
		RunE: func(cmd *cobra.Command, args []string) error { return q.run(cmd, args[0]) },
	}
	q.bothFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&q.tag, "tag", "", "what it means, such as mailbox_full, user_unknown, rate_limit, spam_content")
	f.Int32Var(&q.code, "code", 0, "bounce code, in place of the tag's")
	f.StringVar(&q.provider, "provider", "", "only where this provider says it")
	return cmd
}

func (q *repliesQualify) run(cmd *cobra.Command, id string) error {
	if q.tag == "" && q.code == 0 {
		return usagef(cmd, "give --tag or --code: what the text means")
	}
	req := &veredusv1.QualifyReplyTextRequest{Name: textName(id), Tag: q.tag, BounceCode: q.code, Provider: q.provider, RequestId: requestID()}
	return q.call(cmd, func(relay veredusv1.RelayServiceClient) error {
		answer, err := persist(cmd.Context(), relay.QualifyReplyText, req)
		if err != nil {
			return err
		}
		if q.json {
			return printProto(cmd.OutOrStdout(), answer)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "in %s:\n%s", oneLine(answer.GetFile()), indent(answer.GetRule()))
		printText(cmd, answer.GetReplyText())
		return nil
	})
}

// indent sets lines two columns in and keeps what they hold from the terminal.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + oneLine(strings.TrimRight(line, "\n")) + "\n")
	}
	return b.String()
}

func printText(cmd *cobra.Command, t *veredusv1.ReplyText) {
	now := time.Now()
	fmt.Fprintln(cmd.OutOrStdout(), t.GetName())
	q := t.GetQualification()
	pairs(cmd.OutOrStdout(),
		"status", textStatus(t), "said", thousands(t.GetCount())+" times", "by", strings.Join(t.GetProviders(), ", "),
		"first", clock(t.GetFirstTime(), now), "last", clock(t.GetLastTime(), now), "reply", oneLine(t.GetFirstReply()),
		"bounce code", joinWords([]string{fmt.Sprint(q.GetBounceCode()), q.GetName()}), "tag", q.GetTag(), "rule", q.GetRule(),
		"message", dispositionWords[q.GetDisposition()], "address", addressWords[q.GetAddressEffect()], "path", pathWords[q.GetPathEffect()],
	)
}

// newRepliesStatus makes a command that gives a text a status.
func newRepliesStatus(name, short string, status veredusv1.ReplyTextStatus) *cobra.Command {
	r := &replies{}
	cmd := &cobra.Command{
		Use: name + " TEXT", Short: short, Long: short + ". No rule is written.",
		Example: "  veredus replies " + name + " 3f2a...",
		Args:    exactArgs("the text (its id, as 'veredus replies list' shows it)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &veredusv1.QualifyReplyTextRequest{Name: textName(args[0]), Status: status, RequestId: requestID()}
			return r.call(cmd, func(relay veredusv1.RelayServiceClient) error {
				answer, err := persist(cmd.Context(), relay.QualifyReplyText, req)
				if err != nil {
					return err
				}
				if r.json {
					return printProto(cmd.OutOrStdout(), answer)
				}
				printText(cmd, answer.GetReplyText())
				return nil
			})
		},
	}
	r.bothFlags(cmd)
	return cmd
}

// requalify goes through the past.
type requalify struct {
	replies
	dryRun  bool
	comment string
}

func newRequalify() *cobra.Command {
	r := &requalify{}
	cmd := &cobra.Command{
		Use:   "requalify",
		Short: "Undo what changed rules no longer hold against addresses",
		Long: `Qualify the past by the rules of today: show the texts whose meaning changed, and
take out of quarantine and of error counters what had rested on the old meaning,
with an event for the record. It only undoes: no address is added to quarantine.
See with --dry-run what would change.`,
		Example: `  veredus replies requalify --dry-run
  veredus replies requalify --comment "outage at example.net told as user unknown"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	r.bothFlags(cmd)
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "show what would change, and change nothing")
	cmd.Flags().StringVar(&r.comment, "comment", "", "why, for the record")
	return cmd
}

func (r *requalify) run(cmd *cobra.Command) error {
	req := &veredusv1.RequalifyRequest{DryRun: r.dryRun, Comment: r.comment, RequestId: requestID()}
	return r.call(cmd, func(relay veredusv1.RelayServiceClient) error {
		answer, err := persist(cmd.Context(), relay.Requalify, req)
		if err != nil {
			return err
		}
		if r.json {
			return printProto(cmd.OutOrStdout(), answer)
		}
		printRequalified(cmd, answer, r.dryRun)
		return nil
	})
}

func printRequalified(cmd *cobra.Command, a *veredusv1.RequalifyResponse, dryRun bool) {
	out := cmd.OutOrStdout()
	texts := newTable("said", "was", "by", "is", "by", "address", "first reply")
	for _, t := range a.GetTexts() {
		q := t.GetReplyText().GetQualification()
		texts.row(t.GetReplyText().GetCount(), fmt.Sprint(t.GetOldBounceCode()), t.GetOldRule(), fmt.Sprint(q.GetBounceCode()), q.GetRule(),
			t.GetOldAddressEffect()+" -> "+q.GetAddressEffect(), clip(oneLine(t.GetReplyText().GetFirstReply()), 80))
	}
	fmt.Fprintf(out, "%s texts mean something else\n", thousands(a.GetTextCount()))
	if len(a.GetTexts()) > 0 {
		texts.print(out)
	}
	entries := newTable("address", "was", "becomes", "errors", "evidence that no longer holds")
	for _, e := range a.GetEntries() {
		becomes := enumName(e.GetNewStatus().String(), "ADDRESS_STATUS_")
		if becomes == "" {
			becomes = "free"
		}
		evidence := ""
		if all := e.GetEvidence(); len(all) > 0 {
			evidence = clip(oneLine(replyWords(all[0].GetReplyCode(), all[0].GetEnhancedCode(), all[0].GetText())), 80)
		}
		entries.row(oneLine(e.GetAddress()), enumName(e.GetOldStatus().String(), "ADDRESS_STATUS_"), becomes, int(e.GetNewErrorCount()), evidence)
	}
	verb := "were changed"
	if dryRun {
		verb = "would change"
	}
	fmt.Fprintf(out, "%s address entries %s\n", thousands(a.GetEntryCount()), verb)
	if len(a.GetEntries()) > 0 {
		entries.print(out)
	}
}
