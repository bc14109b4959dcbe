package smtpc

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
)

func TestSend(t *testing.T) {
	tests := []struct {
		name   string
		script string
		env    func(*Envelope)
		body   string
		want   []string // one per Send
		heard  []string // contents
	}{
		{
			name: "two messages in one session, pipelined",
			script: greeted + group + `
				S: 250 2.1.0 sender ok
				S: 250 2.1.5 rcpt ok
				S: 354 go
				DATA
				S: 250 2.0.0 queued as 1
				` + group + `
				S: 250 2.1.0 sender ok
				S: 250 2.1.5 rcpt ok
				S: 354 go
				DATA
				S: 250-2.0.0 queued
				S: 250 2.0.0 as 2
				C: QUIT
				S: 221 bye`,
			want:  []string{"end_of_data: 250 2.0.0 queued as 1 [delivered]", "end_of_data: 250 2.0.0 queued as 2 [delivered]"},
			heard: []string{testMessage, testMessage},
		},
		{
			name: "one by one without PIPELINING",
			script: stepwise + `
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=23
				S: 250 ok
				C: RCPT TO:<ann@example.com>
				S: 251 will forward
				C: DATA
				S: 354 go
				DATA
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want:  []string{"end_of_data: 250 ok [delivered]"},
			heard: []string{testMessage},
		},
		{
			name: "leading dots are doubled and a missing last line end is added",
			body: ".\r\n..a\r\nb.\r\n.c",
			script: greeted + strings.Replace(group, "SIZE=23", "SIZE=14", 1) + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				C: ..
				C: ...a
				C: b.
				C: ..c
				C: .
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want: []string{"end_of_data: 250 ok [delivered]"},
		},
		{
			name: "eight-bit content says so",
			body: "Subject: hi\r\n\r\nH\xc3\xa9llo\r\n",
			script: greeted + strings.Replace(group, "SIZE=23", "SIZE=23 BODY=8BITMIME", 1) + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want:  []string{"end_of_data: 250 ok [delivered]"},
			heard: []string{"Subject: hi\r\n\r\nH\xc3\xa9llo\r\n"},
		},
		{
			name: "refused recipient: the enhanced code leaves every line, RSET before the next MAIL",
			script: greeted + group + `
				S: 250 2.1.0 ok
				S: 550-5.1.1 The account does not exist.
				S: 550-5.1.1
				S: 550 5.1.1 Learn more. - gsmtp
				S: 503 5.5.1 no recipients
				C: RSET
				S: 250 flushed
				` + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want:  []string{"rcpt: 550 5.1.1 The account does not exist.  Learn more. - gsmtp", "end_of_data: 250 ok [delivered]"},
			heard: []string{testMessage},
		},
		{
			name: "refused recipient, DATA opened all the same: a lone dot, and its 250 delivers nothing",
			script: greeted + group + `
				S: 250 ok
				S: 550 5.1.1 unknown
				S: 354 go on then
				C: .
				S: 250 2.0.0 queued
				` + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want:  []string{"rcpt: 550 5.1.1 unknown", "end_of_data: 250 ok [delivered]"},
			heard: []string{testMessage},
		},
		{
			name: "lone dot refused: the transaction is over all the same",
			script: greeted + group + `
				S: 250 ok
				S: 452 4.2.2 full
				S: 354 go on then
				C: .
				S: 554 5.5.1 no valid recipients
				C: QUIT
				S: 221 bye`,
			want: []string{"rcpt: 452 4.2.2 full"},
		},
		{
			name: "lone dot answered out of step",
			script: greeted + group + `
				S: 250 ok
				S: 452 4.2.2 full
				S: 354 go on then
				C: .
				S: 354 go on`,
			want: []string{"rcpt: 452 4.2.2 full [closed]"},
		},
		{
			name: "lone dot answered twice",
			script: greeted + group + `
				S: 250 ok
				S: 452 4.2.2 full
				S: 354 go on then
				C: .
				S: 250 ok
				S: 250 ok`,
			want: []string{"rcpt: 452 4.2.2 full [closed]"},
		},
		{
			name: "a reply to a lone dot that was not sent",
			script: greeted + group + `
				S: 250 ok
				S: 452 4.2.2 full
				S: 354 go on then
				S: 250 ok`,
			want: []string{"rcpt: 452 4.2.2 full [closed]"},
		},
		{
			name: "lone dot and the line ends",
			script: greeted + group + `
				S: 250 ok
				S: 452 4.2.2 full
				S: 354 go on then
				C: .
				CLOSE`,
			want: []string{"rcpt: 452 4.2.2 full [closed]"},
		},
		{
			name: "RSET refused says nothing of the next message",
			script: greeted + group + `
				S: 250 ok
				S: 550 no
				S: 503 no
				C: RSET
				` + group + `
				S: 500 what`,
			want: []string{"rcpt: 550 no", "quit: 500 what [lost] [closed]"},
		},
		{
			name: "a server that knows only HELO",
			script: `
				S: 220 mx
				C: EHLO out.veredus.example
				S: 500 what
				C: HELO out.veredus.example
				S: 250 mx
				C: MAIL FROM:<b-1@bounce.veredus.example>
				S: 250 ok
				C: RCPT TO:<ann@example.com>
				S: 250 ok
				C: DATA
				S: 354 go
				DATA
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want:  []string{"end_of_data: 250 ok [delivered]"},
			heard: []string{testMessage},
		},
		{
			name: "MAIL refused and all behind it: nothing to reset",
			script: greeted + group + `
				S: 451 4.7.1 greylisted
				S: 503 no MAIL
				S: 503 no MAIL
				` + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want:  []string{"mail: 451 4.7.1 greylisted", "end_of_data: 250 ok [delivered]"},
			heard: []string{testMessage},
		},
		{
			name: "MAIL refused, recipient taken, DATA opened",
			script: greeted + group + `
				S: 550 5.7.1 not you
				S: 250 ok
				S: 354 go
				C: .
				S: 250 ok
				C: QUIT
				S: 221 bye`,
			want: []string{"mail: 550 5.7.1 not you"},
		},
		{
			name: "MAIL refused, recipient taken, DATA refused: RSET to be sure",
			script: greeted + group + `
				S: 550 5.7.1 not you
				S: 250 ok
				S: 503 no
				C: RSET
				S: 250 ok
				` + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 554 5.7.1 spam
				C: QUIT
				S: 221 bye`,
			want:  []string{"mail: 550 5.7.1 not you", "end_of_data: 554 5.7.1 spam"},
			heard: []string{testMessage},
		},
		{
			name: "DATA refused",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 451 4.3.0 try later
				C: QUIT
				S: 221 bye`,
			want: []string{"data: 451 4.3.0 try later"},
		},
		{
			name: "DATA answered 250: no go-ahead, no content",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 250 ok`,
			want: []string{"data: protocol error: 250 in answer to DATA [lost] [closed] [broke grouped]"},
		},
		{
			name: "MAIL answered 354",
			script: greeted + group + `
				S: 354 go`,
			want: []string{"mail: protocol error: 354 in answer to MAIL [lost] [closed] [broke grouped]"},
		},
		{
			name: "421 to RCPT ends the session, the line is not waited for",
			script: greeted + group + `
				S: 250 ok
				S: 421 4.7.0 too many recipients
				WAIT 1h`,
			want: []string{"rcpt: 421 4.7.0 too many recipients [closed]", "quit: session is closed [unsaid] [closed]"},
		},
		{
			name: "421 between transactions is seen before MAIL",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				WAIT 1s
				S: 421 4.4.2 idle too long`,
			want:  []string{"end_of_data: 250 ok [delivered]", "quit: 421 4.4.2 idle too long [unsaid] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "421 right behind the final reply",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				S: 421 enough`,
			want:  []string{"end_of_data: 250 ok [delivered] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "the server leaves between transactions",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				WAIT 1s
				CLOSE`,
			want:  []string{"end_of_data: 250 ok [delivered]", "quit: connection closed by the server [hung up] [unsaid] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "a stray reply between transactions",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 250 ok
				WAIT 1s
				S: 250 and another`,
			want:  []string{"end_of_data: 250 ok [delivered]", "quit: protocol error: 250 before anything was asked [unsaid] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "421 to RSET says nothing of the next message",
			script: greeted + group + `
				S: 250 ok
				S: 550 no
				S: 503 no
				C: RSET
				` + group + `
				S: 421 go away`,
			want: []string{"rcpt: 550 no", "quit: 421 go away [lost] [closed]"},
		},
		{
			name: "refusal and hang-up in one: the refusal stands",
			script: greeted + group + `
				S: 554 5.7.1 blocked
				CLOSE`,
			want: []string{"mail: 554 5.7.1 blocked [closed]"},
		},
		{
			name: "hang-up before the reply to RCPT",
			script: greeted + group + `
				S: 250 ok
				CLOSE`,
			want: []string{"rcpt: connection closed by the server [lost] [closed] [broke grouped]"},
		},
		{
			name: "421 between the replies of a slow transaction",
			script: stepwise + `
				C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=23
				S: 250 ok
				S: 421 shutting down`,
			want: []string{"rcpt: 421 shutting down [closed]"},
		},
		{
			name: "a reply to content that was not sent yet",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				S: 552 5.3.4 too big`,
			want: []string{"end_of_data: 552 5.3.4 too big [closed]"},
		},
		{
			name: "an acceptance of content that was not sent yet",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				S: 250 queued`,
			want: []string{"end_of_data: protocol error: 250 before the content was complete [closed]"},
		},
		{
			name: "hang-up instead of the final reply",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				CLOSE`,
			want:  []string{"end_of_data: connection closed by the server [uncertain] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "reset instead of the final reply",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				RESET`,
			want:  []string{"end_of_data: connection reset by peer [uncertain] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "hang-up in the middle of the final reply",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				s: 250 que
				CLOSE`,
			want:  []string{"end_of_data: connection closed by the server in the middle of a reply [uncertain] [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "421 as the final reply is a reply",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 421 4.3.2 shutting down`,
			want:  []string{"end_of_data: 421 4.3.2 shutting down [closed]"},
			heard: []string{testMessage},
		},
		{
			name: "a second 354 says nothing of the message",
			script: greeted + group + `
				S: 250 ok
				S: 250 ok
				S: 354 go
				DATA
				S: 354 go`,
			want:  []string{"end_of_data: protocol error: 354 in answer to the final dot [uncertain] [closed]"},
			heard: []string{testMessage},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, tt.script)
				s := mustOpen(t, sv, testConfig())
				body := testMessage
				if tt.body != "" {
					body = tt.body
				}
				for i, want := range tt.want {
					synctest.Wait()
					if i > 0 {
						sleepVirtual("2s")
					}
					got := s.Send(t.Context(), testEnvelope(), []byte(body))
					if describe(got) != want {
						t.Errorf("message %d:\n got %s\nwant %s", i+1, describe(got), want)
					}
					checkResult(t, got)
				}
				if err := s.Quit(t.Context()); err != nil {
					t.Errorf("Quit: %v", err)
				}
				heard := sv.wait()
				if strings.Join(heard, "|") != strings.Join(tt.heard, "|") {
					t.Errorf("server heard %q, want %q", heard, tt.heard)
				}
			})
		})
	}
}

