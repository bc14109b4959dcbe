package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// node is the program under test, `veredus serve`, on one data directory for all its lives.
type node struct {
	binary, dir string
	addr        string // of gRPC, the same in every life
	log         *os.File

	cmd  *exec.Cmd // nil while dead
	conn *grpc.ClientConn
	over chan error // gets the process's end
}

// build makes the program from the source around.
func build(dir string) (binary string, err error) {
	binary = filepath.Join(dir, "veredus")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/veredus/veredus/cmd/veredus").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// newNode makes a directory with all that a node needs, for receivers that a DNS server
// leads to.
func newNode(dir, dns string, port int, seed uint64) (*node, error) {
	binary, err := build(dir)
	if err != nil {
		return nil, err
	}
	n := &node{binary: binary, dir: dir}
	if n.addr, err = freeAddress(); err != nil {
		return nil, err
	}
	signer, err := dkim.GenerateRSA(1024) // what is tested is not the cipher
	if err != nil {
		return nil, err
	}
	pem, err := dkim.MarshalPEM(signer)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`# seed %d
data_dir: data
grpc: {listen: %q}
http: {listen: ""}
dns: {server: %q}
relay: {hostname: mta.brand.example, smtp_port: %d}
dkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}
mx_rules: mx.yaml
storage: {min_free: 0, min_free_sending: 0}
sandbox: {time_scale: %d}
protection: {enabled: false}
`, seed, n.addr, dns, port, timeScale)
	err = errors.Join(dkim.WriteKeyFile(n.path("key.pem"), pem), os.WriteFile(n.path("veredus.yaml"), []byte(text), 0o600), n.writeRules(20))
	if err != nil {
		return nil, err
	}
	n.log, err = os.Create(n.path("node.log"))
	return n, err
}

// timeScale makes retries come after seconds: the first after 4 s.
const timeScale = 300

// writeRules replaces the MX rules at one stroke, as an editor does.
func (n *node) writeRules(connections int) error {
	text := fmt.Sprintf(`rules:
  - id: everyone
    connections: %d
    connection_rate: unlimited
    message_rate: unlimited
    messages_per_connection: 500
    connect_timeout: 2s
    command_timeout: 2s
    data_timeout: 2s
    final_dot_timeout: 3s
`, connections)
	if err := os.WriteFile(n.path("mx.yaml.new"), []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(n.path("mx.yaml.new"), n.path("mx.yaml"))
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// freeAddress finds a port that the node can have again in each of its lives.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start begins a life.
func (n *node) start() error {
	cmd := exec.Command(n.binary, "serve", "--config", n.path("veredus.yaml"))
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	conn, err := client.Dial(n.addr, grpc.WithConnectParams(quick))
	if err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	n.cmd, n.conn, n.over = cmd, conn, over
	return nil
}

// await waits until the node answers.
func (n *node) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := n.campaigns().ListDeliveries(ctx, &veredusv1.ListDeliveriesRequest{PageSize: 1}, grpc.WaitForReady(true))
		if err == nil {
			return nil
		}
		select {
		case end := <-n.over:
			n.over <- end
			return fmt.Errorf("the node ended instead of starting: %v\n%s", end, n.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("the node does not answer: %w\n%s", err, n.lastWords())
		default:
		}
	}
}

// kill ends a life by SIGKILL; ended says that it had ended before, and how.
func (n *node) kill() (ended bool, how error) {
	if n.cmd == nil {
		return true, nil
	}
	select {
	case how = <-n.over:
		ended = true
	default:
		_ = n.cmd.Process.Kill()
		<-n.over
	}
	_ = n.conn.Close()
	n.cmd = nil
	return ended, how
}

// signal tells the process something.
func (n *node) signal(s os.Signal) { _ = n.cmd.Process.Signal(s) }

func (n *node) campaigns() veredusv1.CampaignServiceClient {
	return veredusv1.NewCampaignServiceClient(n.conn)
}

// lastWords is the end of the node's log.
func (n *node) lastWords() string {
	content, _ := os.ReadFile(n.log.Name())
	lines := strings.Split(string(content), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// panics reports what no log may hold.
func (n *node) panics() error {
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

// tables are the names of the store's table files.
func (n *node) tables() map[string]bool {
	names, _ := filepath.Glob(n.path("data/*.sst"))
	more, _ := filepath.Glob(n.path("data/*/*.sst"))
	set := map[string]bool{}
	for _, name := range append(names, more...) {
		set[name] = true
	}
	return set
}

// claims counts, by Message-ID, how often restarts listed it as claimed and unsettled.
func (n *node) claims() (listed map[string]int, err error) {
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
