// Package node runs the program under test, `veredus serve` in sandbox mode, as a process of
// its own on a data directory that outlives it: to be killed, watched and measured.
package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Options of a node.
type Options struct {
	// Dir is an existing directory for the program, its configuration, log and data.
	Dir string
	// DNS leads to the receivers, all on SMTPPort.
	DNS      string
	SMTPPort int
	// TimeScale divides retry and validity periods; 1 or more.
	TimeScale int
	// Rules are the MX rules, as YAML; see Rules.
	Rules string
}

// Node is the program. It belongs to one goroutine; only Figures may be called from others.
type Node struct {
	opt    Options
	binary string
	addr   string // of gRPC, the same in every life
	web    string // of HTTP
	log    *os.File

	cmd  *exec.Cmd // nil while dead
	conn *grpc.ClientConn
	over chan error // gets the process's end
}

// Domain is the From domain that the node has a key for.
const Domain = "brand.example"

// New builds the program from the source around, and makes all that it needs.
func New(opt Options) (*Node, error) {
	n := &Node{opt: opt, binary: filepath.Join(opt.Dir, "veredus")}
	out, err := exec.Command("go", "build", "-o", n.binary, "github.com/veredus/veredus/cmd/veredus").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if n.addr, err = FreeAddress(); err != nil {
		return nil, err
	}
	if n.web, err = FreeAddress(); err != nil {
		return nil, err
	}
	if err := errors.Join(n.writeKey(), n.writeConfig(), n.WriteRules(opt.Rules)); err != nil {
		return nil, err
	}
	n.log, err = os.Create(n.path("node.log"))
	return n, err
}

func (n *Node) path(name string) string { return filepath.Join(n.opt.Dir, name) }

func (n *Node) writeKey() error {
	signer, err := dkim.GenerateRSA(1024) // what is tested is not the cipher
	if err != nil {
		return err
	}
	pem, err := dkim.MarshalPEM(signer)
	if err != nil {
		return err
	}
	return dkim.WriteKeyFile(n.path("key.pem"), pem)
}

func (n *Node) writeConfig() error {
	text := fmt.Sprintf(`data_dir: data
grpc: {listen: %q}
http: {listen: %q}
dns: {server: %q}
relay: {hostname: mta.%s, smtp_port: %d}
dkim: {domains: [{domain: %s, selector: s1, key_file: key.pem}]}
mx_rules: mx.yaml
storage: {min_free: 0, min_free_sending: 0}
sandbox: {time_scale: %d}
protection: {enabled: false}
`, n.addr, n.web, n.opt.DNS, Domain, n.opt.SMTPPort, Domain, n.opt.TimeScale)
	return os.WriteFile(n.path("veredus.yaml"), []byte(text), 0o600)
}

// Rules are MX rules without limits but for connections. patience is every timeout; short ones
// make rounds short, longer ones bear a busy machine.
func Rules(connections int, patience time.Duration) string {
	return fmt.Sprintf(`rules:
  - id: everyone
    connections: %d
    connection_rate: unlimited
    message_rate: unlimited
    messages_per_connection: 500
    connect_timeout: %[2]s
    command_timeout: %[2]s
    data_timeout: %[2]s
    final_dot_timeout: %[2]s
`, connections, patience)
}

// WriteRules replaces the MX rules at one stroke, as an editor does; SIGHUP makes the
// node read them.
func (n *Node) WriteRules(text string) error {
	if err := os.WriteFile(n.path("mx.yaml.new"), []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(n.path("mx.yaml.new"), n.path("mx.yaml"))
}

// FreeAddress finds a port that a process under test can have now, and again in each of its
// lives. The port is one of a loopback address that this process has for itself: at 127.0.0.1
// any other process could take it meanwhile, and a client that dials it could get it as the
// port of its own end.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(ownLoopback(os.Getpid()), "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ownLoopback is an address from 127.128.0.0 on for each process; Linux has numbers of 22 bits
// for them at most.
func ownLoopback(pid int) string {
	return fmt.Sprintf("127.%d.%d.%d", 128|pid>>16&63, pid>>8&255, pid&255)
}

// quick makes a client try again at once: the node is dead for milliseconds.
var quick = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond},
	MinConnectTimeout: time.Second,
}

