//go:build linux

// Command bench measures what a message costs: the relay as the real binary, and
// Postfix with OpenDKIM from Debian's packages when they are installed, against the
// same receiver with the same messages.
//
//	go run ./integration/bench
//
// Each round measures first how many RSA-2048 signatures OpenSSL makes a second on one
// core, so that results compare across machines. Then 100,000 messages of 10 KB, multipart
// and with variables, go through each of
//
//   - veredus: recipients streamed in by gRPC, signed with RSA-2048, all of it durable;
//   - unsigned: the same, but the RSA operation answers zeros at once. All else that a
//     signature asks for is done: the messages have signature fields with good body hashes;
//   - postfix: fed by SMTP over parallel connections, signed by OpenDKIM with the same RSA
//     key, with the configuration in the folder postfix. It gets fewer messages, for it is slower.
//
// The receiver is a process of its own, which keeps every message: every fiftieth is
// verified as it arrives and all of them after the clock stopped, with another
// implementation of DKIM than the one that signed. Messages missing, repeated or
// badly signed make the command fail.
//
// Everything listens on loopback. Files are below -dir, which must be on a disk, and go
// away at the end. CPU and memory are read from /proc: it runs on Linux only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	runtime.LockOSThread() // children die with the thread that started them: it must be the main one
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	if len(args) > 0 && args[0] == "sink" {
		return runSink(args[1:], in, out)
	}
	if len(args) > 0 && args[0] == "node" {
		return runNode(args[1:])
	}
	b, err := parse(args, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.run(ctx, out)
}

// The cases.
const (
	caseVeredus  = "veredus"
	caseUnsigned = "unsigned"
	casePostfix  = "postfix"
)

var allCases = []string{caseVeredus, caseUnsigned, casePostfix}

// bench is one invocation.
type bench struct {
	messages, postfixMessages int
	repeat                    int
	sessions                  int
	cases                     []string
	json                      bool
	feedback                  bool
	profile                   string // directory for CPU profiles of the relay
	parent                    string // where dir is made
	binary                    string // the relay's, built unless given

	dir  string
	note io.Writer // progress
}

func parse(args []string, errOut io.Writer) (*bench, error) {
	b := &bench{note: errOut}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errOut)
	f.IntVar(&b.messages, "messages", 100_000, "messages of the cases veredus and unsigned")
	f.IntVar(&b.postfixMessages, "postfix-messages", 10_000, "messages of the case postfix")
	f.IntVar(&b.repeat, "repeat", 3, "rounds; medians and spread are over them")
	f.IntVar(&b.sessions, "sessions", 20, "connections to the receiver")
	only := f.String("only", "", "cases, with commas between: "+strings.Join(allCases, ", ")+" (default all)")
	f.BoolVar(&b.json, "json", false, "print every run as a line of JSON")
	f.BoolVar(&b.feedback, "feedback", false, "read the feedback of the cases veredus and unsigned meanwhile, and measure how late it comes")
	f.StringVar(&b.profile, "profile", "", "directory for CPU profiles of the relay")
	f.StringVar(&b.parent, "dir", "", "directory for stores and queues, on a disk (default the system's for temporary files)")
	f.StringVar(&b.binary, "binary", "", "a veredus binary in place of the one built from this tree")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("argument %q: there are only flags", f.Arg(0))
	}
	b.cases = allCases
	if *only != "" {
		b.cases = strings.Split(*only, ",")
	}
	return b, b.check()
}

func (b *bench) check() error {
	for _, c := range b.cases {
		if !slices.Contains(allCases, c) {
			return fmt.Errorf("-only %q: use %s", c, strings.Join(allCases, ", "))
		}
	}
	for _, n := range []struct {
		flag             string
		value, low, high int
	}{
		{"messages", b.messages, 1, maxMessages},
		{"postfix-messages", b.postfixMessages, 1, maxMessages},
		{"repeat", b.repeat, 1, 100},
		{"sessions", b.sessions, 1, 1000},
	} {
		if n.value < n.low || n.value > n.high {
			return fmt.Errorf("-%s %d: use %d to %d", n.flag, n.value, n.low, n.high)
		}
	}
	return nil
}

// maxMessages bounds the receiver's memory, which holds all messages of a run.
const maxMessages = 1_000_000

func (b *bench) run(ctx context.Context, out io.Writer) (err error) {
	if b.dir, err = workDir(b.parent); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	runs, err := b.rounds(ctx)
	if len(runs) == 0 {
		return err
	}
	if b.json {
		return errors.Join(err, printJSON(out, runs))
	}
	report(out, runs) // also of what was done before a failure
	return err
}

func (b *bench) rounds(ctx context.Context) (runs []*result, err error) {
	for round := range b.repeat {
		done, err := b.round(ctx, round+1)
		runs = append(runs, done...)
		if err != nil {
			return runs, err
		}
	}
	return runs, nil
}

func printJSON(out io.Writer, runs []*result) error {
	enc := json.NewEncoder(out)
	for _, r := range runs {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// prepare builds the relay and drops cases that this machine cannot run.
func (b *bench) prepare(ctx context.Context) error {
	if slices.Contains(b.cases, casePostfix) {
		if missing := missingPackages(); len(missing) > 0 {
			fmt.Fprintf(b.note, "The case postfix is left out. It needs Debian's packages: apt-get install %s\n", strings.Join(missing, " "))
			b.cases = slices.DeleteFunc(slices.Clone(b.cases), func(c string) bool { return c == casePostfix })
		}
	}
	if b.binary != "" || !slices.ContainsFunc(b.cases, func(c string) bool { return c != casePostfix }) {
		return nil
	}
	return b.build(ctx)
}

// round runs each case once.
func (b *bench) round(ctx context.Context, number int) (runs []*result, err error) {
	for _, c := range b.cases {
		rate, err := signingRate(ctx)
		if err != nil {
			return runs, err
		}
		fmt.Fprintf(b.note, "round %d, %s: %s makes %.0f RSA-2048 signatures per second of one core\n", number, c, rate.By, rate.PerSecond)
		r, err := b.one(ctx, c, number)
		if err != nil {
			return runs, fmt.Errorf("round %d, %s: %w", number, c, err)
		}
		r.Round, r.Signing = number, rate
		r.compare()
		fmt.Fprintf(b.note, "round %d, %s: %.0f messages/s, %.3f CPU-seconds per 1,000\n", number, c, r.PerSecond, r.CPUPerThousand)
		runs = append(runs, r)
	}
	return runs, nil
}

// one runs a case, with a receiver, a key and a directory of its own.
func (b *bench) one(ctx context.Context, name string, number int) (r *result, err error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { // Postfix's own users must get through
		return nil, err
	}
	k, err := makeKey(dir)
	if err != nil {
		return nil, err
	}
	s, err := startSink(dir, k, name == caseUnsigned)
	if err != nil {
		return nil, err
	}
	defer s.kill()
	if name == casePostfix {
		return b.runPostfix(ctx, dir, k, s)
	}
	return b.runRelay(ctx, name, dir, k, s, number)
}
