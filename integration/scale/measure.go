package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// result is what was measured.
type result struct {
	Scenario scenario `json:"scenario"`

	IngestPerSecond float64 `json:"ingest_per_s"`
	IngestPeakMB    float64 `json:"ingest_peak_mb"`
	DiskPerRow      float64 `json:"disk_bytes_per_recipient"`

	ToFirst        float64 `json:"start_to_first_message_s"`
	PerSecond      float64 `json:"messages_per_s"`
	Spread         []int64 `json:"messages_by_window"` // ten windows of the measurement
	CPUPerThousand float64 `json:"cpu_s_per_1000"`
	SendingMB      float64 `json:"sending_rss_mb"`
	PeakMB         float64 `json:"sending_peak_mb"`
	RestartToFirst float64 `json:"restart_to_first_message_s,omitempty"`
	RestartPeakMB  float64 `json:"restart_peak_mb,omitempty"`
	DNSQuestions   int64   `json:"dns_questions"`
	SinkSessions   int64   `json:"receivers_connections"`
	Most           load    `json:"most"` // while sending

	Transactional *latencies `json:"transactional_s,omitempty"`
	Later         float64    `json:"later_delivery_of_1000_done_s,omitempty"`
	Feedback      *latencies `json:"feedback_s,omitempty"`                 // from the receiver's 250 to the subscriber
	ReplyRead     *latencies `json:"reply_read_s,omitempty"`               // of that, until the node had read the 250
	Subscribers   float64    `json:"subscribers_cpu_s_per_1000,omitempty"` // all of them, in their own process
	StreamKB      float64    `json:"kb_per_stream,omitempty"`              // of the node, open and idle
}

// rig is everything of one run.
type rig struct {
	sc    scenario
	dir   string
	sink  *sink
	names *names
	node  *node
	res   *result

	readers *subscribers // nil without streams
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func run(ctx context.Context, sc scenario) (res *result, err error) {
	r := &rig{sc: sc, res: &result{Scenario: sc}}
	if r.dir, err = os.MkdirTemp(sc.dir, "veredus-scale-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if r.sink, err = newSink(sc.Latency); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.sink.close()) }()
	if r.names, err = newNames(sc); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.names.close()) }()
	if err := writeConfig(sc, r.dir, r.names.addr, r.sink.port); err != nil {
		return nil, err
	}
	defer func() {
		if r.node != nil {
			err = errors.Join(err, r.node.kill())
		}
	}()
	for _, step := range []func(context.Context) error{r.fill, r.send, r.restart} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return r.res, nil
}

// fill takes all recipients in, and ends the node, so that what sending needs of
// memory is not mistaken for what taking in needed.
func (r *rig) fill(ctx context.Context) (err error) {
	if filled, err := r.refill(); err != nil || filled {
		return err
	}
	if r.node, err = start(r.dir); err != nil {
		return err
	}
	begin := time.Now()
	if r.sc.Dead > 0 && !r.sc.Mixed {
		if err := r.upload(ctx, "dead", r.sc.Dead, r.dead); err != nil {
			return err
		}
	}
	if r.sc.Mixed {
		err = r.upload(ctx, "bulk", r.sc.Recipients+r.sc.Dead, r.mixed)
	} else {
		err = r.upload(ctx, "bulk", r.sc.Recipients, r.healthy)
	}
	for k := 1; k < r.sc.Rounds && err == nil; k++ {
		id, address := r.round(k)
		err = r.upload(ctx, id, r.sc.Recipients, address)
	}
	if err != nil {
		return err
	}
	all := float64(r.sc.Recipients*max(r.sc.Rounds, 1) + r.sc.Dead)
	r.res.IngestPerSecond = all / time.Since(begin).Seconds()
	r.res.IngestPeakMB = status(r.node.pid(), "VmHWM")
	if err := r.node.stop(); err != nil {
		return fmt.Errorf("stopping the node: %w", err)
	}
	r.res.DiskPerRow = float64(diskUse(r.dir)) / all
	logf("filled: %.0f recipients/s, peak %.0f MB, %.0f B of disk each", r.res.IngestPerSecond, r.res.IngestPeakMB, r.res.DiskPerRow)
	if r.sc.store != "" {
		if err := os.CopyFS(r.sc.store, os.DirFS(filepath.Join(r.dir, "data"))); err != nil {
			return err
		}
	}
	r.node, err = start(r.dir)
	return err
}

