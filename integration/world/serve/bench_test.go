package serve

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/integration/world"
)

// tenKB is a message of about 10 KB with a place for its Message-ID.
var tenKB = "From: <news@sender.example>\r\nTo: <a@b.example>\r\nSubject: hello\r\nMessage-ID: <%s@sender.example>\r\n\r\n" +
	strings.Repeat(strings.Repeat("x", 76)+"\r\n", 128) + ".\r\n"

// BenchmarkReceive measures the open world as a sink of 10 KB messages, over four
// connections that pipeline as a good sender does, signatures unchecked. The
// figures include the benchmark's own sending half.
func BenchmarkReceive(b *testing.B) {
	w, err := Start(context.Background(), Config{World: world.Open(), VerifyEvery: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	addr := addressOf(b, w, "open1.example")
	const connections = 4
	b.ReportAllocs()
	b.SetBytes(int64(len(tenKB)))
	b.ResetTimer()
	began := time.Now()
	var senders sync.WaitGroup
	for k := range connections {
		senders.Go(func() { pump(b, addr, k, b.N/connections+1) })
	}
	senders.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
}

// pump sends n messages over one connection.
func pump(b *testing.B, addr string, k, n int) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	expect := func(code string) {
		for {
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, code) {
				b.Errorf("want %s, got %q, %v", code, line, err)
				return
			}
			if line[3] == ' ' {
				return
			}
		}
	}
	expect("220")
	_, _ = io.WriteString(conn, "EHLO s.example\r\n")
	expect("250")
	for i := range n {
		id := strconv.Itoa(k) + "." + strconv.Itoa(i)
		_, _ = io.WriteString(conn, "MAIL FROM:<b-"+id+"@s.example>\r\nRCPT TO:<user"+id+"@open1.example>\r\nDATA\r\n")
		expect("250")
		expect("250")
		expect("354")
		_, _ = fmt.Fprintf(conn, tenKB, id)
		expect("250")
	}
}

// BenchmarkVerify measures the check of one RSA-2048 signature over 10 KB.
func BenchmarkVerify(b *testing.B) {
	w := start(b, alone(world.Receiver{}))
	key := newRSA(b)
	if err := w.AddTXT("s1._domainkey.sender.example", rsaRecord(b, key)); err != nil {
		b.Fatal(err)
	}
	content := []byte(signed(b, key, "sender.example", fmt.Sprintf(strings.TrimSuffix(tenKB, ".\r\n"), "v1")))
	b.ReportAllocs()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if verdict, reason := w.verifier.verify(content); verdict != dkimPass {
			b.Fatal(verdict, reason)
		}
	}
}