// checkResult holds for every result there is.
func checkResult(t testing.TB, r Result) {
	t.Helper()
	last := Reply{}
	phase := PhaseNone
	for _, reply := range r.Replies {
		last = reply
		if reply.Phase != PhaseQuit && reply.Phase < phase {
			t.Errorf("replies out of order: %v", r.Replies)
		}
		if reply.Phase != PhaseQuit {
			phase = reply.Phase
		}
	}
	switch {
	case r.Delivered && (r.Uncertain || last != r.Reply || last.Phase != PhaseEndOfData || last.Code/100 != 2 || !r.Began):
		t.Errorf("delivered without proof: %+v", r)
	case !r.Delivered && r.Reply.Positive():
		t.Errorf("a failure decided by a positive reply: %+v", r)
	case r.Reply.Code == 0 && r.Err == nil:
		t.Errorf("neither reply nor cause: %+v", r)
	case (r.Failure() == nil) != r.Delivered:
		t.Errorf("Failure and Delivered disagree: %+v", r)
	}
}

func mustOpen(t testing.TB, sv *server, cfg Config) *Session {
	t.Helper()
	s, err := Open(context.Background(), sv.dial, cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestSendRefusesLocally(t *testing.T) {
	tests := []struct {
		name  string
		hello string
		env   Envelope
		body  string
		want  string
	}{
		{name: "over SIZE", env: testEnvelope(), body: strings.Repeat("x", 100001), want: "552 5.3.4 refused by the sender before MAIL: message of 100001 octets, the server announced a limit of 100000"},
		{name: "declared over SIZE", env: Envelope{From: testFrom, To: testTo, Size: 100001}, want: "552 5.3.4 refused by the sender before MAIL: message of 100001 octets, the server announced a limit of 100000"},
		{name: "SMTPUTF8", env: Envelope{From: testFrom, To: testTo, UTF8: true}, want: "550 5.6.7 refused by the sender before MAIL: message needs SMTPUTF8, which the server does not offer"},
		{name: "an address beyond ASCII", env: Envelope{From: testFrom, To: "jos\u00e9@example.com"}, want: "550 5.6.7 refused by the sender before MAIL: message needs SMTPUTF8, which the server does not offer"},
		{name: "8BITMIME", hello: stepwise, env: Envelope{From: testFrom, To: testTo, EightBit: true}, want: "554 5.6.3 refused by the sender before MAIL: message needs 8BITMIME, which the server does not offer"},
		{name: "eight-bit content", hello: stepwise, env: testEnvelope(), body: "abcdefghi\xe9\r\n", want: "554 5.6.3 refused by the sender before MAIL: message needs 8BITMIME, which the server does not offer"},
		{name: "bare LF", env: testEnvelope(), body: "a\r\nb\nc\r\n", want: "554 5.6.0 refused by the sender before MAIL: bare LF at octet 4 of the message: give CRLF line ends"},
		{name: "bare CR", env: testEnvelope(), body: "a\rb\r\n", want: "554 5.6.0 refused by the sender before MAIL: bare CR at octet 1 of the message: give CRLF line ends"},
		{name: "CR at the end", env: testEnvelope(), body: "a\r\n\r", want: "554 5.6.0 refused by the sender before MAIL: bare CR at octet 3 of the message: give CRLF line ends"},
		{name: "CR CR LF", env: testEnvelope(), body: "a\r\r\n", want: "554 5.6.0 refused by the sender before MAIL: bare CR at octet 1 of the message: give CRLF line ends"},
		{name: "smuggled dot", env: testEnvelope(), body: "a\r\n.\nMAIL FROM:<x@y>\r\n", want: "554 5.6.0 refused by the sender before MAIL: bare LF at octet 4 of the message: give CRLF line ends"},
		{name: "recipient with a command", env: Envelope{From: testFrom, To: "a@b>\r\nRSET"}, want: `501 5.1.3 refused by the sender before MAIL: recipient "a@b>\r\nRSET" holds the character '>', which no envelope address may`},
		{name: "recipient with parameters", env: Envelope{From: testFrom, To: "a@b NOTIFY=NEVER"}, want: `501 5.1.3 refused by the sender before MAIL: recipient "a@b NOTIFY=NEVER" holds the character ' ', which no envelope address may`},
		{name: "recipient with NUL", env: Envelope{From: testFrom, To: "a\x00@b"}, want: `501 5.1.3 refused by the sender before MAIL: recipient "a\x00@b" holds the character '\x00', which no envelope address may`},
		{name: "recipient with a C1 control", env: Envelope{From: testFrom, To: "a\u0085@b"}, want: `501 5.1.3 refused by the sender before MAIL: recipient "a\u0085@b" holds the character '\u0085', which no envelope address may`},
		{name: "broken UTF-8", env: Envelope{From: testFrom, To: "a\xff@b"}, want: `501 5.1.3 refused by the sender before MAIL: recipient "a\xff@b" is not valid UTF-8`},
		{name: "no recipient", env: Envelope{From: testFrom}, want: `501 5.1.3 refused by the sender before MAIL: recipient "" is not of the form local@domain`},
		{name: "source route", env: Envelope{From: testFrom, To: "@a,@b:c@d"}, want: `501 5.1.3 refused by the sender before MAIL: recipient "@a,@b:c@d" is not of the form local@domain`},
		{name: "long return path", env: Envelope{From: strings.Repeat("a", 250) + "@b.cd", To: testTo}, want: `501 5.1.7 refused by the sender before MAIL: return path "` + strings.Repeat("a", 250) + `@b.cd" is longer than 254 octets`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hello := greeted
				if tt.hello != "" {
					hello = tt.hello
				}
				sv := newServer(t, hello+"C: QUIT\nS: 221 bye\n")
				s := mustOpen(t, sv, testConfig())
				body := testMessage
				if tt.body != "" {
					body = tt.body
				}
				got := s.Send(t.Context(), tt.env, []byte(body))
				if want := "mail: " + tt.want + " [local] [unsaid]"; describe(got) != want {
					t.Errorf(" got %s\nwant %s", describe(got), want)
				}
				if err := s.Quit(t.Context()); err != nil {
					t.Error(err)
				}
				if info := s.Info(); info.Messages != 0 {
					t.Errorf("%d messages counted", info.Messages)
				}
				sv.wait()
			})
		})
	}
	t.Run("empty message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sv := newServer(t, greeted)
			s := mustOpen(t, sv, testConfig())
			if got := s.Send(t.Context(), testEnvelope(), nil); !got.Local || got.Reply.Code != 554 {
				t.Errorf("got %s", describe(got))
			}
			s.Abort()
			sv.wait()
		})
	})
}

