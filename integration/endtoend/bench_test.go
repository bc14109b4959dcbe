// Package endtoend measures the whole way: recipients streamed in over gRPC,
// composed, signed with RSA-2048, sent over loopback TCP to receivers in a process of
// their own, settled durably.
package endtoend

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server"
	"github.com/veredus/veredus/server/config"
)

// BenchmarkDelivery sends b.N mails of 10 KB; run it with -benchtime=20000x. Client and
// node share the process whose CPU is reported; the receivers do not.
func BenchmarkDelivery(b *testing.B) {
	dir := b.TempDir()
	sink := startReceivers(b, dir)
	conn := startNode(b, dir, sink)
	campaigns := veredusv1.NewCampaignServiceClient(conn)
	create(b, campaigns)
	people := recipients(b.N)
	before := cpu(b)
	b.ResetTimer()
	begin := time.Now()
	up := &client.Uploader{Client: campaigns, Delivery: name}
	if _, err := up.Upload(b.Context(), client.Slice(people)); err != nil {
		b.Fatal(err)
	}
	uploaded := time.Since(begin)
	if _, err := campaigns.PrepareDelivery(b.Context(), &veredusv1.PrepareDeliveryRequest{Name: name}); err != nil {
		b.Fatal(err)
	}
	if _, err := campaigns.StartDelivery(b.Context(), &veredusv1.StartDeliveryRequest{Name: name}); err != nil {
		b.Fatal(err)
	}
	awaitFinished(b, campaigns)
	took := time.Since(begin)
	b.StopTimer()
	used := cpu(b) - before
	b.ReportMetric(float64(b.N)/took.Seconds(), "messages/s")
	b.ReportMetric(used.Seconds()*1000/float64(b.N), "CPU-s/1000")
	b.ReportMetric(float64(b.N)/uploaded.Seconds(), "recipients/s")
	checkLedger(b, sink, b.N)
}

const name = "deliveries/bench"

type endpoints struct {
	DNS      string `json:"dns"`
	SMTPPort int    `json:"smtp_port"`
	Control  string `json:"control"`
}

func startReceivers(b *testing.B, dir string) endpoints {
	binary := filepath.Join(dir, "veredus")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/veredus/veredus/cmd/veredus").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "receivers", "--world", "open", "--control", "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var e endpoints
	if err := json.Unmarshal(line, &e); err != nil {
		b.Fatalf("receivers printed %q: %v", line, err)
	}
	return e
}

func startNode(b *testing.B, dir string, sink endpoints) *grpc.ClientConn {
	writeKey(b, dir, sink)
	rules := "rules:\n  - id: everyone\n    connections: 20\n    connection_rate: unlimited\n    message_rate: unlimited\n    messages_per_connection: 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "mx.yaml"), []byte(rules), 0o600); err != nil {
		b.Fatal(err)
	}
	text := fmt.Sprintf(`data_dir: data
http: {listen: ""}
dns: {server: %q}
relay:
  hostname: mta.brand.example
  smtp_port: %d
  mode: live
  allow_private_addresses: true
  pools:
    default:
      sources: [{name: s1, address: 127.0.0.1, hostname: mta.brand.example}]
dkim:
  domains: [{domain: brand.example, selector: s1, key_file: key.pem}]
mx_rules: mx.yaml
`, sink.DNS, sink.SMTPPort)
	cfg, err := config.Parse(filepath.Join(dir, "veredus.yaml"), []byte(text))
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s, err := server.New(cfg, server.Options{GRPC: l})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Stop(context.Background()) })
	conn, err := client.Dial(l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// writeKey makes a key and publishes its record in the receivers' DNS.
func writeKey(b *testing.B, dir string, sink endpoints) {
	signer, err := dkim.GenerateRSA(2048)
	if err != nil {
		b.Fatal(err)
	}
	data, err := dkim.MarshalPEM(signer)
	if err != nil {
		b.Fatal(err)
	}
	if err := dkim.WriteKeyFile(filepath.Join(dir, "key.pem"), data); err != nil {
		b.Fatal(err)
	}
	key, err := dkim.NewKey("brand.example", "s1", signer)
	if err != nil {
		b.Fatal(err)
	}
	body, _ := json.Marshal(map[string]string{"name": dkim.RecordName(key), "value": dkim.Record(key)})
	resp, err := http.Post(sink.Control+"/txt", "application/json", strings.NewReader(string(body)))
	if err != nil || resp.StatusCode/100 != 2 {
		b.Fatalf("publishing the key: %v %v", resp, err)
	}
}

// create makes a delivery of 10 KB mails in two parts with a few variables.
func create(b *testing.B, campaigns veredusv1.CampaignServiceClient) {
	paragraph := strings.Repeat("The posting stations of the cursus publicus kept fresh horses for the courier. ", 5)
	text := "Dear {{ first_name }},\n\n" + strings.Repeat(paragraph+"\n\n", 9) + "Greetings to {{ city }}\n"
	html := "<html><body><p>Dear {{ first_name }},</p>" + strings.Repeat("<p>"+paragraph+"</p>\n", 12) + "<p>Greetings to {{ city }}</p></body></html>"
	_, err := campaigns.CreateDelivery(b.Context(), &veredusv1.CreateDeliveryRequest{
		DeliveryId: "bench",
		Delivery: &veredusv1.Delivery{
			Sender:  &veredusv1.Sender{From: "news@brand.example", DisplayName: "Brand"},
			Content: &veredusv1.Content{Subject: "News for {{ first_name }}", Text: text, Html: html},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
}

func recipients(n int) (list []*veredusv1.Recipient) {
	for p := range world.Recipients(world.Open(), n, 1) {
		list = append(list, &veredusv1.Recipient{
			Address:   p.Address,
			Variables: fmt.Appendf(nil, `{"first_name":"Julia","city":"Lugdunum","points":%d}`, len(list)),
		})
	}
	return list
}

func awaitFinished(b *testing.B, campaigns veredusv1.CampaignServiceClient) {
	stream, err := campaigns.WatchDelivery(b.Context(), &veredusv1.WatchDeliveryRequest{Name: name})
	if err != nil {
		b.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// checkLedger makes sure that what was measured was delivered, once and signed.
func checkLedger(b *testing.B, sink endpoints, want int) {
	resp, err := http.Get(sink.Control + "/ledger")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var ledger struct {
		Unique       int64 `json:"unique"`
		Duplicates   int64 `json:"duplicates"`
		DKIMVerified int64 `json:"dkim_verified"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&ledger); err != nil {
		b.Fatal(err)
	}
	if ledger.Unique != int64(want) || ledger.Duplicates != 0 || ledger.DKIMVerified != int64(want) {
		b.Errorf("receivers' ledger %+v, want %d messages", ledger, want)
	}
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
