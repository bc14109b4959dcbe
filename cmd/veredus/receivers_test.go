package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

func TestReceiversReturnToThisMachineOnly(t *testing.T) {
	veredus(t, "receivers", "--control", "127.0.0.1:0", "--return-to", "192.0.2.1:25").want(t, exitFailed, "return_to", "not a loopback address")
	veredus(t, "receivers", "--control", "127.0.0.1:0", "--return-to", "localhost").want(t, exitFailed, "return_to", "host:port")

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, ended := newLines(), make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"receivers", "--world", "open", "--control", "127.0.0.1:0", "--return-to", "127.0.0.1:2526"}, strings.NewReader(""), out, io.Discard)
	}()
	if _, err := out.after(ctx, "{"); err != nil {
		t.Fatal(err)
	}
	var where struct{ Control string }
	if err := json.Unmarshal([]byte(out.String()), &where); err != nil {
		t.Fatal(err)
	}
	if config := get(t, where.Control+"/config"); !strings.Contains(config, `"return_to":"127.0.0.1:2526"`) {
		t.Errorf("config: %s", config)
	}
	if ledger := get(t, where.Control+"/ledger"); !strings.Contains(ledger, `"returns":{}`) || !strings.Contains(ledger, `"return_failures":[]`) {
		t.Errorf("ledger: %.400s", ledger)
	}
	cancel()
	if status := <-ended; status != exitOK {
		t.Errorf("status %d", status)
	}
}
