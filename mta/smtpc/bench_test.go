package smtpc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/veredus/veredus/integration/memnet"
)

// yes is a server that agrees to everything and hardly allocates.
func yes(conn net.Conn, extensions string) {
	defer conn.Close()
	buf := make([]byte, 256<<10)
	_, _ = conn.Write([]byte("220 mx.example.com ESMTP\r\n"))
	var content bool
	for n := 0; ; {
		k, err := conn.Read(buf[n:])
		if err != nil {
			return
		}
		n += k
		reply := ""
		switch heard := buf[:n]; {
		case content && bytes.HasSuffix(heard, []byte("\r\n.\r\n")):
			content, reply = false, "250 2.0.0 Ok: queued as 4Zx9bC1kQwz9s\r\n"
		case content && n > len(buf)/2:
			n = copy(buf, heard[n-4:])
			continue
		case content:
			continue
		case bytes.HasSuffix(heard, []byte("DATA\r\n")) && bytes.HasPrefix(heard, []byte("MAIL")):
			content, reply = true, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
		case bytes.HasSuffix(heard, []byte("DATA\r\n")):
			content, reply = true, "354 End data with <CR><LF>.<CR><LF>\r\n"
		case bytes.HasPrefix(heard, []byte("EHLO")):
			reply = "250-mx.example.com\r\n250-8BITMIME\r\n250 " + extensions + "\r\n"
		case bytes.HasSuffix(heard, []byte("\r\n")):
			reply = "250 2.1.0 Ok\r\n"
		default:
			continue
		}
		n = 0
		if _, err := conn.Write([]byte(reply)); err != nil {
			return
		}
	}
}

func newsletter(size int) []byte {
	line := "<p>Dear reader, here is the <b>news</b> of the week, all of it.</p>\r\n.dotted\r\n"
	return []byte(strings.Repeat(line, size/len(line)+1))[:size/len(line)*len(line)]
}

func BenchmarkSend(b *testing.B) {
	for _, extensions := range []string{"PIPELINING", "SIZE 10000000"} {
		for _, size := range []int{2 << 10, 10 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("%s/%dKB", strings.Fields(extensions)[0], size>>10), func(b *testing.B) {
				benchmarkSend(b, extensions, size)
			})
		}
	}
}

func benchmarkSend(b *testing.B, extensions string, size int) {
	dial := func(context.Context) (net.Conn, error) {
		client, end := memnet.Pipe(256 << 10)
		go yes(end, extensions)
		return client, nil
	}
	s, err := Open(b.Context(), dial, testConfig())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Abort()
	message := newsletter(size)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if got := s.Send(ctx, testEnvelope(), message); !got.Delivered {
			b.Fatal(describe(got))
		}
	}
}

func BenchmarkSendLoopback(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go yes(conn, "PIPELINING")
		}
	}()
	s, err := Open(b.Context(), func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}, testConfig())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Abort()
	message := newsletter(10 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if got := s.Send(b.Context(), testEnvelope(), message); !got.Delivered {
			b.Fatal(describe(got))
		}
	}
}

func BenchmarkDotStuff(b *testing.B) {
	message := newsletter(10 << 10)
	w := bufio.NewWriterSize(io.Discard, bufferSize)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		dotStuff(w, message)
		_ = w.Flush() // io.Discard takes everything
	}
}

func BenchmarkCheckMessage(b *testing.B) {
	message := newsletter(10 << 10)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if checkLines(message) != nil || !isSevenBit(message) {
			b.Fatal("refused")
		}
	}
}

func BenchmarkReplyParser(b *testing.B) {
	const reply = "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n" +
		"550-5.1.1 double-checking the recipient's email address for typos or\r\n" +
		"550 5.1.1 unnecessary spaces. - gsmtp\r\n"
	src := strings.NewReader(reply)
	p := newReplyParser(src, DefaultMaxReplyLine, DefaultMaxReplyBytes)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(reply)
		if got, err := p.read(); err != nil || got.code != 550 {
			b.Fatal(got, err)
		}
	}
}
