package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// send creates a delivery, uploads recipients, prepares, starts and follows it.
type send struct {
	node
	content  contentFlags
	delivery string
	format   string
	comma    string

	label, tenant, pool, listID, unsubscribe, mode string
	validity                                       time.Duration
	priority                                       int32
	start, wait, json, hosted                      bool

	campaigns veredusv1.CampaignServiceClient
	out, log  io.Writer
}

func newSend() *cobra.Command {
	s := &send{}
	cmd := &cobra.Command{
		Use:   "send [RECIPIENTS]",
		Short: "Send a mailing to the recipients of a CSV or JSON lines file",
		Long: `Send a mailing: create a delivery, upload its recipients, prepare it, start it and
show how it goes. RECIPIENTS is a file, or "-" for standard input.

CSV has a header row. The column "email" (or "address") is the address, "recipient_id"
your own id, "metadata.X" metadata, "engaged" (true or false) whether the recipient opened
or clicked lately, which goes first through sources that are being warmed up; every
other column is a variable of the templates. JSON lines have the same keys, and
"variables" may be an object of its own.

Subject, text and HTML are Liquid templates: {{ name }}, {% if vip %}...{% endif %}.
What the preparation finds is printed; errors stop the delivery before it starts.

A broken connection is no trouble: the upload goes on behind what is durable. An
upload that was interrupted is resumed by the same command with --delivery ID, which
also starts or follows a delivery that is there already.

The exit status is 0 when the delivery ended (or, with --no-start or --no-wait, when
that much was done), 3 when the preparation found errors.`,
		Example: `  veredus send recipients.csv --from "Brand <news@brand.example>" \
      --subject "Hello {{ name }}" --html mail.html --text mail.txt \
      --label spring --unsubscribe-url "https://brand.example/u?id={{ id }}"
  veredus send recipients.csv --delivery spring --from news@brand.example --eml mail.eml --no-start
  veredus send --delivery spring`,
		Args: atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, strings.Join(args, "")) },
	}
	s.flags(cmd)
	s.content.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&s.delivery, "delivery", "", "id of the delivery; one that exists is resumed")
	f.StringVar(&s.format, "format", "", "csv or jsonl (default: by the name of the file)")
	f.StringVar(&s.comma, "separator", "", "separator of CSV (default: comma, semicolon or tab, whichever the first line has)")
	f.StringVar(&s.label, "label", "", "campaign that the delivery belongs to")
	f.StringVar(&s.tenant, "tenant", "", `tenant (default "default")`)
	f.StringVar(&s.pool, "pool", "", `pool of sources to send from (default "default")`)
	f.DurationVar(&s.validity, "validity", 0, "how long to try, such as 48h (default 5 days, of which 84 h apply)")
	f.StringVar(&s.listID, "list-id", "", "List-Id header, such as news.brand.example")
	f.StringVar(&s.unsubscribe, "unsubscribe-url", "", "https URL for one-click unsubscribes; a Liquid template")
	f.BoolVar(&s.hosted, "hosted-unsubscribe", false, "let the node answer one-click unsubscribes (public.listen); give --list-id, too")
	f.StringVar(&s.mode, "feedback-mode", "", `efs (Sent means delivered) or no-efs (Sent means handed over) (default "efs")`)
	f.Int32Var(&s.priority, "priority", 0, "share among deliveries, 1 to 100 (default 50)")
	start, wait := true, true
	f.BoolVar(&start, "start", true, "start the delivery when it is prepared")
	noStart := f.Bool("no-start", false, "only upload and prepare")
	noWait := f.Bool("no-wait", false, "do not wait for the end of the delivery")
	f.BoolVar(&s.json, "json", false, "print the figures as one JSON object at the end")
	cmd.PreRun = func(*cobra.Command, []string) {
		s.start, s.wait = start && !*noStart, wait && !*noWait
	}
	return cmd
}

