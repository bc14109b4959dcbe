package smtpc

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mxrules"
)

// queue is a Next with a list of messages, of which one may come later.
type queue struct {
	mu    sync.Mutex
	mail  []*Mail
	ready chan struct{}
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

func (q *queue) Ready() <-chan struct{} { return q.ready }

func (q *queue) put(m *Mail) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mail = append(q.mail, m)
	q.ready <- struct{}{}
}

func (q *queue) Take() *Mail {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mail) == 0 {
		return nil
	}
	m := q.mail[0]
	q.mail = q.mail[1:]
	return m
}

// taking is a Next that remembers what it gave.
type taking struct {
	*queue
	gave *Mail
}

func (k *taking) Take() *Mail {
	k.gave = k.queue.Take()
	return k.gave
}

func letter(n int) *Mail {
	return &Mail{Envelope: testEnvelope(), Content: fmt.Appendf(nil, "Subject: %d\r\n\r\nHello.\r\n", n)}
}

// carryAll sends messages as a relay does: each with the others behind it. It goes on
// until all have a result, or the session has ended and nothing is on its way.
func carryAll(ctx context.Context, s *Session, mail []*Mail) (results []Result) {
	q := &taking{queue: newQueue()}
	q.mail = mail
	for m := q.Take(); m != nil; {
		q.gave = nil
		got := s.Carry(ctx, m, q)
		results = append(results, got)
		if m = q.gave; m == nil && got.Usable {
			m = q.Take()
		}
	}
	return results
}

// said is a letter's group.
const said = `
	C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
	C: RCPT TO:<ann@example.com>
	C: DATA
`

// chunkHello is a server that also takes chunks.
const chunkHello = `
	S: 220 mx.example.com ESMTP
	C: EHLO out.veredus.example
	S: 250-mx.example.com
	S: 250-PIPELINING
	S: 250-CHUNKING
	S: 250 SIZE 100000
`

// flight is MAIL, RCPT and BDAT with a letter's content.
const flight = `
	C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
	C: RCPT TO:<ann@example.com>
	C: BDAT 22 LAST
	CHUNK 22
`

const yesMail = "S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 354 go\n"

