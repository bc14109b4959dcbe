// Command crash kills the relay, again and again, and compares the books.
//
//	go run ./integration/crash -rounds 300 -seed 7
//
// The node is `veredus serve`, built from the source around, on one data directory for all
// its lives. Each round uploads and starts a delivery over real TCP and ends the
// node by SIGKILL at a seeded moment of a seeded phase: ingest, start, sending, settling,
// compaction, reload, graceful shutdown, start-up. Single messages go all the while. One receiver dies in the middle of
// transactions, another is reached through a network that resets, cuts off, stalls and
// lags; the others are healthy. Behind each kill the node is started again and what it
// acknowledged is looked for; every few rounds everything is let through and four books are
// compared message by message: what the client was told, what the feedback stream told,
// what the node lists, and what the receivers have.
//
// It ends with a table, and with an error if anything was lost, is there without a record,
// or was repeated without having been announced. A seed gives the same moments, and so
// about the same story: the machine's own pace is not seeded.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	var opt options
	flag.IntVar(&opt.rounds, "rounds", 300, "how many rounds")
	flag.Uint64Var(&opt.seed, "seed", 0, "seed of the phases, moments and faults; 0 takes one from the clock")
	flag.IntVar(&opt.messages, "messages", 300, "recipients of each round's delivery")
	flag.IntVar(&opt.every, "compare", 10, "compare all books every so many rounds")
	flag.StringVar(&opt.only, "phase", "", "only this phase")
	flag.StringVar(&opt.dir, "dir", "", "a new directory in which to work and leave everything; empty: a temporary directory, removed when all is well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

// command is a run in a directory of its own.
func command(ctx context.Context, opt options) (err error) {
	if err := opt.check(); err != nil {
		return err
	}
	kept := opt.dir != ""
	if !kept {
		if opt.dir, err = os.MkdirTemp("", "veredus-crash-"); err != nil {
			return err
		}
	} else if err := os.Mkdir(opt.dir, 0o700); err != nil {
		return err
	}
	report, err := run(ctx, opt, func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if report != nil {
		fmt.Print("\n", report)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w\nthe node's files and log are in %s", err, opt.dir)
	case kept:
		return nil
	}
	return os.RemoveAll(opt.dir)
}

// options of a run.
type options struct {
	rounds, messages, every int
	seed                    uint64
	only, dir               string
}

func (o *options) check() error {
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	switch {
	case o.rounds < 1 || o.rounds > 100_000:
		return fmt.Errorf("-rounds %d: give 1 to 100000", o.rounds)
	case o.messages < 10 || o.messages > 100_000:
		return fmt.Errorf("-messages %d: give 10 to 100000", o.messages)
	case o.every < 1:
		return fmt.Errorf("-compare %d: give 1 or more", o.every)
	}
	for _, p := range phases {
		if o.only == "" || o.only == p.name {
			return nil
		}
	}
	return fmt.Errorf("-phase %q: give one of %s", o.only, phaseNames())
}
