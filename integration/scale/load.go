package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// load is what a node has in use.
type load struct {
	Sessions    float64 `json:"sessions"`
	Descriptors float64 `json:"descriptors"`
	Goroutines  float64 `json:"goroutines"`
	Threads     float64 `json:"threads"`
	HeapMB      float64 `json:"heap_mb"`
	StackMB     float64 `json:"stack_mb"`
	RSSMB       float64 `json:"rss_mb"`
}

// watch looks at the node each second until its end is asked for, and answers the most
// of each figure.
func (n *node) watch() (end func() load) {
	stop, done := make(chan struct{}), make(chan load)
	go func() {
		var most load
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			most.raise(n.look())
			select {
			case <-tick.C:
			case <-stop:
				done <- most
				return
			}
		}
	}()
	return func() load { close(stop); return <-done }
}

func (l *load) raise(now load) {
	l.Sessions, l.Descriptors = max(l.Sessions, now.Sessions), max(l.Descriptors, now.Descriptors)
	l.Goroutines, l.Threads = max(l.Goroutines, now.Goroutines), max(l.Threads, now.Threads)
	l.HeapMB, l.StackMB, l.RSSMB = max(l.HeapMB, now.HeapMB), max(l.StackMB, now.StackMB), max(l.RSSMB, now.RSSMB)
}

// look reads the node's figures; those that cannot be read are 0.
func (n *node) look() load {
	l := load{RSSMB: status(n.pid(), "VmRSS")}
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.pid())); err == nil {
		l.Descriptors = float64(len(open))
	}
	resp, err := http.Get("http://" + n.web + "/metrics")
	if err != nil {
		return l
	}
	defer func() { _ = resp.Body.Close() }()
	figures := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		figures[name], _ = strconv.ParseFloat(value, 64)
	}
	l.Sessions, l.Goroutines, l.Threads = figures["veredus_sessions"], figures["go_goroutines"], figures["go_threads"]
	l.HeapMB, l.StackMB = figures["go_memstats_heap_inuse_bytes"]/(1<<20), figures["go_memstats_stack_inuse_bytes"]/(1<<20)
	return l
}