func TestSendInternationalised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, `
			S: 220 mx.example.com ESMTP
			C: EHLO out.veredus.example
			S: 250-mx.example.com
			S: 250-8BITMIME
			S: 250 smtputf8
			C: MAIL FROM:<> SMTPUTF8
			S: 250 ok
			C: RCPT TO:<jos`+"\u00e9"+`@example.com>
			S: 250 ok
			C: DATA
			S: 354 go
			DATA
			S: 250 ok`)
		s := mustOpen(t, sv, testConfig())
		got := s.Send(t.Context(), Envelope{To: "jos\u00e9@example.com"}, []byte(testMessage))
		if describe(got) != "end_of_data: 250 ok [delivered]" {
			t.Errorf("got %s", describe(got))
		}
		s.Abort()
		sv.wait()
	})
}

func TestPipeliningSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+`
			C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=23
			WAIT 1s
			S: 250 ok
			C: RCPT TO:<ann@example.com>
			S: 550 5.1.1 unknown
			C: RSET
			S: 250 ok
			C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=23
			S: 450 4.2.0 later
			C: MAIL FROM:<b-1@bounce.veredus.example> SIZE=23
			S: 250 ok
			C: RCPT TO:<ann@example.com>
			S: 250 ok
			C: DATA
			S: 554 5.7.1 no
			C: QUIT
			S: 221 bye`)
		cfg := testConfig()
		cfg.Pipelining = 1
		s := mustOpen(t, sv, cfg)
		for _, want := range []string{"rcpt: 550 5.1.1 unknown", "mail: 450 4.2.0 later", "data: 554 5.7.1 no"} {
			if got := s.Send(t.Context(), testEnvelope(), []byte(testMessage)); describe(got) != want {
				t.Errorf("got %s, want %s", describe(got), want)
			}
		}
		if err := s.Quit(t.Context()); err != nil {
			t.Error(err)
		}
		sv.wait()
	})
}
