//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// runSink is the receiver's process. It prints its port, then obeys lines of input:
//
//	count 0     answers how many messages are in
//	finish N    verifies all messages, writes accepted times, and answers what it found
//
// Its input's end is its own.
func runSink(args []string, in io.Reader, out io.Writer) error {
	f := flag.NewFlagSet("sink", flag.ContinueOnError)
	record := f.String("record", "", "the TXT record of the DKIM key")
	unsigned := f.Bool("unsigned", false, "signatures are blank: only what they say of the body is verified")
	times := f.String("times", "", "file for the times of acceptance")
	if err := f.Parse(args); err != nil {
		return err
	}
	debug.SetGCPercent(400)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := newReceiver(*record, *unsigned)
	go r.listen(l)
	fmt.Fprintln(out, l.Addr().(*net.TCPAddr).Port)
	for commands := bufio.NewScanner(in); commands.Scan(); {
		answer, err := r.obey(commands.Text(), *times)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) obey(line, times string) (any, error) {
	verb, count, _ := strings.Cut(line, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil, fmt.Errorf("sink: %q: %w", line, err)
	}
	switch verb {
	case "count":
		return r.count.Load(), nil
	case "finish":
		found := r.verifyAll(n)
		return found, writeTimes(times, found.accepted)
	}
	return nil, fmt.Errorf("sink: %q: count or finish", line)
}

// receiver takes all mail and keeps it.
type receiver struct {
	record      string
	unsigned    bool
	kept        *archive
	count       atomic.Int64
	connections atomic.Int64
	live        chan letter // every liveth, verified as it arrives
	liveDone    chan struct{}
	liveChecked int
	liveBad     []string
}

// liveth is which messages are verified while the clock runs.
const liveth = 50

func newReceiver(record string, unsigned bool) *receiver {
	r := &receiver{record: record, unsigned: unsigned, kept: &archive{}, live: make(chan letter, 64), liveDone: make(chan struct{})}
	go r.verifyLive()
	return r
}

func (r *receiver) listen(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r.connections.Add(1)
		go r.serve(c)
	}
}

// accept takes a message. content is the caller's.
func (r *receiver) accept(rcpt, content []byte, dotted bool) {
	m := r.kept.add(letter{at: time.Now(), index: indexOf(rcpt), dotted: dotted}, content)
	if r.count.Add(1)%liveth == 0 {
		r.live <- m
	}
}

// writeTimes writes when each message was accepted, in nanoseconds of Unix time, 0 for never.
func writeTimes(path string, accepted []int64) error {
	out := make([]byte, 0, 8*len(accepted))
	for _, t := range accepted {
		out = binary.LittleEndian.AppendUint64(out, uint64(t))
	}
	return os.WriteFile(path, out, 0o600)
}

func readTimes(path string) ([]int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list := make([]int64, len(data)/8)
	for i := range list {
		list[i] = int64(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return list, nil
}
