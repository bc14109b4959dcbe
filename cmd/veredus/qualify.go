package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/learning"
)

// qualify is the command that says what a reply means.
type qualify struct {
	node
	phase, provider, domain, rules string
	json, batch, steps             bool
}

func newQualify() *cobra.Command {
	q := &qualify{}
	cmd := &cobra.Command{
		Use:   "qualify {REPLY | --batch}",
		Short: "Say what SMTP replies mean and what follows from them",
		Long: `Qualify an SMTP reply: which rule matches, the bounce code, and what follows for
the message, for the address and for the path. It uses the rules of this program,
with your own in front of them if --rules names a file. With --addr it asks a
running node instead, which has its own rules.

With --batch it reads replies from standard input, one JSON object on each line:

  {"id": "1", "reply": "550 5.1.1 user unknown", "domain": "example.com", "phase": "rcpt"}

and prints one line for each, in the same order:

  id           as it was given
  code, name   the bounce code and its name; 0 for a reply that is no failure
  category     hard, soft, block, admin or undetermined
  tag          the finer meaning
  reason       the failure reason, and reason_code its number
  type         the failure type: hard, soft or ignored
  disposition  of the message: delivered, final, retry or retry_soon
  address      effect on the address: none, count or suppress
  path         effect on the path: none, slow, fewer_connections, fewer_messages or rest
  rule         the rule that matched; iana:5.1.1 and class:4xx where only a code decided

Everything but the reply may be left out. A line that cannot be read is answered
with "id" and "error", and the exit status is 1 at the end.`,
		Example: `  veredus qualify "550 5.1.1 The email account that you tried to reach does not exist"
  veredus qualify --explain --phase end_of_data "421 4.7.28 unusual rate of mail"
  veredus qualify --rules bounces.yaml "554 mailbox closed for the holidays"
  veredus qualify --batch < replies.jsonl`,
		Args: q.args,
		RunE: func(cmd *cobra.Command, args []string) error { return q.run(cmd, args) },
	}
	q.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&q.phase, "phase", "rcpt", "what was answered: connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data")
	f.StringVar(&q.provider, "provider", "", `mailbox provider, such as "google", for rules of its own`)
	f.StringVar(&q.domain, "domain", "", "recipient domain")
	f.StringVar(&q.rules, "rules", "", "file of your own bounce rules")
	f.BoolVar(&q.json, "json", false, "print the answer as JSON")
	f.BoolVar(&q.batch, "batch", false, "read replies as JSON lines from standard input")
	f.BoolVar(&q.steps, "explain", false, "show the rules considered")
	return cmd
}

// args wants one reply, or none with --batch.
func (q *qualify) args(cmd *cobra.Command, args []string) error {
	if !q.batch {
		return exactArgs("the reply (put it in quotes)")(cmd, args)
	}
	return noArgs(cmd, args)
}

func (q *qualify) run(cmd *cobra.Command, args []string) error {
	if q.batch {
		return q.runBatch(cmd)
	}
	req := &veredusv1.QualifyReplyRequest{Reply: args[0], Phase: q.phase, Provider: q.provider, Domain: q.domain}
	answer, err := q.answer(cmd, req)
	if err != nil {
		return err
	}
	if !q.steps {
		answer.Considered = nil
	}
	if q.json {
		return printProto(cmd.OutOrStdout(), answer)
	}
	printQualification(cmd.OutOrStdout(), answer)
	return nil
}

func (q *qualify) answer(cmd *cobra.Command, req *veredusv1.QualifyReplyRequest) (*veredusv1.QualifyReplyResponse, error) {
	if !cmd.Flags().Changed("addr") {
		return q.local(cmd, req)
	}
	if q.rules != "" {
		return nil, usagef(cmd, "--rules is for this program's own rules; a node (--addr) has its own")
	}
	conn, err := q.dial(cmd)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	answer, err := veredusv1.NewRelayServiceClient(conn).QualifyReply(cmd.Context(), req)
	return answer, q.explain(err)
}

