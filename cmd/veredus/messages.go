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

// messages shows the sending log.
type messages struct {
	node
	status, reason, destination, recipient, id string

	since time.Duration
	limit int
	json  bool
}

func newMessages() *cobra.Command {
	m := &messages{}
	cmd := &cobra.Command{
		Use:   "messages [DELIVERY | MESSAGE]",
		Short: "Show the sending log, or one message with its attempts",
		Long: `Show the sending log of a delivery: each message with its status and its last
failure. Without a delivery, give --recipient or --recipient-id to find the messages
of one person in all deliveries.

With the name of a message (deliveries/D/messages/M) it shows that message: every
attempt with the receiver's reply, and what it waits for.`,
		Example: `  veredus messages spring --status failed --reason user_unknown
  veredus messages --recipient ada@example.com
  veredus messages deliveries/spring/messages/0a4c`,
		Args: atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error { return m.run(cmd, strings.Join(args, "")) },
	}
	m.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&m.status, "status", "", "only with this status: pending, taken_into_account, sent, failed, ignored, cancelled")
	f.StringVar(&m.reason, "reason", "", "only with this reason of the last failure, such as mailbox_full")
	f.StringVar(&m.destination, "destination", "", "only of this destination, such as google")
	f.StringVar(&m.recipient, "recipient", "", "only to this address")
	f.StringVar(&m.id, "recipient-id", "", "only of this recipient_id of yours")
	f.DurationVar(&m.since, "since", 0, "only changed in the last, such as 1h")
	f.IntVar(&m.limit, "limit", 50, "at most this many; 0 shows all")
	f.BoolVar(&m.json, "json", false, "print messages as JSON, one per line")
	return cmd
}

func (m *messages) run(cmd *cobra.Command, name string) error {
	req, err := m.request(cmd, name)
	if err != nil {
		return err
	}
	conn, err := m.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	campaigns := veredusv1.NewCampaignServiceClient(conn)
	if strings.Contains(name, "/messages/") {
		one, err := campaigns.GetMessage(cmd.Context(), &veredusv1.GetMessageRequest{Name: name})
		if err != nil {
			return m.explain(err)
		}
		if m.json {
			return printProto(cmd.OutOrStdout(), one)
		}
		printMessage(cmd.OutOrStdout(), one, time.Now())
		return nil
	}
	return m.explain(m.list(cmd, campaigns, req))
}

func (m *messages) request(cmd *cobra.Command, name string) (*veredusv1.ListMessagesRequest, error) {
	req := &veredusv1.ListMessagesRequest{Parent: deliveryName(name), Destination: m.destination, Recipient: m.recipient, RecipientId: m.id}
	if name == "" {
		req.Parent = "deliveries/-"
		if m.recipient == "" && m.id == "" {
			return nil, usagef(cmd, "give a delivery, or --recipient or --recipient-id to search all of them")
		}
	}
	status, err1 := optionalEnum(veredusv1.LogStatus_value, "LOG_STATUS_", m.status)
	reason, err2 := optionalEnum(veredusv1.FailureReason_value, "FAILURE_REASON_", m.reason)
	if err := errors.Join(prefixed("--status", err1), prefixed("--reason", err2)); err != nil {
		return nil, &usageError{cmd, err}
	}
	req.Status = veredusv1.LogStatus(status)
	if m.reason != "" {
		req.Reason = veredusv1.FailureReason(reason).Enum()
	}
	if m.since > 0 {
		req.UpdatedSince = timestamppb.New(time.Now().Add(-m.since))
	}
	return req, nil
}

func optionalEnum(values map[string]int32, prefix, name string) (int32, error) {
	if name == "" {
		return 0, nil
	}
	return enumValue(values, prefix, name)
}

func prefixed(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %w", flag, err)
}

