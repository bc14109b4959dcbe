package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/mta/bounce"
)

// maxBatchLine is the longest line of a batch, in bytes.
const maxBatchLine = 1 << 20

// batchLine is one reply of a batch. Keys that are not known are passed over, so that a
// file may carry more than is asked for here.
type batchLine struct {
	ID     json.RawMessage `json:"id"` // echoed, whatever it is
	Reply  *string         `json:"reply"`
	Domain string          `json:"domain"`
	Phase  string          `json:"phase"`
}

// batchAnswer is what a reply means; see the command's help.
type batchAnswer struct {
	ID          json.RawMessage `json:"id"`
	Code        int             `json:"code"`
	Name        string          `json:"name"`
	Category    string          `json:"category"`
	Tag         string          `json:"tag"`
	Reason      string          `json:"reason"`
	ReasonCode  int             `json:"reason_code"`
	Type        string          `json:"type"`
	Disposition string          `json:"disposition"`
	Address     string          `json:"address"`
	Path        string          `json:"path"`
	Rule        string          `json:"rule"`
}

// batchFault answers a line that cannot be read.
type batchFault struct {
	ID    json.RawMessage `json:"id"`
	Error string          `json:"error"`
}

// runBatch qualifies the lines of standard input as they come.
func (q *qualify) runBatch(cmd *cobra.Command) error {
	switch {
	case cmd.Flags().Changed("addr"):
		return usagef(cmd, "--batch uses this program's own rules; leave --addr out")
	case q.steps:
		return usagef(cmd, "--explain is for one reply; leave --batch out")
	case cmd.Flags().Changed("phase") || q.domain != "":
		return usagef(cmd, "--phase and --domain are for one reply; write them into the lines of the batch")
	}
	table, err := q.table(cmd)
	if err != nil {
		return err
	}
	b := &batch{table: table, provider: q.provider, in: bufio.NewReaderSize(cmd.InOrStdin(), 64<<10), out: bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)}
	if mark, _ := b.in.Peek(3); string(mark) == "\uFEFF" { // a byte order mark, as some programs begin files
		_, _ = b.in.Discard(len(mark))
	}
	return b.run()
}

// batch goes from lines to answers with one line in memory.
type batch struct {
	table    *bounce.Table
	provider string
	in       *bufio.Reader
	out      *bufio.Writer

	line           []byte
	number, faults int
}

func (b *batch) run() error {
	encoder := json.NewEncoder(b.out)
	encoder.SetEscapeHTML(false)
	for {
		long, err := b.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("standard input: %w", err), b.out.Flush())
		}
		if b.number++; long || len(bytes.TrimSpace(b.line)) > 0 {
			if err := encoder.Encode(b.answer(long)); err != nil {
				return fmt.Errorf("standard output: %w", err)
			}
		}
		if err != nil {
			break
		}
	}
	if err := b.out.Flush(); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	if b.faults > 0 {
		return fmt.Errorf("%d lines could not be read; each is answered with \"error\"", b.faults)
	}
	return nil
}

// next reads a line; long reports one that was passed over for its length. What was answered
// is written out before the input makes us wait.
func (b *batch) next() (long bool, err error) {
	b.line = b.line[:0]
	for {
		if waiting, _ := b.in.Peek(b.in.Buffered()); bytes.IndexByte(waiting, '\n') < 0 {
			if err := b.out.Flush(); err != nil {
				return false, err
			}
		}
		part, err := b.in.ReadSlice('\n')
		if !long {
			b.line = append(b.line, part...)
		}
		if len(bytes.TrimRight(b.line, "\r\n")) > maxBatchLine {
			long, b.line = true, b.line[:0]
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return long, err
		}
	}
}

// answer is a batchAnswer or a batchFault.
func (b *batch) answer(long bool) any {
	if long {
		return b.fault(nil, fmt.Sprintf("line %d is longer than 1 MiB; shorten the reply, of which the first 4 KiB count", b.number))
	}
	var line batchLine
	if err := json.Unmarshal(b.line, &line); err != nil {
		return b.fault(line.ID, fmt.Sprintf("line %d: %v; write {\"id\": ..., \"reply\": \"550 ...\", \"domain\": \"\", \"phase\": \"\"}", b.number, err))
	}
	if line.Reply == nil || strings.TrimSpace(*line.Reply) == "" {
		return b.fault(line.ID, fmt.Sprintf("line %d: \"reply\" is empty; give it as the server said it", b.number))
	}
	phase, ok := parsePhase(line.Phase)
	if !ok {
		return b.fault(line.ID, fmt.Sprintf("line %d: \"phase\" %q is not known; use %s, or leave it empty", b.number, clip(line.Phase, 40), phaseWords))
	}
	in := bounce.Input{Reply: bounce.ParseReply(*line.Reply), Provider: b.provider, Domain: line.Domain}
	in.Reply.Phase = phase
	v := b.table.Qualify(in)
	return batchAnswer{
		ID: idOf(line.ID), Code: v.Code, Name: v.Name, Category: v.Category, Tag: v.Tag, Reason: v.Reason.String(), ReasonCode: int(v.Reason),
		Type: v.Type.String(), Disposition: v.Disposition.String(), Address: v.Address.String(), Path: v.Path.String(), Rule: v.Rule,
	}
}

func (b *batch) fault(id json.RawMessage, text string) batchFault {
	b.faults++
	return batchFault{ID: idOf(id), Error: text}
}

// idOf is the id as given, the empty string where there is none.
func idOf(id json.RawMessage) json.RawMessage {
	if len(id) == 0 {
		return json.RawMessage(`""`)
	}
	return id
}