func TestGroups(t *testing.T) {
	tests := []struct {
		name   string
		script string
		cfg    func(*Config)
		mail   int // messages waiting to be sent
		want   []string
		heard  int // contents taken
		after  time.Duration
	}{
		{
			name: "across: the next envelope is said before the reply to the content",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\n" + yesMail + "DATA" + said + "S: 250 2\n" + yesMail +
				"DATA\nS: 250 3\nC: QUIT\nS: 221 bye",
			mail: 3, heard: 3,
			want: []string{"end_of_data: 250 1 [delivered]", "end_of_data: 250 2 [delivered]", "end_of_data: 250 3 [delivered]"},
		},
		{
			name: "across: a refused recipient, and RSET leads the next group",
			script: greeted + said + yesMail + "DATA" + said + `
				S: 250 1
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 503 no recipient
				C: RSET` + said + "S: 250 flushed\n" + yesMail + "DATA\nS: 250 3\nC: QUIT\nS: 221 bye",
			mail: 3, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "rcpt: 550 5.1.1 unknown", "end_of_data: 250 3 [delivered]"},
		},
		{
			name: "across: DATA refused, and RSET leads the next group",
			script: greeted + said + yesMail + "DATA" + said + `
				S: 250 1
				S: 250 ok
				S: 250 ok
				S: 451 4.3.0 not now
				C: RSET` + said + "S: 250 flushed\n" + yesMail + "DATA\nS: 250 3\nC: QUIT\nS: 221 bye",
			mail: 3, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "data: 451 4.3.0 not now", "end_of_data: 250 3 [delivered]"},
		},
		{
			name: "across: RSET refused at the head of a group",
			script: greeted + said + `
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 503 no recipient
				C: RSET` + said + "S: 502 what",
			mail: 2, want: []string{"rcpt: 550 5.1.1 unknown", "quit: 502 what [lost] [closed]"},
		},
		{
			name: "across: a refused recipient and a 354 all the same: the lone dot",
			script: greeted + said + yesMail + "DATA" + said + `
				S: 250 1
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 354 go on then
				C: .
				S: 554 no valid recipients` + said + yesMail + "DATA\nS: 250 3\nC: QUIT\nS: 221 bye",
			mail: 3, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "rcpt: 550 5.1.1 unknown", "end_of_data: 250 3 [delivered]"},
		},
		{
			name: "across: content refused, the one behind goes on",
			script: greeted + said + yesMail + "DATA" + said + "S: 554 5.7.1 spam\n" + yesMail +
				"DATA\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail: 2, heard: 2,
			want: []string{"end_of_data: 554 5.7.1 spam", "end_of_data: 250 2 [delivered]"},
		},
		{
			name:   "across: 421 to the content loses the envelope behind it",
			script: greeted + said + yesMail + "DATA" + said + "S: 421 4.3.2 shutting down",
			mail:   3, heard: 1,
			want: []string{"end_of_data: 421 4.3.2 shutting down [closed]", "quit: session is closed [lost] [closed]"},
		},
		{
			name:   "across: 421 to MAIL is about the message behind",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\nS: 421 4.7.0 too many messages",
			mail:   3, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: 421 4.7.0 too many messages [closed]"},
		},
		{
			name:   "across: the line ends behind the content: one is uncertain, one is lost",
			script: greeted + said + yesMail + "DATA" + said + "CLOSE",
			mail:   3, heard: 1,
			want: []string{
				"end_of_data: connection closed by the server [uncertain] [closed] [broke across]",
				"quit: session is closed [lost] [closed]",
			},
		},
		{
			name:   "across: the line ends behind the final reply",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\nCLOSE",
			mail:   3, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: connection closed by the server [lost] [hung up] [closed] [broke across]"},
		},
		{
			name:   "across: the server drops what came behind the content",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\nSTALL",
			mail:   3, heard: 1, after: time.Minute,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: no reply within 1m0s [lost] [closed] [broke across]"},
		},
		{
			name:   "across: out of sequence says the server",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\nS: 503 5.5.1 improper pipelining\nS: 503 5.5.1 need MAIL\nS: 503 5.5.1 need RCPT",
			mail:   3, heard: 1,
			want: []string{
				"end_of_data: 250 1 [delivered]",
				"mail: protocol error: 503 5.5.1 improper pipelining to MAIL behind content [lost] [closed] [broke across]",
			},
		},
		{
			name:   "across: garbage for a reply",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\nS: 250 ok\nS: hello",
			mail:   3, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "rcpt: protocol error: not an SMTP reply: \"hello\" [lost] [closed] [broke across]"},
		},
		{
			name:   "across: a reply too many is in doubt",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\nS: 250 1 again\n" + yesMail,
			mail:   3, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "data: protocol error: 250 in answer to DATA [lost] [closed] [broke across]"},
		},
		{
			name:   "across: silence to the content, and a refusal at last",
			script: greeted + said + yesMail + "DATA" + said + "WAIT 9m\nS: 451 4.4.0 busy\n" + yesMail + "DATA\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail:   2, heard: 2, after: 9 * time.Minute,
			want: []string{"end_of_data: 451 4.4.0 busy", "end_of_data: 250 2 [delivered]"},
		},
		{
			name:   "across: the line ends behind a later reply",
			script: greeted + said + yesMail + "DATA" + said + "S: 250 1\n" + yesMail + "DATA" + said + "S: 250 2\nCLOSE",
			mail:   4, heard: 2,
			want: []string{
				"end_of_data: 250 1 [delivered]", "end_of_data: 250 2 [delivered]",
				"mail: connection closed by the server [lost] [hung up] [closed] [broke across]",
			},
		},
		{
			name:   "closed in silence between two messages, seen before MAIL",
			cfg:    func(c *Config) { c.Across = mxrules.Off },
			script: greeted + said + yesMail + "DATA\nS: 250 1\nCLOSE",
			mail:   2, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "quit: connection closed by the server [hung up] [unsaid] [closed]"},
		},
		{
			name:   "closed in silence between two messages, seen at MAIL",
			cfg:    func(c *Config) { c.Across = mxrules.Off },
			script: greeted + said + yesMail + "DATA\nS: 250 1\n" + said + "CLOSE",
			mail:   2, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: connection closed by the server [lost] [hung up] [closed]"},
		},
		{
			name:   "reset in silence between two messages, seen at MAIL",
			cfg:    func(c *Config) { c.Across = mxrules.Off },
			script: greeted + said + yesMail + "DATA\nS: 250 1\n" + said + "RESET",
			mail:   2, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: connection reset by peer [lost] [hung up] [closed]"},
		},
		{
			name: "closed in silence between two messages, behind RSET in the same flight",
			script: greeted + said + `
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 503 no recipient
				C: RSET` + said + "CLOSE",
			mail: 2, want: []string{"rcpt: 550 5.1.1 unknown", "quit: connection closed by the server [lost] [hung up] [closed]"},
		},
		{
			name: "closed in silence between two messages that go step by step",
			cfg:  func(c *Config) { c.Pipelining = mxrules.Off },
			script: greeted + `
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
				S: 250 ok
				C: RCPT TO:<ann@example.com>
				S: 250 ok
				C: DATA
				S: 354 go
				DATA
				S: 250 1
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
				CLOSE`,
			mail: 2, heard: 1,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: connection closed by the server [lost] [hung up] [closed]"},
		},
		{
			name:   "closed behind a part of a reply: that is no silence",
			cfg:    func(c *Config) { c.Across = mxrules.Off },
			script: greeted + said + yesMail + "DATA\nS: 250 1\n" + said + "s: 25\nCLOSE",
			mail:   2, heard: 1,
			want: []string{
				"end_of_data: 250 1 [delivered]",
				"mail: connection closed by the server in the middle of a reply [lost] [closed] [broke grouped]",
			},
		},
		{
			name:   "closed at the first MAIL of a connection: it does not bear the group, or the message",
			script: greeted + said + "CLOSE",
			mail:   1, want: []string{"mail: connection closed by the server [lost] [closed] [broke grouped]"},
		},
		{
			name:   "closed at the first MAIL step by step: nothing but the message is to blame",
			cfg:    func(c *Config) { c.Pipelining = mxrules.Off },
			script: greeted + "\tC: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22\nCLOSE",
			mail:   1, want: []string{"mail: connection closed by the server [closed]"},
		},
		{
			name:   "grouped: the line ends behind the reply to MAIL",
			script: greeted + said + "S: 250 ok\nCLOSE",
			mail:   1, want: []string{"rcpt: connection closed by the server [lost] [closed] [broke grouped]"},
		},
		{
			name:   "grouped: a refused recipient, then the line ends",
			script: greeted + said + "S: 250 ok\nS: 550 5.1.1 unknown\nCLOSE",
			mail:   1, want: []string{"rcpt: 550 5.1.1 unknown [closed]"},
		},
		{
			name:   "chunked: closed in silence behind a message; the chunk may have been taken",
			script: chunkHello + flight + "S: 250 ok\nS: 250 ok\nS: 250 1\n" + flight + "CLOSE",
			mail:   2, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "mail: connection closed by the server [uncertain] [closed] [broke chunked]"},
		},
		{
			name:   "across switched off",
			cfg:    func(c *Config) { c.Across = mxrules.Off },
			script: greeted + said + yesMail + "DATA\nS: 250 1\n" + said + yesMail + "DATA\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail:   2, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "end_of_data: 250 2 [delivered]"},
		},
		{
			name:   "chunked: envelope and content in one flight, nothing behind",
			script: chunkHello + flight + "S: 250 ok\nS: 250 ok\nS: 250 1\n" + flight + "S: 250 ok\nS: 250 ok\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail:   2, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "end_of_data: 250 2 [delivered]"},
		},
		{
			name: "chunked: a refused recipient, and RSET alone before the next MAIL",
			script: chunkHello + flight + `
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 503 5.5.1 no recipient
				C: RSET
				WAIT 1s
				S: 250 flushed` + flight + "S: 250 ok\nS: 250 ok\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail: 2, heard: 2, after: time.Second,
			want: []string{"rcpt: 550 5.1.1 unknown", "end_of_data: 250 2 [delivered]"},
		},
		{
			name: "chunked: content refused, and RSET alone before the next MAIL",
			script: chunkHello + flight + `
				S: 250 ok
				S: 250 ok
				S: 554 5.7.1 spam
				C: RSET
				WAIT 1s
				S: 250 flushed` + flight + "S: 250 ok\nS: 250 ok\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail: 2, heard: 2, after: time.Second,
			want: []string{"end_of_data: 554 5.7.1 spam", "end_of_data: 250 2 [delivered]"},
		},
		{
			name: "chunked: a server that takes refused content for commands",
			script: chunkHello + flight + `
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 503 5.5.1 no recipient
				C: RSET
				S: 500 5.5.1 Subject: is no command
				S: 250 flushed`,
			mail: 2, heard: 1,
			want: []string{"rcpt: 550 5.1.1 unknown", "quit: 500 5.5.1 Subject: is no command [unsaid] [closed] [broke chunked]"},
		},
		{
			name: "chunked: two replies to RSET are in doubt",
			script: chunkHello + flight + `
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 503 5.5.1 no recipient
				C: RSET
				S: 250 hello Subject
				S: 250 flushed`,
			mail: 2, heard: 1,
			want: []string{"rcpt: 550 5.1.1 unknown", "quit: protocol error: more than one reply to RSET [unsaid] [closed] [broke chunked]"},
		},
		{
			name:   "chunked: the line ends before the final reply",
			script: chunkHello + flight + "S: 250 ok\nS: 250 ok\nCLOSE",
			mail:   2, heard: 1,
			want: []string{"end_of_data: connection closed by the server [uncertain] [closed] [broke chunked]"},
		},
		{
			name:   "chunked: the line ends before any reply",
			script: chunkHello + flight + "CLOSE",
			mail:   2, heard: 1,
			want: []string{"mail: connection closed by the server [uncertain] [closed] [broke chunked]"},
		},
		{
			name:   "chunked: refused recipient, then the line ends: nothing is uncertain",
			script: chunkHello + flight + "S: 250 ok\nS: 550 5.1.1 unknown\nCLOSE",
			mail:   2, heard: 1,
			want: []string{"rcpt: 550 5.1.1 unknown [closed] [broke chunked]"},
		},
		{
			name:   "chunked: 421 to MAIL",
			script: chunkHello + flight + "S: 421 4.7.0 too many messages",
			mail:   2, heard: 1,
			want: []string{"mail: 421 4.7.0 too many messages [closed]"},
		},
		{
			name:   "chunked: BDAT is not known after all",
			script: chunkHello + flight + "S: 250 ok\nS: 250 ok\nS: 500 5.5.1 what",
			mail:   2, heard: 1,
			want: []string{"end_of_data: protocol error: 500 5.5.1 what to BDAT [lost] [closed] [broke chunked]"},
		},
		{
			name:   "chunked: 354 to BDAT",
			script: chunkHello + flight + "S: 250 ok\nS: 250 ok\nS: 354 go",
			mail:   2, heard: 1,
			want: []string{"end_of_data: protocol error: 354 in answer to BDAT [uncertain] [closed] [broke chunked]"},
		},
		{
			name:   "chunking switched off: across",
			cfg:    func(c *Config) { c.Chunking = mxrules.Off },
			script: chunkHello + said + yesMail + "DATA" + said + "S: 250 1\n" + yesMail + "DATA\nS: 250 2\nC: QUIT\nS: 221 bye",
			mail:   2, heard: 2,
			want: []string{"end_of_data: 250 1 [delivered]", "end_of_data: 250 2 [delivered]"},
		},
		{
			name: "pipelining switched off: chunks behind the replies to the envelope",
			cfg:  func(c *Config) { c.Pipelining = mxrules.Off },
			script: chunkHello + `
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
				S: 250 ok
				C: RCPT TO:<ann@example.com>
				S: 550 5.1.1 unknown
				C: RSET
				S: 250 ok
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
				S: 250 ok
				C: RCPT TO:<ann@example.com>
				S: 250 ok
				C: BDAT 22 LAST
				CHUNK 22
				S: 250 2
				C: QUIT
				S: 221 bye`,
			mail: 2, heard: 1,
			want: []string{"rcpt: 550 5.1.1 unknown", "end_of_data: 250 2 [delivered]"},
		},
		{
			name: "all switched off",
			cfg:  func(c *Config) { c.Pipelining, c.Chunking = mxrules.Off, mxrules.Off },
			script: chunkHello + `
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=22
				WAIT 1s
				S: 250 ok
				C: RCPT TO:<ann@example.com>
				WAIT 1s
				S: 250 ok
				C: DATA
				WAIT 1s
				S: 354 go
				DATA
				S: 250 1
				C: QUIT
				S: 221 bye`,
			mail: 1, heard: 1, after: 3 * time.Second,
			want: []string{"end_of_data: 250 1 [delivered]"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, tt.script)
				cfg := testConfig()
				if tt.cfg != nil {
					tt.cfg(&cfg)
				}
				s := mustOpen(t, sv, cfg)
				start := time.Now()
				var mail []*Mail
				for n := range tt.mail {
					mail = append(mail, letter(n+1))
				}
				got := carryAll(t.Context(), s, mail)
				compareResults(t, got, tt.want)
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				if err := s.Quit(t.Context()); err != nil {
					t.Errorf("Quit: %v", err)
				}
				if heard := sv.wait(); len(heard) != tt.heard {
					t.Errorf("server heard %q, want %d contents", heard, tt.heard)
				}
			})
		})
	}
}

