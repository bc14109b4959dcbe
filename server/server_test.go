package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/dkim"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
)

// node is a server under test on loopback, with clients.
type node struct {
	*Server
	conn *grpc.ClientConn
	relayClient
	campaigns veredusv1.CampaignServiceClient
	feedback  veredusv1.FeedbackServiceClient
	web       string
}

type relayClient = veredusv1.RelayServiceClient

// sandbox is a configuration with free ports; its receivers' DNS answers nothing.
func sandbox(t *testing.T) *config.Config {
	t.Helper()
	return parse(t, t.TempDir(), "")
}

// parse reads a configuration in dir, with free ports and a silent DNS server.
func parse(t *testing.T, dir, yaml string) *config.Config {
	t.Helper()
	path := filepath.Join(dir, "veredus.yaml")
	write(t, path, yaml)
	return load(t, path)
}

func load(t *testing.T, path string) *config.Config {
	t.Helper()
	cfg, err := loadTest(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// loadTest is what a command does: it reads the file and adds what it brings itself.
func loadTest(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	cfg.GRPC.Listen, cfg.HTTP.Listen = "127.0.0.1:0", "127.0.0.1:0"
	if cfg.DNS.Server == "" {
		cfg.DNS.Server = "127.0.0.1:1" // nobody listens: every look-up fails at once
	}
	return cfg, nil
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// begin starts a server and stops it at the end of the test.
func begin(t *testing.T, cfg *config.Config, opts Options) *node {
	t.Helper()
	s, err := New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.opts.GRPC, s.opts.HTTP = g, h
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return connect(t, s, g.Addr().String(), "http://"+h.Addr().String(), insecure.NewCredentials())
}

func connect(t *testing.T, s *Server, addr, web string, creds credentials.TransportCredentials) *node {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &node{
		Server: s, conn: conn, relayClient: veredusv1.NewRelayServiceClient(conn),
		campaigns: veredusv1.NewCampaignServiceClient(conn), feedback: veredusv1.NewFeedbackServiceClient(conn), web: web,
	}
}

// get reads a page of the HTTP port.
func (n *node) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(n.web + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}

func TestANodeComesUpAndEndsGracefully(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	ctx := t.Context()

	for _, service := range []string{"", "veredus.v1.CampaignService", "veredus.v1.FeedbackService", "veredus.v1.RelayService"} {
		resp, err := healthv1.NewHealthClient(n.conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
		if err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, resp, err)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := n.get(t, path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, _ := n.get(t, "/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}

	// A follower learns of the end, with a reason to come back.
	stream, err := n.feedback.StreamFeedback(ctx, &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetToken() == "" {
		t.Fatalf("first answer: %v, %v", first, err)
	}
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantError(t, err, codes.Unavailable, "STOPPING")
	if n.isReady() == nil {
		t.Error("ready behind its end")
	}
	if err := n.Stop(ctx); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

func TestReflectionListsTheServices(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	stream, err := reflectionv1.NewServerReflectionClient(n.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{"veredus.v1.CampaignService", "veredus.v1.FeedbackService", "veredus.v1.RelayService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
	_ = stream.CloseSend()
}

func TestMetricsNameFewReceivers(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	_, err := n.GetDestination(t.Context(), &veredusv1.GetDestinationRequest{Name: "destinations/nowhere.example"})
	wantError(t, err, codes.NotFound, "NOT_FOUND")
	_, body := n.get(t, "/metrics")
	for _, want := range []string{
		`veredus_grpc_calls_total{code="NotFound",method="/veredus.v1.RelayService/GetDestination"} 1`,
		"veredus_config_version 1", `veredus_queue_messages{state="ready"} 0`, "veredus_sessions 0", "go_goroutines",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestRunObeysSignals(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(dir, "mx.yaml")
	write(t, rules, "rules: []\n")
	cfg := parse(t, dir, "mx_rules: mx.yaml\n")
	n := begin(t, cfg, Options{})
	signals, ended := make(chan os.Signal), make(chan error, 1)
	go func() { ended <- n.Run(context.Background(), signals) }()

	write(t, rules, "rules:\n  - id: new\n    match: {domain: a.example}\n    connections: 3\n")
	signals <- syscall.SIGHUP
	signals <- syscall.SIGHUP // taken once the first was handled
	if v := n.settings.Load().version; v != 2 {
		t.Errorf("version %d after a reload", v)
	}
	signals <- syscall.SIGTERM
	if err := <-ended; err != nil {
		t.Errorf("run ended with %v", err)
	}
}

func TestTheEndCanBeCutShort(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Stop(ctx); !errors.Is(err, ErrCutShort) {
		t.Errorf("stop: %v", err)
	}
}

func TestAFailedStoreEndsTheRun(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	n.fail(errors.New("disk on fire"))
	if err := n.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("run: %v", err)
	}
	if code, body := n.get(t, "/healthz"); code != http.StatusServiceUnavailable || strings.Contains(body, "fire") {
		t.Errorf("/healthz: %d %q", code, body)
	}
}

func TestTwoNodesCannotShareAStore(t *testing.T) {
	cfg := sandbox(t)
	begin(t, cfg, Options{})
	second, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "data_dir") {
		t.Errorf("second start: %v", err)
	}
}

func TestAStartThatFailsLetsGoOfItsPorts(t *testing.T) {
	cfg := sandbox(t)
	write(t, filepath.Join(filepath.Dir(cfg.File), "data"), "a file where a folder belongs")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, Options{GRPC: l})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Fatal("started")
	}
	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	_ = again.Close()
}

func TestANodeRunsInMemory(t *testing.T) {
	cfg := config.Default()
	cfg.DNS.Server = "127.0.0.1:1"
	n := begin(t, cfg, Options{FS: vfs.NewMem()})
	if _, err := n.ListSuspensions(t.Context(), &veredusv1.ListSuspensionsRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written to disk: %v", err)
	}
}

func TestTLSOnTheGRPCPort(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	cfg := parse(t, dir, "grpc: {tls: {cert: server.crt, key: server.key}}\n")
	plain := begin(t, cfg, Options{})
	_, err := plain.ListSuspensions(t.Context(), &veredusv1.ListSuspensionsRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("plaintext: %v", err)
	}
	addr := plain.conn.Target()
	secure := connect(t, plain.Server, addr, plain.web, credentials.NewClientTLSFromCert(pool, "localhost"))
	if _, err := secure.ListSuspensions(t.Context(), &veredusv1.ListSuspensionsRequest{}); err != nil {
		t.Errorf("tls: %v", err)
	}
}

// certificate writes a certificate for localhost with its key.
func certificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	cert, key := selfSigned(t)
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

// key writes a signing key and answers its path.
func key(t *testing.T, dir, name string) string {
	t.Helper()
	signer, err := dkim.GenerateRSA(2048)
	if err != nil {
		t.Fatal(err)
	}
	data, err := dkim.MarshalPEM(signer)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := dkim.WriteKeyFile(path, data); err != nil {
		t.Fatal(err)
	}
	return path
}