// local qualifies with this program's table.
func (q *qualify) local(cmd *cobra.Command, req *veredusv1.QualifyReplyRequest) (*veredusv1.QualifyReplyResponse, error) {
	phase, ok := parsePhase(req.GetPhase())
	if !ok {
		return nil, usagef(cmd, "--phase %q is not known; use %s", req.GetPhase(), phaseWords)
	}
	if strings.TrimSpace(req.GetReply()) == "" {
		return nil, usagef(cmd, "the reply is empty; give it as the server said it, such as \"550 5.1.1 user unknown\"")
	}
	table, err := q.table(cmd)
	if err != nil {
		return nil, err
	}
	in := bounce.Input{Reply: bounce.ParseReply(req.GetReply()), Provider: req.GetProvider(), Domain: req.GetDomain()}
	in.Reply.Phase = phase
	e := table.Explain(in)
	return learning.Qualification(&e), nil
}

const phaseWords = "connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data"

// parsePhase reads a phase as people write it, also "end of DATA"; RCPT when it is empty.
func parsePhase(name string) (smtpc.Phase, bool) {
	if name = strings.TrimSpace(name); name == "" {
		return smtpc.PhaseRCPT, true
	}
	return smtpc.ParsePhase(strings.NewReplacer(" ", "_", "-", "_").Replace(name))
}

// table is the built-in table with the user's rules in front. A provider is one that
// the rules know: a mistyped one would silently switch rules off.
func (q *qualify) table(cmd *cobra.Command) (*bounce.Table, error) {
	table := bounce.Default()
	if q.rules != "" {
		data, err := os.ReadFile(q.rules)
		if err != nil {
			return nil, &usageError{cmd, fmt.Errorf("--rules: %w", err)}
		}
		if table, err = bounce.Load(data, q.rules); err != nil {
			return nil, &usageError{cmd, err}
		}
	}
	if known := table.Providers(); q.provider != "" && !slices.Contains(known, q.provider) {
		return nil, usagef(cmd, "--provider %q is not known; use one of %s, or leave it out", q.provider, strings.Join(known, ", "))
	}
	return table, nil
}

// What follows, in words.
var (
	dispositionWords = map[veredusv1.Disposition]string{
		veredusv1.Disposition_DISPOSITION_DELIVERED:  "delivered",
		veredusv1.Disposition_DISPOSITION_FINAL:      "failed for good, no further attempt",
		veredusv1.Disposition_DISPOSITION_RETRY:      "tried again by the retry schedule, inside its validity period",
		veredusv1.Disposition_DISPOSITION_RETRY_SOON: "tried again once after 5 to 15 minutes, then by the retry schedule",
	}
	addressWords = map[string]string{
		"none":     "nothing",
		"count":    "counts one error against it",
		"suppress": "goes into quarantine at once",
	}
	pathWords = map[string]string{
		"none":                          "nothing",
		"slow":                          "is slowed",
		"fewer connections":             "gets fewer connections",
		"fewer messages per connection": "gets fewer messages per connection",
		"rest":                          "rests",
	}
	holdWords = map[string]string{
		"none":           "",
		"content":        "its content was refused: watch it",
		"authentication": "stop it: SPF, DKIM or DMARC failed, and retrying cannot help",
	}
)

func printQualification(out io.Writer, a *veredusv1.QualifyReplyResponse) {
	message := dispositionWords[a.GetDisposition()]
	if n := a.GetMaxAttempts(); n > 0 {
		message += fmt.Sprintf(", at most %d attempts", n)
	}
	if a.GetBounceCode() == 0 {
		pairs(out, "rule", a.GetRule(), "message", message)
	} else {
		fmt.Fprintf(out, "%d %s (%s)\n", a.GetBounceCode(), a.GetName(), a.GetCategory())
		pairs(out,
			"rule", a.GetRule(),
			"tag", a.GetTag(),
			"reason", enumName(a.GetReason().String(), "FAILURE_REASON_"),
			"type", enumName(a.GetFailureType().String(), "FAILURE_TYPE_"),
			"message", message,
			"address", addressWords[a.GetAddressEffect()],
			"path", pathWords[a.GetPathEffect()],
			"delivery", holdWords[a.GetHold()],
			"as the rules see it", oneLine(a.GetNormalisedText()),
		)
	}
	if len(a.GetConsidered()) == 0 {
		return
	}
	fmt.Fprintln(out, "considered:")
	for _, step := range a.GetConsidered() {
		fmt.Fprintf(out, "  %s\n", oneLine(step))
	}
}