// refill takes the store that an earlier run filled, if there is one.
func (r *rig) refill() (bool, error) {
	if _, err := os.Stat(r.sc.store); r.sc.store == "" || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	data := filepath.Join(r.dir, "data")
	err := os.CopyFS(data, os.DirFS(r.sc.store))
	if err == nil {
		r.res.DiskPerRow = float64(diskUse(data)) / float64(r.sc.Recipients+r.sc.Dead)
		r.node, err = start(r.dir)
	}
	return true, err
}

func (r *rig) healthy(i int) string { return fmt.Sprintf("u%d@r%d.test", i, i%r.sc.Domains) }
func (r *rig) dead(i int) string    { return fmt.Sprintf("u%d@x%d.test", i, i) }

// mixed has every dead domain before or between the healthy ones.
func (r *rig) mixed(i int) string {
	if i < r.sc.Dead {
		return r.dead(i)
	}
	return r.healthy(i - r.sc.Dead)
}

func (r *rig) campaigns() veredusv1.CampaignServiceClient {
	return veredusv1.NewCampaignServiceClient(r.node.conn)
}

// upload makes a delivery of n recipients, prepared.
func (r *rig) upload(ctx context.Context, id string, n int, address func(int) string) error {
	_, err := r.campaigns().CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: &veredusv1.Delivery{
		Sender: &veredusv1.Sender{From: "news@brand.example"},
		Content: &veredusv1.Content{
			Subject: "News for {{ name }}", Text: "Dear {{ name }},\n\n" + strings.Repeat("The posting stations kept fresh horses for the courier.\n", 30),
		},
	}})
	if err != nil {
		return err
	}
	last := time.Now()
	up := client.Uploader{Client: r.campaigns(), Delivery: "deliveries/" + id, Progress: func(p client.Progress) {
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			logf("%s: %d recipients durable, RSS %.0f MB", id, p.Durable, status(r.node.pid(), "VmRSS"))
		}
	}}
	_, err = up.Upload(ctx, func(first int64) iter.Seq2[*veredusv1.Recipient, error] {
		return func(yield func(*veredusv1.Recipient, error) bool) {
			for i := int(first) - 1; i < n; i++ {
				if !yield(&veredusv1.Recipient{Address: address(i), Variables: fmt.Appendf(nil, `{"name":"Julia %d"}`, i)}, nil) {
					return
				}
			}
		}
	})
	if err != nil {
		return err
	}
	prepared, err := r.campaigns().PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: "deliveries/" + id})
	if err != nil {
		return err
	}
	if prepared.GetDelivery().GetState() != veredusv1.DeliveryState_DELIVERY_STATE_PREPARED {
		return fmt.Errorf("not prepared: %v", prepared.GetFindings())
	}
	return nil
}

// start starts a delivery and answers how long that and its first message took.
func (r *rig) startDelivery(ctx context.Context, id string) error {
	_, err := r.campaigns().StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: "deliveries/" + id})
	return err
}

// send measures the start, throughput and memory.
func (r *rig) send(ctx context.Context) error {
	if r.sc.Dead > 0 && !r.sc.Mixed {
		if err := r.startDelivery(ctx, "dead"); err != nil {
			return err
		}
	}
	if err := r.follow(ctx); err != nil {
		return err
	}
	first := r.sink.awaitFirst()
	begin := time.Now()
	if err := r.startDelivery(ctx, "bulk"); err != nil {
		return err
	}
	at, err := await(ctx, first)
	if err != nil {
		return err
	}
	r.res.ToFirst = at.Sub(begin).Seconds()
	logf("first message after %.2f s", r.res.ToFirst)
	if r.sc.Rounds > 1 {
		if err := r.inTurn(ctx); err != nil {
			return err
		}
	} else if r.sc.Recipients <= 100_000 {
		logf("up to 100,000 recipients are sent to the end: -for, -warm, -fair and -restart have no effect")
		r.drain(ctx, at)
	} else if err := r.measure(ctx); err != nil {
		return err
	}
	r.res.PeakMB = status(r.node.pid(), "VmHWM")
	r.res.SendingMB = status(r.node.pid(), "VmRSS")
	r.res.DNSQuestions, r.res.SinkSessions = r.names.asked.Load(), r.sink.open.Load()
	return r.readers.end()
}

