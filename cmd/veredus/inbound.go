package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
)

// inboundMail is the command that says what mails that came back mean.
type inboundMail struct{ rules, keys string }

func newInbound() *cobra.Command {
	m := &inboundMail{}
	cmd := &cobra.Command{
		Use:   "inbound FILE.eml...",
		Short: "Say what bounces, complaints and replies in files mean",
		Long: `Read mails that came back (bounces, complaints, automatic replies, challenges,
unsubscribe requests) from files and print one line of JSON for each recipient that
a mail names, or one line without a recipient when it names nobody:

  file       the file
  kind       bounce, complaint, auto_reply, challenge, unsubscribe or other
  recipient  the recipient as the mail names it
  code       the bounce code, 0 when nothing failed
  tag        its finer meaning
  reason     the failure reason
  status     the enhanced status code, if the mail tells one
  action     of a bounce: failed, delayed, delivered, relayed or expanded
  message    with --keys, the message it is about: messages/ID, where ID is that of
             deliveries/DELIVERY/messages/ID

Only a signature of the node that sent the mail ties what came back to a message: a
token in the address it came to, in the Message-ID, or in List-Unsubscribe. --keys
names the node's file of signing keys, data_dir/returnpath.keys: one key a line, its
id and its secret in hexadecimal. The token has the number of the delivery but not its name,
so the delivery is left out. A message found by a Message-ID or List-Unsubscribe alone
is one that the node acts on only if the recipient is that message's, which cannot be
checked here. Without --keys, message is empty.

A file may be a mailbox (mbox) of several mails; "-" is standard input.`,
		Example: `  veredus inbound bounce.eml
  veredus inbound --keys /var/lib/veredus/returnpath.keys /var/lib/veredus/unprocessed/*.eml
  veredus inbound *.eml | jq -r 'select(.code == 10) | .recipient'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(cmd, "a file is missing; name one or more mails")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return m.run(cmd, args) },
	}
	cmd.Flags().StringVar(&m.rules, "rules", "", "file of your own bounce rules")
	cmd.Flags().StringVar(&m.keys, "keys", "", "file of a node's return path keys (data_dir/returnpath.keys)")
	return cmd
}

// run reads every file that can be read, and fails at the end if one could not.
func (m *inboundMail) run(cmd *cobra.Command, files []string) error {
	classifier, err := m.classifier()
	if err != nil {
		return &usageError{cmd, err}
	}
	var failures []error
	for _, file := range files {
		raw, err := readMailFile(cmd.InOrStdin(), file)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, mail := range inbound.Mails(raw) {
			report := classifier.Classify(inbound.Parse(mail, inbound.Limits{}), inbound.Envelope{})
			for _, line := range inboundLines(file, report) {
				if err := printJSON(cmd.OutOrStdout(), line); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(failures...)
}

// classifier is the one that the flags describe.
func (m *inboundMail) classifier() (*inbound.Classifier, error) {
	table := bounce.Default()
	if m.rules != "" {
		data, err := os.ReadFile(m.rules)
		if err != nil {
			return nil, fmt.Errorf("--rules: %w", err)
		}
		if table, err = bounce.Load(data, m.rules); err != nil {
			return nil, err
		}
	}
	if m.keys == "" {
		return inbound.NewClassifier(table, nil), nil
	}
	keys, err := readKeysFile(m.keys)
	if err != nil {
		return nil, fmt.Errorf("--keys: %w", err)
	}
	return inbound.NewClassifier(table, keys), nil
}

// maxMailFile is the largest file read, in bytes.
const maxMailFile = 256 << 20

func readMailFile(in io.Reader, name string) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxMailFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(raw) > maxMailFile {
		return nil, fmt.Errorf("%s is larger than %d MiB; split it", name, maxMailFile>>20)
	}
	return raw, nil
}

// inboundLine is what one mail says about one recipient.
type inboundLine struct {
	File      string `json:"file"`
	Kind      string `json:"kind"`
	Recipient string `json:"recipient"`
	Code      int    `json:"code"`
	Tag       string `json:"tag"`
	Reason    string `json:"reason"`
	Status    string `json:"status"`
	Action    string `json:"action"`
	Message   string `json:"message"`
}

func inboundLines(file string, r inbound.Report) []inboundLine {
	if len(r.Recipients) == 0 {
		return []inboundLine{newInboundLine(file, r, r.Verdict)}
	}
	var lines []inboundLine
	for _, x := range r.Recipients {
		line := newInboundLine(file, r, x.Verdict)
		line.Recipient, line.Status, line.Action = x.Address, x.Status, x.Action.String()
		lines = append(lines, line)
	}
	return lines
}

func newInboundLine(file string, r inbound.Report, v bounce.Verdict) inboundLine {
	line := inboundLine{File: file, Kind: r.Kind.String(), Code: v.Code, Tag: v.Tag}
	if v.Code != 0 && v.Code != bounce.CodeAutoReply { // an automatic reply is no failure
		line.Reason = v.Reason.String()
	}
	if r.Attribution.Certain() {
		line.Message = messageOf(r.Attribution.Ref)
	}
	return line
}
