//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mxrules/rulefile"
	"github.com/veredus/veredus/server/config"
)

// receiving starts a receiver with the public half of a key.
func receiving(t *testing.T) (r *receiver, addr string, keys *dkim.Keyring) {
	t.Helper()
	k, err := makeKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	known, err := dkim.LoadKeyFile(fromDomain, selector, k.file)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err = dkim.NewKeyring([]*dkim.Key{known}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r = newReceiver(k.record, false)
	go r.listen(l)
	return r, l.Addr().String(), keys
}

func composed(t *testing.T, n int) [][]byte {
	t.Helper()
	c, err := newComposer()
	if err != nil {
		t.Fatal(err)
	}
	mails, err := c.mails(n)
	if err != nil {
		t.Fatal(err)
	}
	return mails
}

func sign(t *testing.T, keys *dkim.Keyring, mails [][]byte) {
	t.Helper()
	for i := range mails {
		var err error
		if mails[i], err = keys.Sign(mails[i], fromDomain); err != nil {
			t.Fatal(err)
		}
	}
}

// Mail that the injector hands over arrives unchanged, also where lines begin with dots,
// and is found verified; none is missing and none came twice.
func TestReceiverTakesWhatTheInjectorSends(t *testing.T) {
	r, addr, keys := receiving(t)
	mails := composed(t, 2*liveth)
	mails[3] = append(mails[3], ".\r\n..\r\nend\r\n"...)
	sign(t, keys, mails)
	if _, err := inject(t.Context(), addr, mails, 5); err != nil {
		t.Fatal(err)
	}
	found := r.verifyAll(len(mails))
	if err := found.err(len(mails)); err != nil {
		t.Fatal(err)
	}
	for _, m := range r.kept.list {
		if got := m.message(); !bytes.Equal(got, mails[m.index]) {
			t.Errorf("message %d arrived as\n%s\nwant\n%s", m.index, got, mails[m.index])
		}
	}
}

// What is missing, repeated, to a stranger or badly signed is a fault.
func TestReceiverFindsFaults(t *testing.T) {
	r, addr, keys := receiving(t)
	mails := composed(t, 4)
	sign(t, keys, mails)
	mails[1] = bytes.Replace(mails[1], []byte("courier"), []byte("curious"), 1)
	in, err := dialInjector(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	for to, mail := range map[string][]byte{address(0): mails[0], address(1): mails[1], "stranger@mail.example": mails[2]} {
		if err := in.send(to, mail); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.send(address(0), mails[0]); err != nil {
		t.Fatal(err)
	}
	found := r.verifyAll(4)
	if found.Missing != 2 || found.Duplicates != 1 || found.Foreign != 1 || found.Verified != 3 || found.Problem == "" {
		t.Errorf("found %+v, want 2 missing, 1 repeated, 1 foreign, 3 verified", *found)
	}
	if found.err(4) == nil {
		t.Error("a run with faults passed")
	}
}

// Whole messages by CHUNKING, and a flight that holds the next envelope behind the
// present content, are answered in order.
func TestReceiverAnswersFlights(t *testing.T) {
	r, addr, _ := receiving(t)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := &injector{conn: conn, in: bufio.NewReader(conn)}
	envelope := func(i int) string { return fmt.Sprintf("MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\n", from, address(i)) }
	for _, flight := range []struct {
		say   string
		codes []string
	}{
		{"EHLO client.example\r\n", []string{"220", "250"}},
		{envelope(0) + "BDAT 6 LAST\r\nA: b\r\n", []string{"250", "250", "250"}},
		{envelope(1) + "BDAT 3\r\nA: BDAT 3 LAST\r\nb\r\n", []string{"250", "250", "250", "250"}},
		{envelope(2) + "DATA\r\n", []string{"250", "250", "354"}},
		{"A: b\r\n.\r\n" + envelope(3) + "DATA\r\n", []string{"250", "250", "250", "354"}},
		{"A: b\r\n.\r\nRSET\r\nDATA\r\nNOOP\r\nQUIT\r\n", []string{"250", "250", "503", "250", "221"}},
	} {
		if err := in.exchange(flight.say, flight.codes...); err != nil {
			t.Fatalf("%q: %v", flight.say, err)
		}
	}
	for i, m := range r.kept.list {
		if m.index != i || string(m.message()) != "A: b\r\n" {
			t.Errorf("message %d: to %d, %q", i, m.index, m.message())
		}
	}
	if n := len(r.kept.list); n != 4 {
		t.Errorf("%d messages, want 4", n)
	}
}

// The configurations that are filled in are ones that the relay takes.
func TestRelayConfiguration(t *testing.T) {
	dir := t.TempDir()
	k, err := makeKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	conf, rules := filepath.Join(dir, "veredus.yaml"), filepath.Join(dir, "rules.yaml")
	with := map[string]string{"Dir": dir, "GRPC": "127.0.0.1:1", "Sink": "127.0.0.1:2", "Domain": fromDomain, "Selector": selector, "Key": k.file}
	if err := write(conf, relayConfig, with); err != nil {
		t.Fatal(err)
	}
	if err := write(rules, relayRules, map[string]int{"PerDomain": 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(conf); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rulefile.Parse(rules, data); err != nil {
		t.Error(err)
	}
}

func TestMessageSize(t *testing.T) {
	mails := composed(t, 1)
	if n := len(mails[0]); n < 9_500 || n > 10_240 {
		t.Errorf("a message has %d octets before it is signed, want 10 KB with its signature", n)
	}
}

func TestIndexOfAddress(t *testing.T) {
	for _, i := range []int{0, 7, 99_999, maxMessages - 1} {
		if got := indexOf([]byte(address(i))); got != i {
			t.Errorf("%s is of message %d, want %d", address(i), got, i)
		}
	}
	for _, other := range []string{"", "r1@d", "someone@mail.example", "rxxxxxxx@mail.example"} {
		if got := indexOf([]byte(other)); got != -1 {
			t.Errorf("%q is of message %d, want none", other, got)
		}
	}
}

func TestParseSpeed(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want float64
	}{
		"3.0": {"                  sign    verify    sign/s verify/s\nrsa 2048 bits 0.000224s 0.000013s   4466.5  74520.2\n", 4466.5},
		"3.5": {"rsa  2048 bits 0.000224s 0.000013s 0.000014s 0.000230s   4466.5  74520.2  71000.0   4300.0\n", 4466.5},
	} {
		if got, ok := parseSpeed(c.line); !ok || got != c.want {
			t.Errorf("%s: %v %v, want %v", name, got, ok, c.want)
		}
	}
	if _, ok := parseSpeed("rsa 4096 bits 0.001s 0.1s 500 600"); ok {
		t.Error("a line of another size was taken")
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 30 4 20 0 5 0 1 1 1\n"
	pid, ppid, cpu, ok := parseStat([]byte(line))
	if !ok || pid != 42 || ppid != 7 || cpu != 1540*time.Millisecond {
		t.Errorf("pid %d, parent %d, %v, %v", pid, ppid, cpu, ok)
	}
	if _, _, _, ok := parseStat([]byte("42 (short) S 7\n")); ok {
		t.Error("a short line was taken")
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-only", "exim"}, {"-messages", "0"}, {"-sessions", "100000"}, {"extra"}} {
		if err := run(context.Background(), args, nil, io.Discard, io.Discard); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