func await(ctx context.Context, first <-chan time.Time) (time.Time, error) {
	select {
	case at := <-first:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	case <-time.After(2 * time.Minute):
		return time.Time{}, errors.New("no message came within two minutes")
	}
}

// windows is into how many parts a measurement is divided.
const windows = 10

// measure counts what goes out over a fixed time.
func (r *rig) measure(ctx context.Context) error {
	if !pause(ctx, r.sc.Warm) {
		return ctx.Err()
	}
	fair := r.fairness(ctx)
	watch := r.node.watch()
	before, used, begin := r.sink.taken.Load(), cpuTime(r.node.pid()), time.Now()
	r.readers.begin()
	err := r.node.profile(r.sc.profile, func() {
		last := before
		for range windows {
			pause(ctx, r.sc.For/windows)
			now := r.sink.taken.Load()
			r.res.Spread = append(r.res.Spread, now-last)
			logf("%d messages, %d connections, RSS %.0f MB, %d DNS questions", now-last, r.sink.open.Load(), status(r.node.pid(), "VmRSS"), r.names.asked.Load())
			last = now
		}
		r.res.Most = watch()
		sent := float64(last - before)
		r.readers.pause()
		r.res.PerSecond = sent / time.Since(begin).Seconds()
		r.res.CPUPerThousand = (cpuTime(r.node.pid()) - used).Seconds() / sent * 1000
	})
	return errors.Join(err, fair())
}

// drain takes the time of a small backlog between its first and its last twentieth.
func (r *rig) drain(ctx context.Context, begin time.Time) {
	n := int64(r.sc.Recipients)
	low, high := n/20, n-n/20
	var from, to time.Time
	var used time.Duration
	for ctx.Err() == nil && time.Since(begin) < 10*time.Minute {
		taken := r.sink.taken.Load()
		if from.IsZero() && taken >= low {
			low, from, used = taken, time.Now(), cpuTime(r.node.pid())
			r.readers.begin()
		}
		if taken >= high {
			high, to = taken, time.Now()
			r.readers.pause()
			break
		}
		pause(ctx, 2*time.Millisecond)
	}
	sent := float64(high - low)
	r.res.PerSecond = sent / to.Sub(from).Seconds()
	r.res.CPUPerThousand = (cpuTime(r.node.pid()) - used).Seconds() / sent * 1000
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// restart kills the node and measures until mail flows again.
func (r *rig) restart(ctx context.Context) (err error) {
	if !r.sc.Restart || r.sc.Recipients <= 100_000 || r.sc.Rounds > 1 {
		return nil
	}
	if err := r.node.kill(); err != nil {
		return err
	}
	pause(ctx, 500*time.Millisecond) // what is on the wire
	first := r.sink.awaitFirst()
	begin := time.Now()
	if r.node, err = start(r.dir); err != nil {
		return err
	}
	at, err := await(ctx, first)
	if err != nil {
		return err
	}
	r.res.RestartToFirst = at.Sub(begin).Seconds()
	logf("first message %.2f s after the restart", r.res.RestartToFirst)
	pause(ctx, 10*time.Second)
	r.res.RestartPeakMB = status(r.node.pid(), "VmHWM")
	return nil
}

// latencies are percentiles in seconds.
type latencies struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func latenciesOf(list []time.Duration) *latencies {
	if len(list) == 0 {
		return nil
	}
	slices.Sort(list)
	at := func(q float64) float64 { return list[int(q*float64(len(list)-1))].Seconds() }
	return &latencies{Count: len(list), P50: at(.5), P99: at(.99), Max: at(1)}
}