func compareResults(t *testing.T, got []Result, want []string) {
	t.Helper()
	for i, r := range got {
		checkResult(t, r)
		if i >= len(want) || describe(r) != want[i] {
			t.Errorf("message %d: got %s, want %q", i+1, describe(r), want[min(i, len(want)-1)])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d results, want %d", len(got), len(want))
	}
}

// A chunk that did not go out whole was not taken: one of a connection that the server
// closed behind another message is lost, and so is one of a first group that was dropped.
func TestChunkCutOff(t *testing.T) {
	large := &Mail{Envelope: testEnvelope(), Content: []byte("Subject: 2\r\n\r\n" + strings.Repeat("Hello.\r\n", 5000))}
	cut := fmt.Sprintf("C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=%d\nC: RCPT TO:<ann@example.com>\nC: BDAT %d LAST\nSWALLOW 100\nRESET\nSTALL",
		len(large.Content), len(large.Content))
	for _, tt := range []struct {
		script string
		mail   []*Mail
		want   []string
	}{
		{
			chunkHello + flight + "S: 250 ok\nS: 250 ok\nS: 250 1\n" + cut,
			[]*Mail{letter(1), large},
			[]string{"end_of_data: 250 1 [delivered]", "mail: connection reset by peer [lost] [hung up] [closed]"},
		},
		{chunkHello + cut, []*Mail{large}, []string{"mail: connection reset by peer [lost] [closed] [broke chunked]"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			sv := newServer(t, tt.script)
			sv.window = 8 << 10
			s := mustOpen(t, sv, testConfig())
			compareResults(t, carryAll(t.Context(), s, tt.mail), tt.want)
			sv.wait()
		})
	}
}

// What a receiver took is measured from MAIL, or from its reply to the message before:
// not from when the message was given, nor with the wait for one to come.
func TestTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+said+"WAIT 1s\n"+yesMail+"DATA"+said+"WAIT 4s\nS: 250 1\nWAIT 2s\n"+yesMail+"DATA\nWAIT 1s\nS: 250 2\nC: QUIT\nS: 221 bye")
		s := mustOpen(t, sv, testConfig())
		for i, got := range carryAll(t.Context(), s, []*Mail{letter(1), letter(2)}) {
			if want := [...]time.Duration{5 * time.Second, 3 * time.Second}[i]; !got.Delivered || got.Took != want {
				t.Errorf("message %d took %s, want %s", i+1, got.Took, want)
			}
		}
		time.Sleep(time.Minute) // nothing to do
		bad := letter(3)
		bad.Content = []byte("bare\nline feed\r\n")
		if got := s.Carry(t.Context(), bad, nil); got.Took != 0 {
			t.Errorf("what was not said took %s", got.Took)
		}
		if err := s.Quit(t.Context()); err != nil {
			t.Error(err)
		}
		sv.wait()
	})
}

