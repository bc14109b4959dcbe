package serve_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/unsubscribe"
)

// effects is a Ledger and Links that remember what took effect.
type effects struct {
	keys *unsubscribe.Keys

	mu      sync.Mutex
	returns []inbound.Return
	claims  []unsubscribe.Claim
}

func (e *effects) Return(_ context.Context, r inbound.Return) (inbound.Effect, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.returns = append(e.returns, r)
	return inbound.Applied, nil
}

func (e *effects) Unsubscribe(_ context.Context, token string) (bool, error) {
	claim, err := e.keys.Open(token)
	if errors.Is(err, unsubscribe.ErrInvalid) {
		return false, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.claims = append(e.claims, claim)
	return err == nil, err
}

// listenInbound is a node's inbound listener in front of effects.
func listenInbound(t *testing.T, keys *returnpath.Keys, e *effects) (addr, unprocessed string) {
	t.Helper()
	unprocessed = t.TempDir()
	folder, err := inbound.OpenFolder(unprocessed, inbound.FolderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	classifier := inbound.NewClassifier(bounce.Default(), keys)
	s, err := inbound.NewServer(inbound.ServerOptions{
		Domains: func() []string { return []string{"bounce.sender.example"} }, Tokens: keys,
		Classifier: func() *inbound.Classifier { return classifier }, Ledger: e, Links: e, Unprocessed: folder,
	})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(socket) }()
	t.Cleanup(func() {
		_ = s.Close(context.Background())
		<-served
	})
	return socket.Addr().String(), unprocessed
}

// From the sender's message over SMTP to the receiver and back over SMTP to the
// sender's own listener: every kind of provider's mail has its effect.
func TestTheSendersListenerTakesWhatComesBack(t *testing.T) {
	links, err := unsubscribe.New(unsubscribe.Key{ID: 1, Secret: [32]byte{2}})
	if err != nil {
		t.Fatal(err)
	}
	keys, done := returnKeys(t), &effects{keys: links}
	addr, unprocessed := listenInbound(t, keys, done)
	fates := []world.Fate{world.FateOOBUnknown, world.FateOOBFull, world.FateComplaint, world.FateUnsubscribe, world.FateAutoReply}
	data := world.World{Name: "all", Magic: world.Magic{ReturnDelay: world.Duration(time.Millisecond)}}
	for i, dialect := range dialects {
		name := "d" + strconv.Itoa(i)
		data.Receivers = append(data.Receivers, world.Receiver{
			Name: name, Dialect: dialect, TLS: world.TLSOff,
			Domains: []world.Domain{{Name: name + ".example"}}, Hosts: []world.Host{{Name: "mx." + name + ".example"}},
		})
	}
	w, err := serve.Start(t.Context(), serve.Config{World: data, ReturnTo: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	recipients := map[uint64]string{}
	for i := range dialects {
		host := fmt.Sprintf("127.77.%d.1:%d", i+1, w.SMTPPort())
		for j, fate := range fates {
			order := uint64(100*i + j)
			to := fmt.Sprintf("%s+%d@d%d.example", fate, order, i)
			recipients[order] = to
			token := keys.Token(returnpath.Ref{Order: order, Delivery: 1})
			mailto := unsubscribe.Mailto("bounce.sender.example", links, unsubscribe.Claim{Address: to, Tenant: "default", Delivery: "d"})
			mail := "From: <news@sender.example>\r\nTo: <" + to + ">\r\nMessage-ID: <" + token + "@sender.example>\r\nSubject: Hello\r\n" +
				"List-Unsubscribe: <" + mailto + ">\r\n\r\nHello.\r\n"
			if err := smtp.SendMail(host, nil, token+"@bounce.sender.example", []string{to}, []byte(mail)); err != nil {
				t.Fatalf("%s: %v", to, err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := w.WaitReturns(ctx); err != nil {
		t.Fatal(err)
	}
	for _, fate := range fates {
		n := int64(len(dialects))
		if got := w.Ledger().Returns[fate]; got != (serve.ReturnCounts{Due: n, Sent: n, Accepted: n}) {
			t.Errorf("%s: %+v\n%s", fate, got, strings.Join(w.Ledger().ReturnFailures, "\n"))
		}
	}
	done.mu.Lock()
	defer done.mu.Unlock()
	want := map[string]inbound.ReturnKind{"oob-unknown": inbound.OutOfBandBounce, "oob-full": inbound.OutOfBandBounce, "complaint": inbound.Complaint}
	for _, r := range done.returns {
		to := recipients[r.Ref.Order]
		local, _, _ := strings.Cut(to, "+")
		if r.Kind != want[local] || r.Confirm && (len(r.Recipients) != 1 || r.Recipients[0] != to) {
			t.Errorf("%s: kind %d, names %v", to, r.Kind, r.Recipients)
		}
		if code := map[string]int{"oob-unknown": 10, "oob-full": 22}[local]; code != 0 && r.Verdict.Code != code {
			t.Errorf("%s: code %d by %s", to, r.Verdict.Code, r.Verdict.Rule)
		}
	}
	if len(done.returns) != 3*len(dialects) || len(done.claims) != len(dialects) {
		t.Errorf("%d returns and %d unsubscribes took effect, want %d and %d", len(done.returns), len(done.claims), 3*len(dialects), len(dialects))
	}
	if kept, err := os.ReadDir(unprocessed); err != nil || len(kept) > 0 {
		t.Errorf("not understood: %v, %v", kept, err)
	}
}
