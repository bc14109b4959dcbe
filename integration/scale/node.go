package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/proto/client"
	"github.com/veredus/veredus/server"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/heap"
)

// nodeRole is the first argument of the process that is the node.
const nodeRole = "node"

// listening is what the node prints before its addresses: gRPC and HTTP.
const listening = "listening "

// runNode serves until SIGTERM. SIGUSR1 begins a CPU profile and SIGUSR2 ends it and
// writes one of the heap, both into the directory of the configuration.
func runNode(file string) error {
	heap.Calm() // as `veredus serve` does
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2) // as well
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.New(cfg, server.Options{GRPC: l, HTTP: web, Log: log, Grace: 5 * time.Second})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := s.Start(ctx); err != nil {
		return err
	}
	go profiles(filepath.Dir(file))
	fmt.Println(listening + l.Addr().String() + " " + web.Addr().String())
	<-ctx.Done()
	return s.Stop(context.Background())
}

func profiles(dir string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	var file *os.File
	for sig := range signals {
		if sig == syscall.SIGUSR1 {
			file, _ = os.Create(filepath.Join(dir, "cpu.pprof"))
			_ = pprof.StartCPUProfile(file)
			continue
		}
		pprof.StopCPUProfile()
		_ = file.Close()
		file, err := os.Create(filepath.Join(dir, "heap.part"))
		if err == nil {
			runtime.GC()
			_ = pprof.WriteHeapProfile(file)
			_ = file.Close()
			_ = os.Rename(file.Name(), filepath.Join(dir, "heap.pprof"))
		}
	}
}

// node is the node's process as the measurement sees it.
type node struct {
	cmd  *exec.Cmd
	conn *grpc.ClientConn
	addr string
	web  string // of the metrics
	dir  string
}

// start starts the process and waits until it takes calls.
func start(dir string) (*node, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, nodeRole, filepath.Join(dir, "node.yaml"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n := &node{cmd: cmd, dir: dir}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the node did not start: %w", err), n.kill())
	}
	n.addr, n.web, _ = strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, listening)), " ")
	n.conn, err = client.Dial(n.addr)
	if err != nil {
		return nil, errors.Join(err, n.kill())
	}
	return n, nil
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// kill ends the process as a power switch would.
func (n *node) kill() error {
	if n.conn != nil {
		_ = n.conn.Close()
	}
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
	return nil
}

// stop ends the process gracefully.
func (n *node) stop() error {
	_ = n.conn.Close()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	return n.cmd.Wait()
}

// profile writes profiles of the node while f runs.
func (n *node) profile(to string, f func()) error {
	if to == "" {
		f()
		return nil
	}
	_ = n.cmd.Process.Signal(syscall.SIGUSR1)
	f()
	_ = n.cmd.Process.Signal(syscall.SIGUSR2)
	if err := awaitFile(filepath.Join(n.dir, "heap.pprof")); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"cpu.pprof", "heap.pprof"} {
		data, err := os.ReadFile(filepath.Join(n.dir, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// awaitFile waits until a file is there.
func awaitFile(name string) error {
	for range 600 {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s was not written within a minute", name)
}

// writeConfig makes the node's files: a key, MX rules without limits but for
// connections, and the configuration.
func writeConfig(sc scenario, dir string, dns string, port int) error {
	signer, err := dkim.GenerateRSA(sc.RSA)
	if err != nil {
		return err
	}
	pem, err := dkim.MarshalPEM(signer)
	if err != nil {
		return err
	}
	if err := dkim.WriteKeyFile(filepath.Join(dir, "key.pem"), pem); err != nil {
		return err
	}
	rules := fmt.Sprintf("rules:\n  - id: everyone\n    connections: %d\n    connection_rate: unlimited\n    message_rate: unlimited\n    messages_per_connection: 1000\n", sc.Connections)
	if err := os.WriteFile(filepath.Join(dir, "mx.yaml"), []byte(rules), 0o600); err != nil {
		return err
	}
	text := fmt.Sprintf(`data_dir: data
http: {listen: ""}
dns: {server: %q}
relay:
  hostname: mta.brand.example
  smtp_port: %d
  mode: live
  allow_private_addresses: true
  max_sessions: %d
  pools:
    default:
      sources: [{name: s1, address: 127.0.0.1, hostname: mta.brand.example}]
dkim:
  domains: [{domain: brand.example, selector: s1, key_file: key.pem}]
mx_rules: mx.yaml
protection: {enabled: false}
`, dns, port, sc.Sessions)
	return os.WriteFile(filepath.Join(dir, "node.yaml"), []byte(text), 0o600)
}