// A message that comes while the final reply is awaited is begun at once.
func TestLateMessageIsBegunWhileTheReplyIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+said+yesMail+"DATA"+said+"WAIT 5s\nS: 250 1\n"+yesMail+"DATA\nS: 250 2\nC: QUIT\nS: 221 bye")
		s := mustOpen(t, sv, testConfig())
		start := time.Now()
		q := &taking{queue: newQueue()}
		q.ready <- struct{}{} // a false alarm
		time.AfterFunc(time.Second, func() { q.put(letter(2)) })
		first := s.Carry(t.Context(), letter(1), q)
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("took %s", took)
		}
		second := s.Carry(t.Context(), q.gave, q)
		compareResults(t, []Result{first, second}, []string{"end_of_data: 250 1 [delivered]", "end_of_data: 250 2 [delivered]"})
		if err := s.Quit(t.Context()); err != nil || s.Messages() != 2 {
			t.Error(err, s.Messages())
		}
		sv.wait()
	})
}

// What must not be sent is refused when its turn comes, and nothing of it was said.
func TestRefusedLocallyAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+said+yesMail+"DATA\nS: 250 1\n"+said+yesMail+"DATA\nS: 250 3\nC: QUIT\nS: 221 bye")
		s := mustOpen(t, sv, testConfig())
		bad := letter(2)
		bad.Content = []byte("bare\nline feed\r\n")
		got := carryAll(t.Context(), s, []*Mail{letter(1), bad, letter(3)})
		compareResults(t, got, []string{
			"end_of_data: 250 1 [delivered]",
			"mail: 554 5.6.0 refused by the sender before MAIL: bare LF at octet 4 of the message: give CRLF line ends [local] [unsaid]",
			"end_of_data: 250 3 [delivered]",
		})
		if err := s.Quit(t.Context()); err != nil {
			t.Error(err)
		}
		sv.wait()
	})
}

