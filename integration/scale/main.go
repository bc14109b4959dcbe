// Command scale measures what a large backlog costs: resident memory while sending,
// the time from StartDelivery and from a restart to the first message out,
// throughput, disk, and what dead destinations, other deliveries and many readers of
// feedback do to healthy mail.
//
//	go run ./integration/scale                                  # 1,000,000 recipients of 50,000 domains at 20 destinations
//	go run ./integration/scale -recipients 10000000 -domains 500000
//	go run ./integration/scale -recipients 10000000 -domains 500000 -destinations 500000
//	go run ./integration/scale -recipients 10000 -domains 500   # what to compare with
//	go run ./integration/scale -recipients 10000 -domains 500 -rounds 30   # the same for as long
//	go run ./integration/scale -dead 500000 -dead-destinations 500000
//	go run ./integration/scale -fair                            # transactional mail and a later delivery beside
//	go run ./integration/scale -streams 1000
//	go run ./integration/scale -sessions 5000 -destinations 1000 -latency 2s   # thousands of sessions at once
//
// The node runs in a process of its own, as do the subscribers of feedback; receivers, DNS
// and other clients share another, all on loopback. Mail is small and signed with RSA-1024, unless -rsa says otherwise, so
// that the backlog's cost is not hidden behind the signature's. The store is in a
// directory below -dir, with real syncs, and removed at the end. What was measured is
// written to standard output as JSON, progress to standard error.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// scenario is what to measure.
type scenario struct {
	Recipients   int           `json:"recipients"`
	Rounds       int           `json:"rounds,omitempty"`
	Domains      int           `json:"domains"`
	Destinations int           `json:"destinations"`
	Dead         int           `json:"dead_domains,omitempty"`
	DeadPlaces   int           `json:"dead_destinations,omitempty"`
	Mixed        bool          `json:"mixed,omitempty"`
	Sessions     int           `json:"max_sessions"`
	Connections  int           `json:"connections"`
	Latency      time.Duration `json:"-"`
	For          time.Duration `json:"-"`
	Warm         time.Duration `json:"-"`
	RSA          int           `json:"rsa_bits"`
	Fair         bool          `json:"fair,omitempty"`
	Streams      int           `json:"streams,omitempty"`
	Restart      bool          `json:"-"`

	dir, profile, store string
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == nodeRole {
		if err := runNode(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 3 && os.Args[1] == subscribersRole {
		if err := runSubscribers(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "subscribers:", err)
			os.Exit(1)
		}
		return
	}
	sc := flags()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, sc)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	_ = enc.Encode(result)
}

func flags() scenario {
	var sc scenario
	flag.IntVar(&sc.Recipients, "recipients", 1_000_000, "queued recipients; up to 100000 are sent to the end, without -for, -warm, -fair and -restart")
	flag.IntVar(&sc.Rounds, "rounds", 1, "deliveries of so many recipients, one started when half of the one before is out, each to domains of its own")
	flag.IntVar(&sc.Domains, "domains", 50_000, "their domains")
	flag.IntVar(&sc.Destinations, "destinations", 20, "receiving infrastructures that the domains share")
	flag.IntVar(&sc.Dead, "dead", 0, "beside these, domains whose only MX swallows SYNs, with one recipient each")
	flag.IntVar(&sc.DeadPlaces, "dead-destinations", 1, "infrastructures of the dead domains")
	flag.BoolVar(&sc.Mixed, "mixed", false, "dead domains are in the same delivery, in front of and among the healthy ones")
	flag.IntVar(&sc.Sessions, "sessions", 1000, "relay.max_sessions")
	flag.IntVar(&sc.Connections, "connections", 10, "connections to a destination")
	flag.DurationVar(&sc.Latency, "latency", 0, "how long receivers take for the reply to each mail")
	flag.DurationVar(&sc.For, "for", 60*time.Second, "how long to measure throughput")
	flag.DurationVar(&sc.Warm, "warm", 15*time.Second, "time from the first message until the measurement begins")
	flag.IntVar(&sc.RSA, "rsa", 1024, "bits of the DKIM key")
	flag.BoolVar(&sc.Fair, "fair", false, "send transactional mail and a later delivery of 1000 meanwhile, and measure them")
	flag.IntVar(&sc.Streams, "streams", 0, "open streams of feedback: 1 % read everything, 9 % one delivery each, the rest sleep; measure latency")
	flag.BoolVar(&sc.Restart, "restart", true, "kill the node at the end and measure the restart")
	flag.StringVar(&sc.dir, "dir", os.TempDir(), "where the store is made")
	flag.StringVar(&sc.store, "store", "", "a copy of the filled store, made here if there is none, so that the next run need not fill again; it must have been made with the same recipients and domains")
	flag.StringVar(&sc.profile, "profile", "", "write CPU and heap profiles of the node to this directory")
	flag.Parse()
	return sc
}
