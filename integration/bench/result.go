//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is one run of one case.
type result struct {
	Case           string   `json:"case"`
	Round          int      `json:"round"`
	Signing        signing  `json:"openssl"`
	Messages       int      `json:"messages"`
	Seconds        float64  `json:"seconds"`
	FeedSeconds    float64  `json:"feed_seconds"` // until all was accepted for sending
	PerSecond      float64  `json:"messages_per_second"`
	CPUPerThousand float64  `json:"cpu_seconds_per_1000"`
	SinkCPU        float64  `json:"sink_cpu_seconds_per_1000"`
	ClientCPU      float64  `json:"client_cpu_seconds_per_1000"`
	ForeignCores   float64  `json:"cores_used_by_others"` // by processes that are no part of this
	PeakBytes      int64    `json:"peak_bytes"`
	DiskBytes      int64    `json:"disk_bytes"`
	P50            float64  `json:"p50_seconds"` // from durable acceptance to acceptance by the receiver
	P99            float64  `json:"p99_seconds"`
	Probes         int      `json:"probes"`
	ProbeP50       float64  `json:"probe_p50_seconds"` // the same of single messages sent under the load
	ProbeP99       float64  `json:"probe_p99_seconds"`
	FeedbackP50    float64  `json:"feedback_p50_seconds,omitempty"` // from acceptance by the receiver to its event
	FeedbackP99    float64  `json:"feedback_p99_seconds,omitempty"`
	CPURatio       float64  `json:"cpu_per_signature_cpu"`
	RateRatio      float64  `json:"rate_per_signing_rate"`
	Sink           findings `json:"receiver"`
}

// compare sets the figures against the signing rate of the same round.
func (r *result) compare() {
	r.CPURatio = r.CPUPerThousand / 1000 / r.Signing.cpu().Seconds()
	r.RateRatio = r.PerSecond / r.Signing.PerSecond
}

// watch measures between start and stop.
type watch struct {
	relay      []int // its processes, each with what is below it
	sink       int
	begin, fed time.Time
	before     spent
}

// spent is CPU time.
type spent struct{ relay, sink, client, machine time.Duration }

func startWatch(sink int, relay ...int) (*watch, error) {
	w := &watch{relay: relay, sink: sink}
	var err error
	if w.before, err = w.read(); err != nil {
		return nil, err
	}
	w.begin = time.Now()
	return w, nil
}

func (w *watch) read() (s spent, err error) {
	for _, pid := range w.relay {
		used, err := usage(pid)
		if err != nil {
			return s, err
		}
		s.relay += used
	}
	if s.sink, err = usage(w.sink); err != nil {
		return s, err
	}
	s.client, err = ownUsage()
	s.machine = busy()
	return s, err
}

// stop is called when the last outcome is durable.
func (w *watch) stop(name string, n int) (*result, error) {
	took := time.Since(w.begin)
	now, err := w.read()
	if err != nil {
		return nil, err
	}
	relay, sink, client := now.relay-w.before.relay, now.sink-w.before.sink, now.client-w.before.client
	others := now.machine - w.before.machine - relay - sink - client
	perThousand := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(n) }
	return &result{
		Case: name, Messages: n, Seconds: took.Seconds(), FeedSeconds: w.fed.Sub(w.begin).Seconds(),
		PerSecond: float64(n) / took.Seconds(), CPUPerThousand: perThousand(relay), SinkCPU: perThousand(sink), ClientCPU: perThousand(client),
		ForeignCores: max(0, others.Seconds()/took.Seconds()),
	}, nil
}

// sink is the receiver's process seen from here.
type sink struct {
	*process
	addr  string
	in    io.Writer
	out   *bufio.Reader
	times string
}

func startSink(dir string, k *key, unsigned bool) (*sink, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &sink{times: filepath.Join(dir, "accepted")}
	cmd := exec.Command(self, "sink", "-record", k.record, "-times", s.times, "-unsigned="+strconv.FormatBool(unsigned))
	if s.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, in, err := os.Pipe() // not StdoutPipe, which Wait closes under the reader
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd.Stdout = in
	if s.process, err = start("the receiver", filepath.Join(dir, "sink.log"), cmd); err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	port, err := s.out.ReadString('\n')
	if err != nil {
		s.kill()
		return nil, fmt.Errorf("the receiver said no port: %w", err)
	}
	s.addr = "127.0.0.1:" + strings.TrimSpace(port)
	return s, nil
}

// ask sends a command and reads the answer.
func (s *sink) ask(answer any, command string, n int) error {
	if _, err := fmt.Fprintf(s.in, "%s %d\n", command, n); err != nil {
		return err
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the receiver did not answer %s: %w", command, err)
	}
	return json.Unmarshal(line, answer)
}

// judge has the receiver verify everything, and completes the result with what it found.
// acked are the messages of the load, probed those behind them; all have arrived.
// feedback is nil or the subscriber of the load.
func (s *sink) judge(r *result, acked, probed []int64, feedback *follower) error {
	r.Probes = len(probed)
	acked = append(acked, probed...)
	if err := s.ask(&r.Sink, "finish", len(acked)); err != nil {
		return err
	}
	if err := r.Sink.err(len(acked)); err != nil {
		return err
	}
	accepted, err := readTimes(s.times)
	if err != nil {
		return err
	}
	waits := make([]float64, len(accepted))
	for i := range waits {
		waits[i] = time.Duration(accepted[i] - acked[i]).Seconds()
	}
	load, single := waits[:r.Messages], waits[r.Messages:]
	slices.Sort(load)
	slices.Sort(single)
	r.P50, r.P99 = quantile(load, 0.5), quantile(load, 0.99)
	r.ProbeP50, r.ProbeP99 = quantile(single, 0.5), quantile(single, 0.99)
	if feedback != nil {
		late, err := feedback.waits(accepted)
		if err != nil {
			return err
		}
		r.FeedbackP50, r.FeedbackP99 = quantile(late, 0.5), quantile(late, 0.99)
	}
	return nil
}

// wait until the receiver has n messages.
func (s *sink) wait(ctx context.Context, n int) error {
	for {
		var count int
		if err := s.ask(&count, "count", 0); err != nil || count >= n {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *sink) port() string { return strings.TrimPrefix(s.addr, "127.0.0.1:") }

// quantile of a sorted list.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