func (s *send) run(cmd *cobra.Command, recipients string) error {
	s.out, s.log = cmd.OutOrStdout(), cmd.ErrOrStderr()
	file, total, err := s.recipients(cmd, recipients)
	if err != nil {
		return err
	}
	wanted, err := s.wanted(cmd)
	if err != nil {
		return err
	}
	conn, err := s.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	s.campaigns = veredusv1.NewCampaignServiceClient(conn)
	d, err := s.open(cmd, wanted, file)
	if err == nil {
		err = s.advance(cmd.Context(), d, file, total)
	}
	return s.explain(err)
}

// recipients opens the file and reads it once, to count and to find mistakes
// before anything is created.
func (s *send) recipients(cmd *cobra.Command, name string) (*recipientFile, int64, error) {
	if name == "" {
		if s.delivery == "" {
			return nil, 0, usagef(cmd, "give a file of recipients, or --delivery ID of a delivery to resume")
		}
		return nil, 0, nil
	}
	comma := rune(0)
	if s.comma != "" {
		comma = []rune(strings.ReplaceAll(s.comma, `\t`, "\t"))[0]
	}
	file, err := openRecipients(name, s.format, comma, cmd.InOrStdin())
	if err != nil {
		return nil, 0, &usageError{cmd, err}
	}
	if name == "-" {
		return file, 0, nil
	}
	total, err := file.count()
	if err != nil {
		return nil, 0, &usageError{nil, err}
	}
	if total == 0 {
		return nil, 0, usagef(cmd, "%s has no recipients below its header row", name)
	}
	return file, total, nil
}

// open gets the delivery of --delivery if there is one, or creates it.
func (s *send) open(cmd *cobra.Command, wanted *veredusv1.Delivery, file *recipientFile) (*veredusv1.Delivery, error) {
	ctx := cmd.Context()
	if s.delivery != "" {
		d, err := s.campaigns.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: deliveryName(s.delivery)})
		if err == nil {
			fmt.Fprintf(s.log, "%s is there: %s, %s recipients\n", d.GetName(), stateName(d), thousands(d.GetKpis().GetLedger().GetAccepted()))
			return d, nil
		}
		if status.Code(err) != codes.NotFound {
			return nil, err
		}
		if file == nil {
			return nil, usagef(cmd, "there is no delivery %q: give a file of recipients to create it", s.delivery)
		}
	}
	if err := s.content.require(cmd); err != nil {
		return nil, err
	}
	d, err := s.campaigns.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{
		Delivery: wanted, DeliveryId: deliveryID(s.delivery), RequestId: requestID(),
	})
	if err == nil {
		fmt.Fprintf(s.log, "created %s\n", d.GetName())
	}
	return d, err
}

// wanted is the delivery that the flags describe.
func (s *send) wanted(cmd *cobra.Command) (*veredusv1.Delivery, error) {
	sender, content, err := s.content.read()
	if err != nil {
		return nil, &usageError{cmd, err}
	}
	d := &veredusv1.Delivery{
		Tenant: s.tenant, Label: s.label, Pool: s.pool, ListId: s.listID, Priority: s.priority, Sender: sender, Content: content,
	}
	if s.validity != 0 {
		d.ValidityPeriod = durationpb.New(s.validity)
	}
	if s.unsubscribe != "" {
		d.Unsubscribe = &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, Url: s.unsubscribe}
	}
	if s.hosted {
		if s.unsubscribe != "" {
			return nil, usagef(cmd, "--hosted-unsubscribe and --unsubscribe-url exclude each other; give one of them")
		}
		d.Unsubscribe = &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED}
	}
	switch s.mode {
	case "":
	case "efs":
		d.FeedbackMode = veredusv1.FeedbackMode_FEEDBACK_MODE_EFS
	case "no-efs":
		d.FeedbackMode = veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS
	default:
		return nil, usagef(cmd, "--feedback-mode %q: use efs or no-efs", s.mode)
	}
	return d, nil
}

