package smtpc

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReplyParser(t *testing.T) {
	tests := []struct {
		in       string
		want     string // "code|enhanced|text" or the error's text
		maxLine  int
		maxBytes int
	}{
		{in: "250 ok\r\n", want: "250||ok"},
		{in: "250 ok\n", want: "250||ok"},
		{in: "250\r\n", want: "250||"},
		{in: "250 \r\n", want: "250||"},
		{in: "250-a\r\n250-b\r\n250 c\r\n", want: "250||a\nb\nc"},
		{in: "250-a\r\n250\r\n", want: "250||a\n"},
		{in: "550 5.1.1 unknown\r\n", want: "550|5.1.1|unknown"},
		{in: "550 5.1.1\r\n", want: "550|5.1.1|"},
		{in: "550-5.1.1 a\r\n550-5.1.1 b\r\n550 5.1.1 c\r\n", want: "550|5.1.1|a\nb\nc"},
		{in: "550-a\r\n550 5.7.26 b\r\n", want: "550|5.7.26|a\nb"},
		{in: "550-5.7.1 a\r\n550 5.7.26 b\r\n", want: "550|5.7.1|a\nb"},
		{in: "421 4.7.500 busy\r\n", want: "421|4.7.500|busy"},
		{in: "550 4.7.1 class does not match\r\n", want: "550||4.7.1 class does not match"},
		{in: "550 5.1.1234 too long\r\n", want: "550||5.1.1234 too long"},
		{in: "550 5..1 x\r\n", want: "550||5..1 x"},
		{in: "550 5.1. x\r\n", want: "550||5.1. x"},
		{in: "550 5.1.1.1 an address\r\n", want: "550||5.1.1.1 an address"},
		{in: "550 5.1\r\n", want: "550||5.1"},
		{in: "354 3.0.0 go\r\n", want: "354||3.0.0 go"},
		{in: "550 a\tb\x00c\xffd\x1b[31m\r\r\n", want: "550||a b\ufffdc\ufffdd\ufffd[31m"},
		{in: "550 caf\u00e9 \u202e\r\n", want: "550||caf\u00e9 \ufffd"},
		{in: "150 x\r\n", want: `protocol error: not an SMTP reply: "150 x"`},
		{in: "650 x\r\n", want: `protocol error: not an SMTP reply: "650 x"`},
		{in: "25 x\r\n", want: `protocol error: not an SMTP reply: "25 x"`},
		{in: "2500 x\r\n", want: `protocol error: not an SMTP reply: "2500 x"`},
		{in: "250+x\r\n", want: `protocol error: not an SMTP reply: "250+x"`},
		{in: "\r\n", want: `protocol error: not an SMTP reply: ""`},
		{in: "250-a\r\n550 b\r\n", want: "protocol error: code changes from 250 to 550 inside one reply"},
		{in: "250-a\r\nb\r\n250 c\r\n", want: `protocol error: not an SMTP reply: "b"`},
		{in: "250 ok", want: "unexpected EOF"},
		{in: "250-ok\r\n", want: "EOF"},
		{in: "", want: "EOF"},
		{in: "250 " + strings.Repeat("x", 26) + "\r\n", maxLine: 32, want: "250||" + strings.Repeat("x", 26)},
		{in: "250 " + strings.Repeat("x", 27) + "\r\n", maxLine: 32, want: "protocol error: reply line longer than 32 octets"},
		{in: "250-a\r\n250 b\r\n", maxBytes: 14, want: "250||a\nb"},
		{in: "250-a\r\n250 b\r\n", maxBytes: 13, want: "protocol error: reply longer than 13 octets"},
	}
	for _, tt := range tests {
		defaultTo(&tt.maxLine, DefaultMaxReplyLine)
		defaultTo(&tt.maxBytes, DefaultMaxReplyBytes)
		p := newReplyParser(strings.NewReader(tt.in), tt.maxLine, tt.maxBytes)
		reply, err := p.read()
		got := strings.Join([]string{Reply{Code: reply.code}.String(), reply.enhanced, reply.text}, "|")
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
}

func TestReplyTextIsCutNotRefused(t *testing.T) {
	long := wireReply{code: 550, text: strings.Repeat("\u00e9", maxText)}
	reply := long.in(PhaseRCPT)
	if len(reply.Text) > maxText || len(reply.Text) < maxText-3 || !utf8.ValidString(reply.Text) {
		t.Errorf("%d octets kept, valid: %t", len(reply.Text), utf8.ValidString(reply.Text))
	}
}

// A reply in the middle of octets cut anywhere reads the same.
func TestReplyParserOctetByOctet(t *testing.T) {
	in := "250-5.1.0 a\r\n250 b\r\n550-5.1.1 c\r\n550 5.1.1 d\r\n"
	p := newReplyParser(&dribble{in}, DefaultMaxReplyLine, DefaultMaxReplyBytes)
	for _, want := range []string{"5.1.0 a\nb", "c\nd"} {
		if got, err := p.read(); err != nil || got.text != want {
			t.Errorf("got %q, %v; want %q", got.text, err, want)
		}
	}
	if _, err := p.read(); err != io.EOF {
		t.Errorf("got %v", err)
	}
}

type dribble struct{ rest string }

func (d *dribble) Read(p []byte) (int, error) {
	if d.rest == "" {
		return 0, io.EOF
	}
	p[0], d.rest = d.rest[0], d.rest[1:]
	return 1, nil
}

func FuzzReplyParser(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "550-5.1.1 a\n550 5.1.1 b\n", "421 4.7.0 x\r\n220 y\r\n",
		"250-", "250-a\r\n550 b\r\n", "5.1.1\r\n", "250 \xff\x00\r\n", "354\n354 5..1", strings.Repeat("250-x\r\n", 300),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const maxLine, maxBytes = 128, 1024
		whole, wholeErr := readAll(newReplyParser(strings.NewReader(string(in)), maxLine, maxBytes))
		split, splitErr := readAll(newReplyParser(&dribble{string(in)}, maxLine, maxBytes))
		if len(whole) != len(split) || wholeErr.Error() != splitErr.Error() {
			t.Fatalf("segments matter: %d replies, %v; octet by octet %d, %v", len(whole), wholeErr, len(split), splitErr)
		}
		for i, r := range whole {
			if r != split[i] {
				t.Fatalf("segments matter: %+v, %+v", r, split[i])
			}
			checkReply(t, r, maxBytes)
		}
		if wholeErr != io.EOF && wholeErr != io.ErrUnexpectedEOF && !errors.Is(wholeErr, ErrProtocol) {
			t.Fatalf("unforeseen error %v", wholeErr)
		}
	})
}

func readAll(p replyParser) (replies []wireReply, err error) {
	for {
		r, err := p.read()
		if err != nil {
			return replies, err
		}
		replies = append(replies, r)
	}
}

func checkReply(t *testing.T, r wireReply, maxBytes int) {
	t.Helper()
	if r.code < 200 || r.code > 599 {
		t.Fatalf("code %d", r.code)
	}
	if r.enhanced != "" && (int(r.enhanced[0]-'0') != r.code/100 || strings.Count(r.enhanced, ".") != 2 || len(r.enhanced) > len("5.123.123")) {
		t.Fatalf("enhanced %q with %d", r.enhanced, r.code)
	}
	// A replaced octet takes three.
	if !utf8.ValidString(r.text) || len(r.text) > 3*maxBytes || strings.ContainsAny(r.text, "\r\x00\x1b\x7f") {
		t.Fatalf("text %q", r.text)
	}
}
