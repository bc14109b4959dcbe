//go:build linux

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"

	"google.golang.org/grpc"

	"google.golang.org/protobuf/types/known/durationpb"

	processes "github.com/veredus/veredus/integration/node"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

//go:embed veredus.yaml
var relayConfig string

//go:embed rules.yaml
var relayRules string

// build makes the binary that is measured.
func (b *bench) build(ctx context.Context) error {
	b.binary = filepath.Join(b.dir, "veredus")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/veredus/veredus/cmd/veredus").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// write fills in a configuration.
func write(path, text string, with any) error {
	t, err := template.New(filepath.Base(path)).Option("missingkey=error").Parse(text)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, with), f.Close())
}

// node is the relay under measurement, with the client's end of its line.
type node struct {
	*process
	conn      *grpc.ClientConn
	campaigns veredusv1.CampaignServiceClient
}

func (b *bench) startNode(name, dir string, k *key, s *sink, profile string) (*node, error) {
	at, err := processes.FreeAddress()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "veredus.yaml")
	err = errors.Join(
		write(conf, relayConfig, map[string]string{
			"Dir": dir, "GRPC": at, "Sink": s.addr, "Domain": fromDomain, "Selector": selector, "Key": k.file,
		}),
		write(filepath.Join(dir, "rules.yaml"), relayRules, map[string]int{"PerDomain": max(1, b.sessions/domains)}),
	)
	if err != nil {
		return nil, err
	}
	binary, args, err := b.command(name, conf, profile)
	if err != nil {
		return nil, err
	}
	p, err := start("the relay", filepath.Join(dir, "veredus.log"), exec.Command(binary, args...))
	if err != nil {
		return nil, err
	}
	if err := p.awaitPort(at); err != nil {
		p.kill()
		return nil, err
	}
	conn, err := client.Dial(at)
	if err != nil {
		p.kill()
		return nil, err
	}
	n := &node{process: p, conn: conn, campaigns: veredusv1.NewCampaignServiceClient(conn)}
	if err := n.await(); err != nil {
		n.kill()
		return nil, err
	}
	return n, nil
}

// await waits until the node answers: it listens before it has opened its store.
func (n *node) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), portPatience)
	defer cancel()
	_, err := n.campaigns.ListDeliveries(ctx, &veredusv1.ListDeliveriesRequest{PageSize: 1}, grpc.WaitForReady(true))
	return err
}

// command is how the relay of a case is run.
func (b *bench) command(name, conf, profile string) (binary string, args []string, err error) {
	binary, args = b.binary, []string{"serve", "--config", conf}
	if name == caseUnsigned {
		binary, err = os.Executable()
		args[0] = "node"
	}
	if profile != "" {
		args = append(args, "--cpuprofile", profile)
	}
	return binary, args, err
}

func (n *node) kill() {
	_ = n.conn.Close()
	n.process.kill()
}

// runRelay measures the relay: from the first byte of AddRecipients until the node says
// that the delivery is finished, which it is when the last outcome is durable.
func (b *bench) runRelay(ctx context.Context, name, dir string, k *key, s *sink, number int) (r *result, err error) {
	profile := ""
	if b.profile != "" {
		profile = filepath.Join(b.profile, fmt.Sprintf("%s-%d.pprof", name, number))
	}
	n, err := b.startNode(name, dir, k, s, profile)
	if err != nil {
		return nil, err
	}
	defer func() {
		n.kill()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, n.said())
		}
	}()
	const id = "bench"
	if _, err := n.campaigns.CreateDelivery(ctx, delivery(id)); err != nil {
		return nil, err
	}
	people := recipients(b.messages)
	acks := newAcks(b.messages)
	var feedback *follower
	if b.feedback {
		if feedback, err = n.follow(ctx, b.messages); err != nil {
			return nil, err
		}
	}
	watch, err := startWatch(s.pid(), n.pid())
	if err != nil {
		return nil, err
	}
	if err := n.send(ctx, "deliveries/"+id, people, acks, watch); err != nil {
		return nil, err
	}
	probes := startProbes(ctx, b.messages, n.sendSingle)
	if err := errors.Join(n.finished(ctx, "deliveries/"+id), probes.stop()); err != nil {
		return nil, err
	}
	if r, err = watch.stop(name, b.messages); err != nil {
		return nil, err
	}
	if feedback != nil {
		if err := feedback.stop(ctx); err != nil {
			return nil, err
		}
	}
	if r.PeakBytes, err = peak(n.pid()); err != nil {
		return nil, err
	}
	r.DiskBytes = size(filepath.Join(dir, "data"))
	if err := s.wait(ctx, b.messages+len(probes.acked)); err != nil {
		return nil, err
	}
	if err := n.stop(time.Minute); err != nil {
		return nil, err
	}
	return r, s.judge(r, acks.at, probes.acked, feedback)
}

// send uploads, prepares and starts the delivery.
func (n *node) send(ctx context.Context, name string, people []*veredusv1.Recipient, acks *acks, w *watch) error {
	up := &client.Uploader{Client: n.campaigns, Delivery: name, Progress: acks.progress}
	totals, err := up.Upload(ctx, client.Slice(people))
	if err != nil {
		return err
	}
	w.fed = time.Now()
	if totals.Ignored+totals.Rejected != 0 || totals.Accepted != int64(len(people)) {
		return fmt.Errorf("of %d recipients %+v were taken", len(people), totals)
	}
	prepared, err := n.campaigns.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name})
	if err != nil {
		return err
	}
	for _, f := range prepared.GetFindings() {
		if f.GetSeverity() == veredusv1.Severity_SEVERITY_ERROR {
			return fmt.Errorf("preparing the delivery: %s", f.GetDescription())
		}
	}
	_, err = n.campaigns.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: name})
	return err
}

func (n *node) sendSingle(ctx context.Context, i int) error {
	_, err := n.campaigns.SendMessage(ctx, single(i))
	return err
}

// finished waits for the end of the delivery.
func (n *node) finished(ctx context.Context, name string) error {
	stream, err := n.campaigns.WatchDelivery(ctx, &veredusv1.WatchDeliveryRequest{Name: name, Interval: durationpb.New(watchEvery)})
	if err != nil {
		return err
	}
	for {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// watchEvery is how late the end may be noticed.
const watchEvery = 200 * time.Millisecond

// acks remembers when the node acknowledged each recipient.
type acks struct {
	at   []int64 // Unix nanoseconds by message
	done int64
}

func newAcks(n int) *acks { return &acks{at: make([]int64, n)} }

func (a *acks) progress(p client.Progress) {
	now := time.Now().UnixNano()
	for ; a.done < p.Durable && a.done < int64(len(a.at)); a.done++ {
		a.at[a.done] = now
	}
}

// size adds up the files of a directory.
func size(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