// advance does for the delivery what its state still asks for.
func (s *send) advance(ctx context.Context, d *veredusv1.Delivery, file *recipientFile, total int64) error {
	var err error
	draft := d.GetState() == veredusv1.DeliveryState_DELIVERY_STATE_DRAFT
	prepared := d.GetState() == veredusv1.DeliveryState_DELIVERY_STATE_PREPARED
	if file != nil && (draft || prepared) {
		if err := s.upload(ctx, d, file, total); err != nil {
			return err
		}
	}
	if draft || prepared {
		if d, err = s.prepare(ctx, d); err != nil {
			return err
		}
		if !s.start {
			fmt.Fprintf(s.log, "prepared; start it with 'veredus send --delivery %s'\n", deliveryID(d.GetName()))
			return s.report(d)
		}
		if d, err = persist(ctx, s.campaigns.StartDelivery, &veredusv1.StartDeliveryRequest{Name: d.GetName(), RequestId: requestID()}); err != nil {
			return err
		}
		fmt.Fprintf(s.log, "started; mail that cannot be delivered expires at %s\n", clock(d.GetExpireTime(), time.Now()))
	}
	if !s.wait {
		return s.report(d)
	}
	return s.watch(ctx, d)
}

func (s *send) upload(ctx context.Context, d *veredusv1.Delivery, file *recipientFile, total int64) error {
	p := newProgress(s.log)
	b := p.bar("uploading", total, false)
	began, rejected := time.Now(), int64(0)
	up := client.Uploader{
		Client: s.campaigns, Delivery: d.GetName(),
		Progress: func(at client.Progress) {
			rate := float64(at.Durable-at.Resumed) / time.Since(began).Seconds()
			b.set(at.Durable, thousands(int64(rate))+"/s")
		},
		Rejected: func(r *veredusv1.RejectedRecipient) {
			if rejected++; rejected <= 10 {
				fmt.Fprintf(s.log, "rejected: recipient %d (%s): %s: %s\n", r.GetIndex(), oneLine(r.GetAddress()), r.GetField(), r.GetDescription())
			}
		},
		Reconnect: func(err error, wait time.Duration) {
			fmt.Fprintf(s.log, "the connection broke (%s); trying again in %v\n", status.Convert(err).Message(), wait.Round(time.Millisecond))
		},
	}
	totals, err := up.Upload(ctx, file.source)
	b.done()
	p.close()
	if err != nil {
		return s.interrupted(ctx, d, err)
	}
	fmt.Fprintf(s.log, "%s recipients accepted, %s ignored, %s rejected\n", thousands(totals.Accepted), thousands(totals.Ignored), thousands(totals.Rejected))
	return nil
}

// interrupted says how to go on.
func (s *send) interrupted(ctx context.Context, d *veredusv1.Delivery, err error) error {
	if client.Reason(err) == veredusv1.ErrorReason_ERROR_REASON_STREAM_SUPERSEDED {
		return fmt.Errorf("another upload to %s took over; let it finish", d.GetName())
	}
	err = fmt.Errorf("%s\nGo on with the same command and --delivery %s: what is durable is not sent again", explainStatus(err), deliveryID(d.GetName()))
	if ctx.Err() != nil {
		return &exitError{exitInterrupted, err}
	}
	return err
}

// prepare analyses the delivery and prints what was found.
func (s *send) prepare(ctx context.Context, d *veredusv1.Delivery) (*veredusv1.Delivery, error) {
	answer, err := persist(ctx, s.campaigns.PrepareDelivery, &veredusv1.PrepareDeliveryRequest{Name: d.GetName(), RequestId: requestID()})
	if err != nil {
		return nil, err
	}
	bad := 0
	for _, f := range answer.GetFindings() {
		severity := enumName(f.GetSeverity().String(), "SEVERITY_")
		if f.GetSeverity() == veredusv1.Severity_SEVERITY_ERROR {
			bad++
		}
		fmt.Fprintf(s.log, "%-7s  %s: %s\n", severity, f.GetCode(), oneLine(f.GetDescription()))
	}
	if bad > 0 {
		return nil, &exitError{exitRefused, fmt.Errorf("the preparation found %d errors; %s was not started", bad, d.GetName())}
	}
	return answer.GetDelivery(), nil
}

