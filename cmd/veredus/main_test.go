package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the golden files anew")

// result is what a command line did.
type result struct {
	status   int
	out, err string
}

// veredus runs a command line in this process.
func veredus(t *testing.T, args ...string) result {
	t.Helper()
	return veredusWith(t, "", args...)
}

func veredusWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	status := run(t.Context(), args, strings.NewReader(stdin), &out, &errOut)
	return result{status, out.String(), errOut.String()}
}

// want fails the test unless the status is right and the texts occur.
func (r result) want(t *testing.T, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d\n%s%s", r.status, status, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("%q does not occur in:\n%s%s", text, r.out, r.err)
		}
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lines is a writer that lets a test wait for what a running command prints.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	grown chan struct{}
}

func newLines() *lines { return &lines{grown: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// after waits for a word and returns the one behind it.
func (l *lines) after(ctx context.Context, word string) (string, error) {
	for {
		l.mu.Lock()
		text, grown := l.text.String(), l.grown
		l.mu.Unlock()
		if _, rest, ok := strings.Cut(text, word); ok && strings.Contains(rest, "\n") {
			if fields := strings.Fields(rest); len(fields) > 0 {
				return fields[0], nil
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return "", fmt.Errorf("%q was never printed: %s", word, text)
		}
	}
}

func TestHelpIsAsWritten(t *testing.T) {
	commands := [][]string{
		{},
		{"serve"},
		{"demo"},
		{"receivers"},
		{"send"},
		{"watch"},
		{"messages"},
		{"explain"},
		{"qualify"},
		{"rules"},
		{"dkim"},
		{"dkim", "keygen"},
		{"dkim", "check"},
	}
	for _, words := range commands {
		name := strings.Join(append([]string{"veredus"}, words...), "-")
		t.Run(name, func(t *testing.T) {
			got := veredus(t, append(words, "--help")...)
			if got.status != exitOK || got.err != "" {
				t.Fatalf("status %d, %s", got.status, got.err)
			}
			golden(t, filepath.Join("testdata", name+".txt"), got.out)
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s; if that is meant, run the test with -update. Got:\n%s", path, got)
	}
}

// Every command's help has an example, and every flag a text.
func TestHelpServesANewcomer(t *testing.T) {
	for _, cmd := range newRoot().Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Long == "" || (cmd.Example == "" && !cmd.HasSubCommands()) {
			t.Errorf("%s lacks a description or an example", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no text", cmd.CommandPath(), f.Name)
			}
		})
	}
}

func TestWrongCommandLinesSayWhatToDo(t *testing.T) {
	csv := write(t, "r.csv", "email,name\na@example.com,Ada\n")
	text := write(t, "t.txt", "Hello")
	cases := []struct {
		line string
		want string
	}{
		{"sned", `there is no command "sned"; did you mean "send"?`},
		{"frobnicate", `there is no command "frobnicate"`},
		{"watch --colour", "unknown flag: --colour"},
		{"watch extra", `unexpected argument "extra"`},
		{"watch --type bonced", `--type "bonced" is not known; use one of addresses_changed, bounced, cancelled`},
		{"watch --until-finished", "--until-finished needs --delivery"},
		{"watch --token a --token-file b", "use one"},
		{"watch --addr nowhere", "--addr: address \"nowhere\": give host:port"},
		{"watch --plaintext --tls", "--plaintext contradicts --tls"},
		{"watch --ca /nonexistent", "--ca: open /nonexistent"},
		{"send", "give a file of recipients"},
		{"send none.csv", "none.csv"},
		{"send " + text, "has no column \"email\" or \"address\""},
		{"send " + csv, "--from is required"},
		{"send " + csv + " --from a@b.example --text " + text, "--subject is required"},
		{"send " + csv + " --from a@b.example --subject x", "--text FILE, --html FILE or both"},
		{"send " + csv + " --from a@b.example --subject x --eml " + text, "--eml is a complete message"},
		{"send " + csv + " --from a@b.example --text /nonexistent", "--text: open /nonexistent"},
		{"send " + csv + " --header X", `--header "X": write it as "Name: value"`},
		{"send " + csv + " --feedback-mode maybe", "use efs or no-efs"},
		{"send recipients", "cannot tell the format"},
		{"send - --format xml", `--format "xml": use csv or jsonl`},
		{"messages", "give a delivery, or --recipient"},
		{"messages d --status lost", `--status "lost" is not known; use one of cancelled, failed`},
		{"messages d --reason bad", `--reason "bad" is not known`},
		{"explain", "the recipient domain is missing"},
		{"forecast", "the delivery is missing"},
		{"qualify", "the reply (put it in quotes) is missing"},
		{"qualify 550 5.1.1", `unexpected argument "5.1.1"`},
		{"qualify 550 --phase lunch", `--phase "lunch" is not known`},
		{"qualify 550 --rules /nonexistent", "--rules: open /nonexistent"},
		{"qualify 550 --rules x --addr 127.0.0.1:1", "a node (--addr) has its own"},
		{"rules /nonexistent", "rule file: open /nonexistent"},
		{"receivers --world mars", `--world "mars": use default, open, or the name of a file`},
		{"receivers --world ./mars.yaml", "--world: open ./mars.yaml"},
		{"receivers --time-scale 0", "--time-scale 0: give 1 or more"},
		{"demo --recipients 0", "--recipients 0: give 1 to 10000000"},
		{"demo --world mars", `--world "mars"`},
		{"serve --config /nonexistent", "configuration file: stat /nonexistent"},
		{"serve --time-scale 0.5", "--time-scale 0.5: give 1 or more"},
		{"dkim keygen", "--domain and --selector are required"},
		{"dkim keygen --domain b.example --selector s --algorithm dsa", `--algorithm "dsa": use rsa or ed25519`},
		{"dkim keygen --domain b.example --selector s --bits 512", "--bits: dkim: RSA keys have 1024"},
		{"dkim check", "give --domain, --selector and --key, or --config FILE"},
		{"dkim check --config x --domain y", "leave --domain, --selector and --key out"},
	}
	for _, c := range cases {
		t.Run(c.line, func(t *testing.T) {
			veredus(t, strings.Fields(c.line)...).want(t, exitUsage, c.want)
		})
	}
}

func TestNoNodeSaysHowToStartOne(t *testing.T) {
	csv, text := write(t, "r.csv", "email\na@example.com\n"), write(t, "t.txt", "Hello")
	for _, line := range []string{
		"watch", "messages d", "explain example.com", "forecast d", "qualify 550", "messages deliveries/d/messages/m",
		"send " + csv + " --from a@b.example --subject x --text " + text, "send --delivery d",
	} {
		t.Run(line, func(t *testing.T) {
			args := append(strings.Fields(line), "--addr", "127.0.0.1:1")
			veredus(t, args...).want(t, exitFailed, "no node answers at 127.0.0.1:1", "veredus serve")
		})
	}
}

func TestRootPrintsHelp(t *testing.T) {
	veredus(t).want(t, exitOK, "veredus demo", "veredus serve")
	veredus(t, "--version").want(t, exitOK, "veredus version")
}