// The end of the context behind content: the message is uncertain, the next is lost.
func TestCancelledAcross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+said+yesMail+"DATA"+said+"STALL")
		s := mustOpen(t, sv, testConfig())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := carryAll(ctx, s, []*Mail{letter(1), letter(2)})
		compareResults(t, got, []string{
			"end_of_data: cancelled by the sender: context deadline exceeded [uncertain] [closed]",
			"quit: session is closed [lost] [closed]",
		})
		sv.wait()
	})
}

// Replies are read while content is written: large contents with small windows on both
// sides, and an envelope behind each.
func TestLargeContentsAcross(t *testing.T) {
	for _, window := range []int{100, 4096, 1 << 20} {
		for _, extensions := range []string{"PIPELINING", "PIPELINING\r\n250 CHUNKING"} {
			synctest.Test(t, func(t *testing.T) {
				l := &ledger{t: t, taken: map[string]bool{}, confirmed: map[string]bool{}, refused: map[string]bool{}, extensions: extensions}
				l.plans = []plan{{"2", "2", "2", "2", "2", false}}
				s, err := Open(t.Context(), func(context.Context) (net.Conn, error) {
					client, end := memnet.Pipe(window)
					go l.serve(end)
					return client, nil
				}, testConfig())
				if err != nil {
					t.Fatal(err)
				}
				var mail []*Mail
				for n := range 5 {
					body := fmt.Sprintf("Subject: %d\r\n\r\n", n) + strings.Repeat(".x\r\n", n*20000)
					mail = append(mail, &Mail{Envelope: testEnvelope(), Content: []byte(body)})
				}
				for i, got := range carryAll(t.Context(), s, mail) {
					if !got.Delivered || !l.confirmed[string(mail[i].Content)] {
						t.Errorf("window %d, message %d: %s", window, i, describe(got))
					}
				}
				s.Abort()
			})
		}
	}
}
