package server

import (
	"strings"
	"testing"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/dkim/openssl"
	"github.com/veredus/veredus/server/config"
)

// Operators see what makes the signatures: in the log at start, and in a metric.
func TestTheSignerIsNamed(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "a.pem")
	key(t, dir, "b.pem")
	var out strings.Builder
	n := begin(t, parse(t, dir, "dkim: {domains: [{domain: a.example, selector: s1, key_file: a.pem}, {domain: b.example, selector: s1, key_file: b.pem}]}\n"),
		Options{})
	(&Server{log: NewLog(config.Log{}, &out)}).logSigners(n.settings.Load().keys)

	library, err := openssl.Version()
	if err != nil {
		library = "Go"
		if !strings.Contains(out.String(), err.Error()) {
			t.Errorf("the log does not say %q: %s", err, out.String())
		}
	}
	if !strings.Contains(out.String(), library) {
		t.Errorf("the log does not name %s: %s", library, out.String())
	}
	_, body := n.get(t, "/metrics")
	for _, want := range []string{`veredus_dkim_signer_info{library="` + library + `"} 2`, "veredus_dkim_signer_failures_total 0"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestWhyGoSignsIsTold(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "a.pem")
	var keys []*dkim.Key
	for _, selector := range []string{"s1", "s2"} {
		k, err := dkim.LoadKeyFile("a.example", selector, dir+"/a.pem", dkim.WithGo())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	var out strings.Builder
	(&Server{log: NewLog(config.Log{}, &out)}).logSigners(keys)
	if got := out.String(); strings.Count(got, "Go was asked for") != 1 || !strings.Contains(got, "library=Go keys=2") {
		t.Error(got)
	}
}
