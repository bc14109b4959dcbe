package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// qualify is the command that says what a reply means.
type qualify struct {
	node
	phase, provider, domain, rules string
	json                           bool
}

func newQualify() *cobra.Command {
	q := &qualify{}
	cmd := &cobra.Command{
		Use:   "qualify REPLY",
		Short: "Say what an SMTP reply means and what follows from it",
		Long: `Qualify an SMTP reply: which rule matches, the bounce code, and what follows for
the message, for the address and for the path. It uses the rules of this program,
with your own in front of them if --rules names a file. With --addr it asks a
running node instead, which has its own rules.`,
		Example: `  veredus qualify "550 5.1.1 The email account that you tried to reach does not exist"
  veredus qualify --phase end_of_data --provider google "421 4.7.28 unusual rate of mail"
  veredus qualify --rules bounces.yaml "554 mailbox closed for the holidays"`,
		Args: exactArgs("the reply (put it in quotes)"),
		RunE: func(cmd *cobra.Command, args []string) error { return q.run(cmd, args[0]) },
	}
	q.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&q.phase, "phase", "rcpt", "what was answered: connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data")
	f.StringVar(&q.provider, "provider", "", `mailbox provider, such as "google", for rules of its own`)
	f.StringVar(&q.domain, "domain", "", "recipient domain")
	f.StringVar(&q.rules, "rules", "", "file of your own bounce rules")
	f.BoolVar(&q.json, "json", false, "print the answer as JSON")
	return cmd
}

func (q *qualify) run(cmd *cobra.Command, reply string) error {
	req := &veredusv1.QualifyReplyRequest{Reply: reply, Phase: q.phase, Provider: q.provider, Domain: q.domain}
	answer, err := q.answer(cmd, req)
	if err != nil {
		return err
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
	phase, ok := smtpc.ParsePhase(req.GetPhase())
	if !ok {
		return nil, usagef(cmd, "--phase %q is not known; use connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data", req.GetPhase())
	}
	if strings.TrimSpace(req.GetReply()) == "" {
		return nil, usagef(cmd, "the reply is empty; give it as the server said it, such as \"550 5.1.1 user unknown\"")
	}
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
	in := bounce.Input{Reply: bounce.ParseReply(req.GetReply()), Provider: req.GetProvider(), Domain: req.GetDomain()}
	in.Reply.Phase = phase
	return qualification(table.Explain(in)), nil
}

// qualification is an explanation as the contract says it.
func qualification(e bounce.Explanation) *veredusv1.QualifyReplyResponse {
	v := e.Verdict
	answer := &veredusv1.QualifyReplyResponse{
		BounceCode: int32(v.Code), Name: v.Name, Category: v.Category, Tag: v.Tag,
		Reason: veredusv1.FailureReason(v.Reason), FailureType: veredusv1.FailureType(v.Type),
		Disposition:   veredusv1.Disposition(v.Disposition + 1),
		AddressEffect: v.Address.String(), PathEffect: pathEffects[v.Path], Hold: v.Hold.String(),
		Rule: v.Rule, NormalisedText: e.Normalised, MaxAttempts: int32(v.MaxAttempts),
	}
	for _, s := range e.Steps {
		verdict := "passed over"
		if s.Matched {
			verdict = "matched"
		}
		answer.Considered = append(answer.Considered, fmt.Sprintf("%s: %s, %s", s.Rule, verdict, s.Why))
	}
	return answer
}

// pathEffects are the contract's words.
var pathEffects = map[bounce.PathEffect]string{
	bounce.PathNone: "none", bounce.PathSlow: "slow", bounce.PathFewerConnections: "fewer connections",
	bounce.PathFewerMessages: "fewer messages per connection", bounce.PathRest: "rest",
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
		return
	}
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
	fmt.Fprintln(out, "considered:")
	for _, step := range a.GetConsidered() {
		fmt.Fprintf(out, "  %s\n", oneLine(step))
	}
}
