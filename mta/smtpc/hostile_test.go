package smtpc

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sleepVirtual passes time inside a bubble.
func sleepVirtual(d string) {
	v, err := time.ParseDuration(d)
	if err != nil {
		panic(err)
	}
	time.Sleep(v)
}

const accepted = group + `
	S: 250 ok
	S: 250 ok
	S: 354 go
`

// large is content of several blocks that does not fit a small window.
func large() []byte { return []byte(strings.Repeat("0123456789\r\n", 30<<10)) } // 360 KB

const largeHello = `
	S: 220 mx.example.com ESMTP
	C: EHLO out.veredus.example
	S: 250-mx.example.com
	S: 250 PIPELINING
	C: MAIL FROM:<b-1@bounce.veredus.example>
	C: RCPT TO:<ann@example.com>
	C: DATA
	S: 250 ok
	S: 250 ok
	S: 354 go
`

func TestSendHostile(t *testing.T) {
	tests := []struct {
		name   string
		script string
		body   []byte
		window int
		want   string
		after  time.Duration // exact virtual time of Send
	}{
		{
			name: "silence after MAIL", script: greeted + group + "STALL", after: time.Minute,
			want: "mail: no reply within 1m0s [lost] [closed] [broke grouped]",
		},
		{
			name: "one octet of a reply a minute", script: greeted + group + "TRICKLE 59s", after: time.Minute,
			want: "mail: no reply within 1m0s [lost] [closed] [broke grouped]",
		},
		{
			name: "endless reply", script: greeted + group + `FLOOD 250-and more and more\r\n`,
			want: "mail: protocol error: reply longer than 32768 octets [lost] [closed] [broke grouped]",
		},
		{
			name: "endless line", script: greeted + group + "FLOOD 250 aaaaaaaaaaaaaaaaaaaaaaaaaaa",
			want: "mail: protocol error: reply line longer than 4096 octets [lost] [closed] [broke grouped]",
		},
		{
			name: "a line of 100 MB", script: greeted + group + "s: 250-" + strings.Repeat("x", 4096) + "\nFLOOD " + strings.Repeat("y", 64<<10),
			want: "mail: protocol error: reply line longer than 4096 octets [lost] [closed] [broke grouped]",
		},
		{
			name: "flood of whole replies", script: greeted + group + `FLOOD 250 ok\n`,
			want: "data: protocol error: 250 in answer to DATA [lost] [closed] [broke grouped]",
		},
		{
			name: "garbage", script: greeted + group + `s: \x16\x03\x01\x00\xff\xfe garbage\n`,
			want: "mail: protocol error: not an SMTP reply: \"\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd garbage\" [lost] [closed] [broke grouped]",
		},
		{
			name: "the code changes in a reply", script: greeted + group + "S: 250-ok\nS: 550 no",
			want: "mail: protocol error: code changes from 250 to 550 inside one reply [lost] [closed] [broke grouped]",
		},
		{
			name: "a continuation without code", script: greeted + group + "S: 550-no\nS: and do not come back\nS: 550 ever",
			want: "mail: protocol error: not an SMTP reply: \"and do not come back\" [lost] [closed] [broke grouped]",
		},
		{
			name: "an empty line", script: greeted + group + "s: \\r\\n",
			want: "mail: protocol error: not an SMTP reply: \"\" [lost] [closed] [broke grouped]",
		},
		{
			name: "half-close before the reply", script: greeted + group + "HALFCLOSE\nEOF",
			want: "mail: connection closed by the server [lost] [closed] [broke grouped]",
		},
		{
			name: "half-close after the final dot", script: greeted + accepted + "DATA\nHALFCLOSE\nEOF",
			want: "end_of_data: connection closed by the server [uncertain] [closed]",
		},
		{
			name: "silence after the final dot", script: greeted + accepted + "DATA\nSTALL", after: 10 * time.Minute,
			want: "end_of_data: no reply within 10m0s [uncertain] [closed]",
		},
		{
			name: "a late final reply", script: greeted + accepted + "DATA\nWAIT 9m59s\nS: 250 ok", after: 9*time.Minute + 59*time.Second,
			want: "end_of_data: 250 ok [delivered]",
		},
		{
			name: "garbage after the final dot", script: greeted + accepted + "DATA\nS: ok then",
			want: "end_of_data: protocol error: not an SMTP reply: \"ok then\" [uncertain] [closed]",
		},
		{
			name: "endless final reply", script: greeted + accepted + "DATA\n" + `FLOOD 250-thanks\n`,
			want: "end_of_data: protocol error: reply longer than 32768 octets [uncertain] [closed]",
		},
		{
			name: "content not read at all", script: largeHello + "STALL", body: large(), window: 4096, after: 4 * time.Minute,
			want: "end_of_data: no progress in writing within 4m0s [closed]",
		},
		{
			name: "content read slowly: every block has its own four minutes", body: large(), window: 65536,
			script: largeHello + strings.Repeat("WAIT 3m59s\nSWALLOW 65536\n", 5) + "DATA\nS: 250 ok", after: 5*4*time.Minute - 5*time.Second,
			want: "end_of_data: 250 ok [delivered]",
		},
		{
			name: "refused in the middle of content that is not read", script: largeHello + "WAIT 1m\nS: 552 5.3.4 too big\nSTALL", body: large(), window: 65536, after: time.Minute,
			want: "end_of_data: 552 5.3.4 too big [closed]",
		},
		{
			name: "accepted in the middle of content", script: largeHello + "SWALLOW 70000\nWAIT 1m\nS: 250 2.0.0 queued\nSTALL", body: large(), window: 65536, after: time.Minute,
			want: "end_of_data: protocol error: 250 before the content was complete [closed]",
		},
		{
			name: "421 in the middle of content", script: largeHello + "SWALLOW 70000\nWAIT 1m\nS: 421 4.3.2 down\nSTALL", body: large(), window: 65536, after: time.Minute,
			want: "end_of_data: 421 4.3.2 down [closed]",
		},
		{
			name: "closed in the middle of content", script: largeHello + "SWALLOW 70000\nCLOSE", body: large(), window: 65536,
			want: "end_of_data: connection closed by the server [closed]",
		},
		{
			name: "reset in the middle of content", script: largeHello + "SWALLOW 70000\nRESET", body: large(), window: 65536,
			want: "end_of_data: connection reset by peer [closed]",
		},
		{
			name: "refused and closed in the middle of content", script: largeHello + "SWALLOW 70000\nS: 554 5.7.1 spam\nCLOSE", body: large(), window: 65536,
			want: "end_of_data: 554 5.7.1 spam [closed]",
		},
		{
			name: "half-closed in the middle of content", script: largeHello + "SWALLOW 70000\nHALFCLOSE\nSTALL", body: large(), window: 65536,
			want: "end_of_data: connection closed by the server [closed]",
		},
		{
			name: "all but the last octet of the final dot left", script: largeHello + "STALL", window: 25, after: 4 * time.Minute,
			want: "end_of_data: no progress in writing within 4m0s [closed]",
		},
		{
			name: "the last octet of the final dot left", script: largeHello + "STALL", window: 26, after: 10 * time.Minute,
			want: "end_of_data: no reply within 10m0s [uncertain] [closed]",
		},
		{
			name: "commands not read", script: unoffered + "STALL", window: 30, after: time.Minute,
			want: "mail: no progress in writing within 1m0s [closed]",
		},
		{
			name: "commands not read, but answered", script: unoffered + "WAIT 20s\nS: 421 4.3.2 down\nSTALL", window: 30, after: time.Minute,
			want: "mail: 421 4.3.2 down [closed]",
		},
		{
			name: "commands not read, then reset", script: unoffered + "WAIT 20s\nRESET", window: 30, after: 20 * time.Second,
			want: "mail: connection reset by peer [closed]",
		},
		{
			name: "bare LF, no text, no space", script: greeted + group + `s: 250\n250-2.1.5 ok\n250\n354\n` + "\nDATA\n" + `s: 250-2.0.0 a\n250 2.0.0 b\n`,
			want: "end_of_data: 250 2.0.0 a b [delivered]",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, tt.script)
				if tt.window > 0 {
					sv.window = tt.window
				}
				s := mustOpen(t, sv, testConfig())
				body := tt.body
				if body == nil {
					body = []byte(testMessage)
				}
				start := time.Now()
				got := s.Send(t.Context(), testEnvelope(), body)
				if describe(got) != tt.want {
					t.Errorf("\n got %s\nwant %s", describe(got), tt.want)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				checkResult(t, got)
				s.Abort()
				sv.wait()
			})
		})
	}
}