// Start begins a life; see Await.
func (n *Node) Start() error {
	cmd := exec.Command(n.binary, "serve", "--config", n.path("veredus.yaml"))
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	conn, err := client.Dial(n.addr, grpc.WithConnectParams(quick))
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	n.cmd, n.conn, n.over = cmd, conn, over
	return nil
}

// Await waits until the node answers, for five minutes at most.
func (n *Node) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		_, err := n.Campaigns().ListDeliveries(ctx, &veredusv1.ListDeliveriesRequest{PageSize: 1}, grpc.WaitForReady(true))
		if err == nil {
			return nil
		}
		select {
		case end := <-n.over:
			n.over <- end
			return fmt.Errorf("the node ended instead of starting: %v\n%s", end, n.LastWords())
		case <-ctx.Done():
			return fmt.Errorf("the node does not answer: %w\n%s", err, n.LastWords())
		default:
		}
	}
}

// Kill ends a life by SIGKILL; ended says that it had ended before, and how.
func (n *Node) Kill() (ended bool, how error) {
	if n.cmd == nil {
		return true, nil
	}
	select {
	case how = <-n.over:
		ended = true
	default:
		_ = n.cmd.Process.Kill() // it may have ended just now, which is as good
		<-n.over
	}
	_ = n.conn.Close()
	n.cmd = nil
	return ended, how
}

// Stop ends a life by SIGTERM and waits for it.
func (n *Node) Stop() error {
	n.Signal(syscall.SIGTERM)
	err := <-n.over
	_ = n.conn.Close()
	n.cmd = nil
	return err
}

// Close kills the node if it lives, and closes its log.
func (n *Node) Close() error {
	_, _ = n.Kill()
	return n.log.Close()
}

// Signal tells the process something.
func (n *Node) Signal(s os.Signal) { _ = n.cmd.Process.Signal(s) }

// Conn is the client's connection in this life.
func (n *Node) Conn() *grpc.ClientConn { return n.conn }

// Campaigns is the campaign service in this life.
func (n *Node) Campaigns() veredusv1.CampaignServiceClient {
	return veredusv1.NewCampaignServiceClient(n.conn)
}

// LastWords is the end of the node's log.
func (n *Node) LastWords() string {
	content, _ := os.ReadFile(n.log.Name())
	lines := strings.Split(string(content), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// Panics reports what no log may hold.
func (n *Node) Panics() error {
	content, err := os.ReadFile(n.log.Name())
	if err != nil {
		return err
	}
	for _, sign := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if at := bytes.Index(content, []byte(sign)); at >= 0 {
			return fmt.Errorf("the node's log says %q", content[at:min(at+2000, len(content))])
		}
	}
	return nil
}

// Tables are the names of the store's table files.
func (n *Node) Tables() map[string]bool {
	names, _ := filepath.Glob(n.path("data/store/*.sst")) // the pattern is good
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

// Claims counts, by Message-ID, how often restarts listed it as claimed and unsettled.
func (n *Node) Claims() (listed map[string]int, err error) {
	listed = map[string]int{}
	content, err := os.ReadFile(n.path("data/claimed-unsettled.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		return listed, nil
	}
	for line := range bytes.Lines(content) {
		var l struct {
			MessageID string `json:"message_id"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("claimed-unsettled.jsonl: %w", err)
		}
		listed[l.MessageID]++
	}
	return listed, err
}

// Figures are what the process takes of the machine.
type Figures struct {
	Resident, Heap          float64 // MiB; Heap is what Go's heap has in use
	Goroutines, Descriptors int
}

// Figures reads them now.
func (n *Node) Figures() (f Figures, err error) {
	resp, err := http.Get("http://" + n.web + "/metrics")
	if err != nil {
		return f, err
	}
	defer resp.Body.Close()
	const MiB = 1 << 20
	found := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		found++
		switch name {
		case "process_resident_memory_bytes":
			f.Resident = value / MiB
		case "go_memstats_heap_inuse_bytes":
			f.Heap = value / MiB
		case "go_goroutines":
			f.Goroutines = int(value)
		case "process_open_fds":
			f.Descriptors = int(value)
		default:
			found--
		}
	}
	if found != 4 {
		return f, fmt.Errorf("/metrics has %d of 4 figures", found)
	}
	return f, nil
}
