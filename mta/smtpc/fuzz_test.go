package smtpc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mxrules"
)

const fuzzMessage = "Subject: hi\r\n\r\n.dot\r\n..\r\nend\r\n"

var (
	fuzzContent = "Subject: hi\r\n\r\n..dot\r\n...\r\nend\r\n.\r\n"
	fuzzChunk   = fmt.Sprintf("BDAT %d LAST\r\n", len(fuzzMessage)) + fuzzMessage
	fuzzLine    = regexp.MustCompile(`^(EHLO out\.veredus\.example|HELO out\.veredus\.example|STARTTLS|RSET|DATA|QUIT|\.|` +
		`MAIL FROM:<b-1@bounce\.veredus\.example>( SIZE=\d+)?|RCPT TO:<ann@example\.com>)$`)
)

// FuzzSession lets a server say anything. The input is cut at NULs; each part is said
// after something was heard. Whatever is said, the session ends, its results hold
// together and what it wrote is well-formed SMTP.
func FuzzSession(f *testing.F) {
	hello := "220 mx\r\n\x00250-mx\r\n250-PIPELINING\r\n250 SIZE 1000\r\n\x00"
	chunks := "220 mx\r\n\x00250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n\x00"
	for _, seed := range []string{
		hello + "250 ok\r\n250 ok\r\n354 go\r\n\x00250 ok\r\n",
		hello + "250 ok\r\n550 5.1.1 no\r\n354 go\r\n\x00250 ok\r\n\x00250 ok\r\n250 ok\r\n354 go\r\n\x00421 x\r\n",
		hello + "250 ok\r\n550 no\r\n503 no\r\n\x00250 ok\r\n\x00250 ok\r\n250 ok\r\n451 no\r\n",
		hello + "250 ok\r\n250 ok\r\n354 go\r\n250 early\r\n",
		hello + "250 ok\r\n250 ok\r\n354 go\r\n\x00250-ok\r\nbad\r\n250 ok\r\n",
		hello + "250 ok\r\n250 ok\r\n354 go\r\n\x00250 ok\r\n421 bye\r\n",
		hello + "250 ok\r\n250 ok\r\n354 go\r\n\x00250 1\r\n250 ok\r\n550 no\r\n354 go\r\n\x00250 ok\r\n\x00250 3\r\n",
		hello + "250 ok\r\n250 ok\r\n354 go\r\n\x00250 1\r\n421 bye\r\n",
		hello + "250 ok\r\n250 ok\r\n354 go\r\n\x00250 1\r\n250 ok\r\n250 ok\r\n354 go\r\n\x00250 2\r\n250 ok\r\n250 ok\r\n354 go\r\n\x00250 3\r\n",
		chunks + "250 ok\r\n250 ok\r\n250 1\r\n\x00250 ok\r\n550 no\r\n503 no\r\n\x00250 ok\r\n\x00250 ok\r\n250 ok\r\n250 3\r\n",
		chunks + "250 ok\r\n250 ok\r\n500 what\r\n",
		"220 mx\r\n\x00500 what\r\n\x00250 mx\r\n\x00250 ok\r\n\x00250 ok\r\n\x00354 go\r\n\x00250 ok\r\n",
		"220 mx\r\n\x00250-mx\r\n250 STARTTLS\r\n\x00220 go\r\n250 injected\r\n",
		"220 mx\r\n\x00250-mx\r\n250 STARTTLS\r\n\x00220 go\r\n\x00\x15\x03\x01\x00\x02\x02\x28\x00" + hello,
		"220 mx\r\n\x00250-mx\r\n250 STARTTLS\r\n\x00454 no\r\n\x00250 ok\r\n",
		"554 no\r\n", "220-a\r\n220", "", "421\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, input []byte, hold bool) {
		synctest.Test(t, func(t *testing.T) { fuzzSession(t, bytes.Split(input, []byte{0}), hold) })
	})
}

func fuzzSession(t *testing.T, parts [][]byte, hold bool) {
	sv := &fuzzServer{parts: parts, hold: hold}
	cfg := testConfig()
	cfg.TLS, cfg.MaxReplyLine, cfg.MaxReplyBytes = mxrules.TLSOpportunistic, 128, 512
	s, err := Open(t.Context(), sv.dial, cfg)
	checkOpenError(t, err)
	delivered := 0
	var mail []*Mail
	for range 4 {
		mail = append(mail, &Mail{Envelope: testEnvelope(), Content: []byte(fuzzMessage)})
	}
	if err == nil {
		for _, got := range carryAll(t.Context(), s, mail) {
			checkResult(t, got)
			if got.Delivered || got.Uncertain {
				delivered++
			}
		}
	}
	if s != nil {
		_ = s.Quit(t.Context()) // anything may come of it
	}
	if sv.wait(t) < delivered {
		t.Errorf("%d messages delivered or uncertain, the server has fewer", delivered)
	}
}

type fuzzServer struct {
	parts [][]byte
	hold  bool // stay silent at the end instead of leaving
	ends  []chan []byte
}

func (sv *fuzzServer) dial(context.Context) (net.Conn, error) {
	client, end := memnet.Pipe(1 << 20)
	heard := make(chan []byte, 1)
	sv.ends = append(sv.ends, heard)
	go func() { heard <- sv.play(end) }()
	return client, nil
}

func (sv *fuzzServer) play(conn *memnet.Conn) (heard []byte) {
	buf := make([]byte, 64<<10)
	for len(sv.parts) > 0 {
		part := sv.parts[0]
		sv.parts = sv.parts[1:]
		_, _ = conn.Write(part) // a client that left shows in Read
		n, err := conn.Read(buf)
		heard = append(heard, buf[:n]...)
		if err != nil {
			return heard
		}
	}
	if !sv.hold {
		_ = conn.CloseWrite()
	}
	rest, _ := io.ReadAll(conn) // a reset is an end like any other
	return append(heard, rest...)
}

// wait checks what was heard and returns how many whole contents were in it.
func (sv *fuzzServer) wait(t *testing.T) (contents int) {
	for _, end := range sv.ends {
		heard := string(<-end)
		if before, _, secured := strings.Cut(heard, "STARTTLS\r\n"); secured && strings.Contains(heard, "\x16\x03") {
			heard = before
		}
		contents += strings.Count(heard, "DATA\r\n"+fuzzContent) + strings.Count(heard, fuzzChunk)
		heard = strings.ReplaceAll(strings.ReplaceAll(heard, fuzzContent, ""), fuzzChunk, "")
		if at := strings.Index(heard, "Subject:"); at >= 0 && strings.HasPrefix(fuzzContent, heard[at:]) {
			heard = heard[:at]
		}
		if at := strings.Index(heard, "BDAT"); at >= 0 && strings.HasPrefix(fuzzChunk, heard[at:]) {
			heard = heard[:at]
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(heard, "\r\n"), "\r\n") {
			if line != "" && !fuzzLine.MatchString(line) {
				t.Errorf("client said %q", line)
			}
		}
	}
	return contents
}
