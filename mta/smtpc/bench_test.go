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

// yes is a server that agrees to everything and hardly allocates. Like a good one it
// answers what it has read in one write.
func yes(conn net.Conn, extensions string) {
	defer conn.Close()
	offer := strings.Split("mx.example.com\r\n250 8BITMIME\r\n250 "+extensions, "\r\n")
	for i := range len(offer) - 1 {
		offer[i+1] = strings.TrimPrefix(offer[i+1], "250 ")
	}
	y := &yesMan{hello: "250-" + strings.Join(offer[:len(offer)-1], "\r\n250-") + "\r\n250 " + offer[len(offer)-1] + "\r\n"}
	buf := make([]byte, 256<<10)
	_, _ = conn.Write([]byte("220 mx.example.com ESMTP\r\n"))
	for n := 0; ; {
		k, err := conn.Read(buf[n:])
		if err != nil {
			return
		}
		n += k
		n = copy(buf, buf[y.hear(buf[:n]):n])
		if len(y.say) > 0 {
			if _, err := conn.Write(y.say); err != nil {
				return
			}
			y.say = y.say[:0]
		}
	}
}

type yesMan struct {
	hello   string
	say     []byte
	content bool
	chunk   int // octets of it to come
}

// hear takes what it can and answers how much that was.
func (y *yesMan) hear(heard []byte) (used int) {
	for {
		rest := heard[used:]
		switch at := bytes.IndexByte(rest, '\n'); {
		case y.chunk > 0:
			n := min(y.chunk, len(rest))
			used += n
			if y.chunk -= n; y.chunk > 0 {
				return used
			}
			y.say = append(y.say, queued...)
		case y.content:
			end := bytes.Index(rest, endOfContent)
			if end < 0 {
				return used + max(0, len(rest)-len(endOfContent))
			}
			used += end + len(endOfContent)
			y.content = false
			y.say = append(y.say, queued...)
		case at < 0:
			return used
		default:
			y.command(rest[:at+1])
			used += at + 1
		}
	}
}

const queued = "250 2.0.0 Ok: queued as 4Zx9bC1kQwz9s\r\n"

func (y *yesMan) command(line []byte) {
	switch {
	case bytes.HasPrefix(line, []byte("BDAT ")):
		for _, c := range line[5:] {
			if c < '0' || c > '9' {
				break
			}
			y.chunk = 10*y.chunk + int(c-'0')
		}
	case bytes.HasPrefix(line, []byte("DATA")):
		y.content = true
		y.say = append(y.say, "354 End data with <CR><LF>.<CR><LF>\r\n"...)
	case bytes.HasPrefix(line, []byte("EHLO")):
		y.say = append(y.say, y.hello...)
	default:
		y.say = append(y.say, "250 2.1.0 Ok\r\n"...)
	}
}

func newsletter(size int) []byte {
	line := "<p>Dear reader, here is the <b>news</b> of the week, all of it.</p>\r\n.dotted\r\n"
	return []byte(strings.Repeat(line, size/len(line)+1))[:size/len(line)*len(line)]
}

// endless is a Next that always has another message, the same.
type endless struct{ mail *Mail }

func (e endless) Ready() <-chan struct{} { return nil }
func (e endless) Take() *Mail            { return e.mail }

func BenchmarkSend(b *testing.B) {
	for _, extensions := range []string{"SIZE 10000000", "PIPELINING", "PIPELINING\r\n250 CHUNKING"} {
		for _, size := range []int{2 << 10, 10 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("%q/%dKB", extensions, size>>10), func(b *testing.B) {
				benchmarkSend(b, size, func(context.Context) (net.Conn, error) {
					client, end := memnet.Pipe(256 << 10)
					go yes(end, extensions)
					return client, nil
				})
			})
		}
	}
}

// BenchmarkSendLoopback is the same over real TCP; the server's work is in it.
func BenchmarkSendLoopback(b *testing.B) {
	for _, extensions := range []string{"SIZE 10000000", "PIPELINING", "PIPELINING\r\n250 CHUNKING"} {
		b.Run(fmt.Sprintf("%q", extensions), func(b *testing.B) {
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
					go yes(conn, extensions)
				}
			}()
			benchmarkSend(b, 10<<10, func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
			})
		})
	}
}

func benchmarkSend(b *testing.B, size int, dial DialFunc) {
	s, err := Open(b.Context(), dial, testConfig())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Abort()
	message := newsletter(size)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	mail := &Mail{Envelope: testEnvelope(), Content: message}
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if got := s.Carry(ctx, mail, endless{mail}); !got.Delivered {
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
