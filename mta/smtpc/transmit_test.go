package smtpc

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
)

func TestDotStuff(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a\r\n", "a\r\n.\r\n"},
		{"a", "a\r\n.\r\n"},
		{".", "..\r\n.\r\n"},
		{".\r\n", "..\r\n.\r\n"},
		{"..\r\n.\r\n", "...\r\n..\r\n.\r\n"},
		{"a.\r\n.b\r\n\r\n", "a.\r\n..b\r\n\r\n.\r\n"},
		{"\r\n", "\r\n.\r\n"},
		{"a\r\n.", "a\r\n..\r\n.\r\n"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		w := bufio.NewWriterSize(&out, 16)
		n := dotStuff(w, []byte(tt.in))
		if err := w.Flush(); err != nil || out.String() != tt.want || n != int64(len(tt.want)) {
			t.Errorf("%q: got %q (%d), want %q", tt.in, out.String(), n, tt.want)
		}
	}
}

func FuzzDotStuff(f *testing.F) {
	for _, seed := range []string{"a\r\n.b\r\n", ".", "..", "\r\n.\r\n.", "x", "\n.\n."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		in = strings.ReplaceAll(strings.ReplaceAll(in, "\r", ""), "\n", "\r\n")
		if in == "" {
			return
		}
		if err := checkLines([]byte(in)); err != nil {
			t.Fatalf("%q refused: %v", in, err)
		}
		var out bytes.Buffer
		w := bufio.NewWriterSize(&out, 16)
		n := dotStuff(w, []byte(in))
		if err := w.Flush(); err != nil || n != int64(out.Len()) {
			t.Fatal(n, out.Len(), err)
		}
		got, found := strings.CutSuffix(out.String(), "\r\n.\r\n")
		if !found || strings.Contains("\r\n"+got+"\r\n", "\r\n.\r\n") {
			t.Fatalf("%q ends early or not at all", out.String())
		}
		var lines []string
		for line := range strings.SplitSeq(got, "\r\n") {
			lines = append(lines, strings.TrimPrefix(line, "."))
		}
		if back := strings.Join(lines, "\r\n"); back != strings.TrimSuffix(in, "\r\n") {
			t.Fatalf("%q became %q", in, back)
		}
	})
}

// The receiver may come to break content off after the session has taken the 354
// and begun: there is nothing to break off for then.
func TestEarlyNeedsAReply(t *testing.T) {
	client, _ := memnet.Pipe(testWindow)
	replies := make(chan incoming, 1)
	out := &sender{raw: client, w: client}
	out.beginContent(0)
	out.early(replies, false)
	if _, err := out.write([]byte("x"), time.Minute); err != nil {
		t.Errorf("broken off without a reply: %v", err)
	}
	replies <- incoming{}
	out.early(replies, false)
	if _, err := out.write([]byte("x"), time.Minute); !errors.Is(err, errEarly) {
		t.Errorf("not broken off: %v", err)
	}
	out.endContent()
	out.early(replies, false)
	if _, err := out.write([]byte("x"), time.Minute); err != nil {
		t.Errorf("broken off outside content: %v", err)
	}
}

// A break is felt by the write under way, whichever of the two comes first.
func TestCancelBreaksWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := memnet.Pipe(4)
		out := &sender{raw: client, w: client}
		time.AfterFunc(time.Second, out.cancel)
		start := time.Now()
		n, err := out.write([]byte("12345"), time.Minute)
		if n != 4 || !errors.Is(err, ErrClosed) || time.Since(start) != time.Second {
			t.Errorf("%d octets, %v after %s", n, err, time.Since(start))
		}
		if n, err := out.write([]byte("6"), time.Minute); n != 0 || !errors.Is(err, ErrClosed) {
			t.Errorf("%d octets, %v", n, err)
		}
	})
}

// The receiver stops for STARTTLS after its reply, not after the one before, however
// late it looks.
func TestReceiverPausesAtACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, end := memnet.Pipe(testWindow)
		rx := newReceiver(newReplyParser(client, 128, 128))
		rx.pauseAt.Store(2) // as if the session had taken the first before the receiver looked
		gone := make(chan struct{})
		go rx.run(gone, &sender{raw: client, w: client})
		_, _ = end.Write([]byte("250 one\r\n"))
		synctest.Wait()
		if rx.ended() || len(rx.replies) != 1 {
			t.Fatalf("ended %t with %d replies", rx.ended(), len(rx.replies))
		}
		_, _ = end.Write([]byte("220 two\r\n"))
		synctest.Wait()
		if !rx.ended() || len(rx.replies) != 2 {
			t.Fatalf("ended %t with %d replies", rx.ended(), len(rx.replies))
		}
	})
}