// A context that ends is felt at every point where a session can wait, at once, and
// leaves the message uncertain only behind the final dot.
func TestSendCancelled(t *testing.T) {
	tests := []struct {
		name, script string
		body         []byte
		window       int
		want         string
	}{
		{
			name: "waiting for MAIL", script: greeted + group + "STALL",
			want: "mail: cancelled by the sender: context canceled [closed]",
		},
		{
			name: "waiting for RCPT", script: greeted + group + "S: 250 ok\nSTALL",
			want: "rcpt: cancelled by the sender: context canceled [closed]",
		},
		{
			name: "waiting for DATA", script: greeted + group + "S: 250 ok\nS: 250 ok\nSTALL",
			want: "data: cancelled by the sender: context canceled [closed]",
		},
		{
			name: "writing content", script: largeHello + "STALL", body: large(), window: 4096,
			want: "end_of_data: cancelled by the sender: context canceled [closed]",
		},
		{
			name: "waiting for the final reply", script: greeted + accepted + "DATA\nSTALL",
			want: "end_of_data: cancelled by the sender: context canceled [uncertain] [closed]",
		},
		{
			name: "the final reply in its middle", script: greeted + accepted + "DATA\ns: 250-queu\nSTALL",
			want: "end_of_data: cancelled by the sender: context canceled [uncertain] [closed]",
		},
		{
			name: "waiting for the lone dot's reply", script: greeted + group + "S: 250 ok\nS: 550 no\nS: 354 go\nC: .\nSTALL",
			want: "rcpt: 550 no [closed]",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, tt.script)
				if tt.window > 0 {
					sv.window = tt.window
				}
				s := mustOpen(t, sv, testConfig())
				body := tt.body
				if body == nil {
					body = []byte(testMessage)
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(7*time.Second, cancel)
				start := time.Now()
				got := s.Send(ctx, testEnvelope(), body)
				if describe(got) != tt.want {
					t.Errorf("\n got %s\nwant %s", describe(got), tt.want)
				}
				if took := time.Since(start); took != 7*time.Second {
					t.Errorf("took %s", took)
				}
				if got.Err != nil && !errors.Is(got.Err, context.Canceled) {
					t.Errorf("cause %v", got.Err)
				}
				sv.wait()
			})
		})
	}
}

func TestSendAlreadyCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+"C: QUIT\nS: 221 bye")
		s := mustOpen(t, sv, testConfig())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := s.Send(ctx, testEnvelope(), []byte(testMessage))
		if want := "quit: cancelled by the sender: context canceled [unsaid]"; describe(got) != want {
			t.Errorf("got %s, want %s", describe(got), want)
		}
		if err := s.Quit(t.Context()); err != nil {
			t.Error(err)
		}
		sv.wait()
	})
}

func TestAbortFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+accepted+"DATA\nSTALL")
		s := mustOpen(t, sv, testConfig())
		time.AfterFunc(time.Second, s.Abort)
		got := s.Send(t.Context(), testEnvelope(), []byte(testMessage))
		if !got.Uncertain || got.Usable || got.Delivered {
			t.Errorf("got %s", describe(got))
		}
		s.Abort()
		sv.wait()
	})
}

func TestDoneTellsAnIdleSession(t *testing.T) {
	for _, parting := range []string{"CLOSE", "RESET", "S: 421 4.4.2 idle", "S: nonsense"} {
		t.Run(parting, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, greeted+"WAIT 30s\n"+parting)
				s := mustOpen(t, sv, testConfig())
				start := time.Now()
				<-s.Done()
				if took := time.Since(start); took != 30*time.Second {
					t.Errorf("told after %s", took)
				}
				if got := s.Send(t.Context(), testEnvelope(), []byte(testMessage)); got.Began || got.Usable {
					t.Errorf("got %s", describe(got))
				}
				sv.wait()
			})
		})
	}
}

func TestQuit(t *testing.T) {
	tests := []struct {
		name, script string
		after        time.Duration
		want         error
	}{
		{name: "answered", script: "C: QUIT\nWAIT 3s\nS: 221 bye", after: 3 * time.Second},
		{name: "hung up on", script: "C: QUIT\nWAIT 1s\nCLOSE", after: time.Second},
		{name: "already hung up", script: "CLOSE"},
		{name: "already told to go", script: "S: 421 idle"},
		{name: "unanswered", script: "C: QUIT\nSTALL", after: 5 * time.Second, want: os.ErrDeadlineExceeded},
		{name: "trickled", script: "C: QUIT\nTRICKLE 1s", after: 5 * time.Second, want: os.ErrDeadlineExceeded},
		{name: "answered with a flood", script: "C: QUIT\n" + `FLOOD 250-x\r\n`, want: ErrProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, greeted+tt.script)
				s := mustOpen(t, sv, testConfig())
				synctest.Wait()
				start := time.Now()
				if err := s.Quit(t.Context()); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
					t.Errorf("Quit: %v, want %v", err, tt.want)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				if err := s.Quit(t.Context()); err != nil {
					t.Errorf("second Quit: %v", err)
				}
				sv.wait()
			})
		})
	}
}

func TestQuitCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+"C: QUIT\nSTALL")
		s := mustOpen(t, sv, testConfig())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Quit(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Quit: %v", err)
		}
		sv.wait()
	})
}
