// Command soak runs a node for a long time under a steady load and says whether it stays
// as it is.
//
//	go run ./integration/soak -minutes 30
//
// The node is `veredus serve`, built from the source around. It gets a small delivery every
// second, to healthy receivers, to one that dies in transactions, to one behind a bad network
// and to every hostile one; subscribers to feedback come and go, some from the beginning and
// some in the middle, messages are looked up and the configuration is
// reloaded. Every ten seconds resident memory, heap, goroutines and descriptors are
// written down. At the end the load stops, everything becomes final, the books are
// compared, and the drift of each figure over the time behind the warm-up is judged.
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
	minutes := flag.Float64("minutes", 30, "how long the load lasts")
	flag.IntVar(&opt.size, "messages", 300, "recipients of each delivery; one begins every second")
	flag.Uint64Var(&opt.seed, "seed", 0, "seed of the faults and of the subscribers; 0 takes one from the clock")
	flag.StringVar(&opt.dir, "dir", "", "a new directory in which to work and leave everything; empty: a temporary one, removed when all is well")
	flag.Parse()
	opt.load = time.Duration(*minutes * float64(time.Minute))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	load time.Duration
	size int
	seed uint64
	dir  string
}

// command is a run in a directory of its own.
func command(ctx context.Context, opt options) (err error) {
	switch {
	case opt.load < time.Minute || opt.load > 7*24*time.Hour:
		return fmt.Errorf("-minutes %g: give 1 to 10080", opt.load.Minutes())
	case opt.size < 10 || opt.size > 10_000:
		return fmt.Errorf("-messages %d: give 10 to 10000", opt.size)
	}
	if opt.seed == 0 {
		opt.seed = uint64(time.Now().UnixNano())
	}
	kept := opt.dir != ""
	if !kept {
		if opt.dir, err = os.MkdirTemp("", "veredus-soak-"); err != nil {
			return err
		}
	} else if err := os.Mkdir(opt.dir, 0o700); err != nil {
		return err
	}
	if err := run(ctx, opt); err != nil {
		return fmt.Errorf("%w\nthe node's files and log are in %s", err, opt.dir)
	}
	if kept {
		return nil
	}
	return os.RemoveAll(opt.dir)
}