// list prints pages as they come.
func (m *messages) list(cmd *cobra.Command, campaigns veredusv1.CampaignServiceClient, req *veredusv1.ListMessagesRequest) error {
	shown, more := 0, false
	rows := newTable("message", "recipient", "status", "destination", "attempts", "last failure")
	for !more {
		req.PageSize = 1000
		if m.limit > 0 {
			req.PageSize = int32(min(1000, m.limit-shown))
		}
		page, err := campaigns.ListMessages(cmd.Context(), req)
		if err != nil {
			return err
		}
		for _, one := range page.GetMessages() {
			shown++
			if m.json {
				if err := printProto(cmd.OutOrStdout(), one); err != nil {
					return err
				}
				continue
			}
			rows.row(one.GetName(), one.GetRecipient(), statusName(one.GetStatus()), one.GetDestination(), one.GetAttemptCount(), failure(one))
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		more = m.limit > 0 && shown >= m.limit
	}
	if m.json {
		return nil
	}
	rows.print(cmd.OutOrStdout())
	if more {
		fmt.Fprintf(cmd.ErrOrStderr(), "there are more; see them with --limit 0\n")
	}
	return nil
}

func statusName(s veredusv1.LogStatus) string { return enumName(s.String(), "LOG_STATUS_") }

// failure is a message's last failure in one line.
func failure(m *veredusv1.Message) string {
	reason := enumName(m.GetReason().String(), "FAILURE_REASON_")
	return joinWords([]string{reason, bracket(enumName(m.GetType().String(), "FAILURE_TYPE_")), clip(oneLine(m.GetErrorText()), 80)})
}

func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// printMessage shows one message with everything that is known.
func printMessage(out io.Writer, m *veredusv1.Message, now time.Time) {
	fmt.Fprintln(out, m.GetName())
	waiting := ""
	if w := m.GetWaitingFor(); w != nil {
		waiting = enumName(w.GetCause().String(), "WAIT_CAUSE_")
		if w.GetText() != "" {
			waiting += ": " + oneLine(w.GetText())
		}
		if w.GetNextAttemptTime().IsValid() {
			waiting += ", until " + clock(w.GetNextAttemptTime(), now)
		}
	}
	code := ""
	if m.GetBounceCode() != 0 {
		code = joinWords([]string{fmt.Sprint(m.GetBounceCode()), m.GetTag()})
	}
	pairs(out,
		"recipient", m.GetRecipient(), "recipient id", m.GetRecipientId(), "status", statusName(m.GetStatus()),
		"waiting for", waiting, "last failure", failure(m), "bounce code", code, "destination", m.GetDestination(),
		"arrived", clock(m.GetArrivalTime(), now), "expires", clock(m.GetExpireTime(), now), "changed", clock(m.GetUpdateTime(), now),
		"message id", m.GetMessageId(),
	)
	for _, a := range m.GetAttempts() {
		printAttempt(out, a, now)
	}
}

func printAttempt(out io.Writer, a *veredusv1.Attempt, now time.Time) {
	tls := "no TLS"
	if a.GetTlsVersion() != "" {
		tls = a.GetTlsVersion()
	}
	fmt.Fprintf(out, "\nattempt %d at %s from %s to %s (%s), %s, %v\n", a.GetNumber(), clock(a.GetTime(), now), a.GetSource(),
		a.GetRemoteHost(), a.GetRemoteAddress(), tls, a.GetDuration().AsDuration().Round(time.Millisecond))
	uncertain := ""
	if a.GetDeliveryUncertain() {
		uncertain = "the line ended before the reply: it may have been delivered"
	}
	code := ""
	if a.GetBounceCode() != 0 {
		code = joinWords([]string{fmt.Sprint(a.GetBounceCode()), a.GetTag(), "by rule", a.GetRule()})
	}
	pairs(out, a.GetPhase(), replyWords(a.GetReplyCode(), a.GetEnhancedCode(), a.GetText()), "result", enumName(a.GetDisposition().String(), "DISPOSITION_"), "bounce code", code, "uncertain", uncertain)
}