// watch follows the delivery to its end.
func (s *send) watch(ctx context.Context, d *veredusv1.Delivery) error {
	p := newProgress(s.log)
	b := p.bar("sending", d.GetKpis().GetToDeliver(), false)
	ended, err := follow(ctx, s.campaigns, d.GetName(), 500*time.Millisecond, func(d *veredusv1.Delivery) {
		l := d.GetKpis().GetLedger()
		text := fmt.Sprintf("sent %s  failed %s  deferred %s", thousands(l.GetSent()), thousands(l.GetFailed()), thousands(d.GetKpis().GetDeferred()))
		if state := stateName(d); state != "running" {
			text += "  " + state
		}
		b.set(l.GetSent()+l.GetFailed()+l.GetCancelled(), text)
	})
	b.done()
	p.close()
	if err != nil {
		if ctx.Err() != nil {
			return &exitError{exitInterrupted, fmt.Errorf("%s goes on without us; follow it with 'veredus send --delivery %s'", d.GetName(), deliveryID(d.GetName()))}
		}
		return err
	}
	return s.report(ended)
}

func (s *send) report(d *veredusv1.Delivery) error {
	if s.json {
		return printJSON(s.out, summarise(d))
	}
	printKpis(s.out, d)
	return nil
}

// contentFlags name who the mail is from and what it says.
type contentFlags struct {
	from, replyTo, subject, text, html, eml string
	headers                                 []string
}

func (c *contentFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.from, "from", "", `address of the From header, or "Name <address>"`)
	f.StringVar(&c.replyTo, "reply-to", "", "address of the Reply-To header")
	f.StringVar(&c.subject, "subject", "", "subject; a Liquid template")
	f.StringVar(&c.text, "text", "", "file of the plain text part; a Liquid template")
	f.StringVar(&c.html, "html", "", "file of the HTML part; a Liquid template")
	f.StringVar(&c.eml, "eml", "", "file of a complete message (RFC 5322) instead of subject, text and HTML")
	f.StringArrayVar(&c.headers, "header", nil, `extra header, "Name: value"; may be given several times`)
}

// require checks that there is something to create a delivery from.
func (c *contentFlags) require(cmd *cobra.Command) error {
	switch {
	case c.from == "":
		return usagef(cmd, "--from is required: the address that the mail is from")
	case c.eml != "" && (c.subject != "" || c.text != "" || c.html != ""):
		return usagef(cmd, "--eml is a complete message; leave --subject, --text and --html out")
	case c.eml == "" && c.subject == "":
		return usagef(cmd, "--subject is required")
	case c.eml == "" && c.text == "" && c.html == "":
		return usagef(cmd, "--text FILE, --html FILE or both are required: what the mail says")
	}
	return nil
}

func (c *contentFlags) read() (*veredusv1.Sender, *veredusv1.Content, error) {
	content := &veredusv1.Content{Subject: c.subject}
	eml, err1 := readOptional("--eml", c.eml)
	text, err2 := readOptional("--text", c.text)
	html, err3 := readOptional("--html", c.html)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, err
	}
	content.Rfc5322, content.Text, content.Html = eml, string(text), string(html)
	for _, h := range c.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, nil, fmt.Errorf("--header %q: write it as \"Name: value\"", h)
		}
		content.Headers = append(content.Headers, &veredusv1.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	sender := &veredusv1.Sender{From: strings.TrimSpace(c.from), ReplyTo: c.replyTo}
	if name, rest, ok := strings.Cut(c.from, "<"); ok {
		sender.DisplayName = strings.Trim(strings.TrimSpace(name), `"`)
		sender.From = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), ">"))
	}
	return sender, content, nil
}

func readOptional(flag, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return data, nil
}
