package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
)

// A reload is all or nothing, and says what it did.
func TestReloadIsOneChange(t *testing.T) {
	dir := t.TempDir()
	file, rules := filepath.Join(dir, "veredus.yaml"), filepath.Join(dir, "mx.yaml")
	key(t, dir, "a.pem")
	key(t, dir, "b.pem")
	write(t, rules, "rules:\n  - {id: slow, match: {domain: slow.example}, connections: 5}\n")
	cfg := parse(t, dir, "mx_rules: mx.yaml\ndkim: {domains: [{domain: a.example, selector: s1, key_file: a.pem}]}\n")
	n := begin(t, cfg, Options{Reload: func() (*config.Config, error) { return loadTest(file) }})

	reload := func(id string) *veredusv1.ReloadConfigResponse {
		t.Helper()
		resp, err := n.ReloadConfig(t.Context(), &veredusv1.ReloadConfigRequest{RequestId: id})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if r := reload(""); r.GetVersion() != 1 || len(r.GetChanges()) != 0 {
		t.Fatalf("nothing changed, but %v", r)
	}

	// Rules, a key and a key that needs a restart.
	write(t, rules, "rules:\n  - {id: slow, match: {domain: slow.example}, connections: 8}\n")
	write(t, file, "mx_rules: mx.yaml\ndata_dir: elsewhere\nlog: {level: debug}\ndkim: {domains: [{domain: a.example, selector: s1, key_file: a.pem}, {domain: b.example, selector: s1, key_file: b.pem}]}\n")
	r := reload("first")
	want := []string{
		`mx_rules: rule "slow": connections 5 -> 8`,
		`dkim: key "s1._domainkey.b.example" added`,
		`dkim: domain "b.example" added`,
		"data_dir: " + filepath.Join(dir, "data") + " -> " + filepath.Join(dir, "elsewhere") + " needs a restart",
		"log.level: INFO -> DEBUG needs a restart",
	}
	if r.GetVersion() != 2 || !slices.Equal(r.GetChanges(), want) {
		t.Fatalf("version %d, changes\n%s", r.GetVersion(), strings.Join(r.GetChanges(), "\n"))
	}
	if len(n.settings.Load().keyring.Find("b.example")) != 1 {
		t.Error("the new key does not sign")
	}

	// What needs a restart is said until it happens; it makes no version.
	if r := reload(""); r.GetVersion() != 2 || !slices.Equal(r.GetChanges(), want[3:]) {
		t.Errorf("again: %v", r)
	}

	// Two errors in two files: both are told, nothing changes.
	write(t, rules, "rules:\n  - {id: slow, match: {domain: slow.example}, connections: none}\n")
	write(t, filepath.Join(dir, "b.pem"), "rubbish")
	_, err := n.ReloadConfig(t.Context(), &veredusv1.ReloadConfigRequest{})
	s := wantError(t, err, codes.FailedPrecondition, "BAD_CONFIG")
	if v := detail[*errdetails.PreconditionFailure](s).GetViolations(); len(v) < 2 || !strings.HasSuffix(v[0].GetSubject(), "mx.yaml:2") {
		t.Errorf("violations %v", v)
	}
	write(t, file, "mx_rulez: mx.yaml\n")
	_, err = n.ReloadConfig(t.Context(), &veredusv1.ReloadConfigRequest{})
	wantError(t, err, codes.FailedPrecondition, "BAD_CONFIG")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, err = n.ReloadConfig(t.Context(), &veredusv1.ReloadConfigRequest{})
	wantError(t, err, codes.FailedPrecondition, "BAD_CONFIG")
	if v := n.settings.Load(); v.version != 2 || len(v.keyring.Find("b.example")) != 1 {
		t.Error("a refused reload changed something")
	}

	// It is on record, once, with who ordered it.
	from, _ := n.store.Ends()
	events, _, err := n.store.Read(t.Context(), from, 100)
	if err != nil {
		t.Fatal(err)
	}
	events = slices.DeleteFunc(events, func(e *veredusv1.FeedbackEvent) bool {
		return e.GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_RULE_CHANGED
	})
	if len(events) != 1 || events[0].GetPrincipal() != "local" {
		t.Errorf("events %v", events)
	}

	// A repeated request answers as the first time.
	if again := reload("first"); !slices.Equal(again.GetChanges(), want) {
		t.Errorf("repeat: %v", again)
	}
	_, body := n.get(t, "/metrics")
	if !strings.Contains(body, "veredus_config_version 2") {
		t.Error("the metric has another version")
	}
}

func TestAReloadedRequestIDBelongsToItsCall(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	_, err := n.Suspend(t.Context(), &veredusv1.SuspendRequest{Selector: everything(), Reason: "r", RequestId: "once"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.ReloadConfig(t.Context(), &veredusv1.ReloadConfigRequest{RequestId: "once"})
	wantError(t, err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	_, err = n.ReloadConfig(t.Context(), &veredusv1.ReloadConfigRequest{RequestId: strings.Repeat("x", 129)})
	if s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD"); fields(s) != "request_id" {
		t.Error(fields(s))
	}
}

// A provider that the new rules name is known to the resolver at once.
func TestReloadedProvidersAreKnown(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mx.yaml"), "rules: []\n")
	n := begin(t, parse(t, dir, "mx_rules: mx.yaml\n"), Options{})
	if p := n.settings.Load().rules.ProviderOf("mx1.acme.example"); p != "" {
		t.Fatalf("provider %q", p)
	}
	write(t, filepath.Join(dir, "mx.yaml"), "providers: [{name: acme, suffixes: [.acme.example]}]\nrules: []\n")
	if _, lines, err := n.Reload(t.Context()); err != nil || !slices.Equal(lines, []string{`mx_rules: provider "acme" added`}) {
		t.Fatalf("%q, %v", lines, err)
	}
	if p := n.settings.Load().rules.ProviderOf("mx1.acme.example"); p != "acme" {
		t.Errorf("provider %q", p)
	}
}
