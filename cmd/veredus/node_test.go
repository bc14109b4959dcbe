package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testNode is `veredus serve` in this process.
type testNode struct {
	addr, ledger string
	dir          string
	stop         func() (status int, out string)
}

// startNode serves a sandbox in which an hour passes in a second, with more lines of
// configuration if there are any. Mail that is to reach its receiver gets two days to do so,
// which is time enough for a busy machine.
func startNode(t *testing.T, more ...string) *testNode {
	t.Helper()
	n := &testNode{dir: t.TempDir()}
	config := filepath.Join(n.dir, "veredus.yaml")
	text := "grpc: {listen: \"127.0.0.1:0\"}\nhttp: {listen: \"127.0.0.1:0\"}\nsandbox: {time_scale: 3600}\n" +
		strings.Join(more, "\n")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut := newLines(), newLines()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--config", config, "--control", "127.0.0.1:0"}, strings.NewReader(""), out, errOut)
	}()
	n.stop = func() (int, string) {
		cancel()
		status := <-ended
		ended <- status
		return status, out.String() + errOut.String()
	}
	t.Cleanup(func() { n.stop() })
	var err error
	if n.addr, err = out.after(t.Context(), "gRPC"); err != nil {
		t.Fatal(err)
	}
	if n.ledger, err = out.after(t.Context(), "their ledger"); err != nil {
		t.Fatal(err)
	}
	return n
}

// run runs a command line against the node.
func (n *testNode) run(t *testing.T, line string, args ...string) result {
	t.Helper()
	return veredus(t, append(append(strings.Fields(line), args...), "--addr", n.addr)...)
}

// fates are recipients whose local part chooses what happens to them.
const fates = `email,recipient_id,name
ok@gmail.example,1,Ada
unknown@gmail.example,2,Alan
disabled@outlook.example,3,Edsger
spam@village.example,4,Barbara
greylist@northwind.example,5,Donald
OK@gmail.example,6,Ada again
not an address,7,Nobody
anyone@nomail.example,8,Null
`

// One node, used as a newcomer would.
func TestANodeFromServeToStop(t *testing.T) {
	n := startNode(t)
	csv := write(t, "recipients.csv", fates)
	text := write(t, "hello.txt", "Hello {{ name }},\n\nnothing to see here.\n")
	html := write(t, "hello.html", "<p>Hello <b>{{ name }}</b></p>")

	t.Run("send", func(t *testing.T) {
		r := n.run(t, "send "+csv+" --delivery spring --label courier --text "+text+" --html "+html+" --validity 48h --list-id news.veredus.example",
			"--from", "The Courier <news@veredus.example>", "--subject", "Hello {{ name }}", "--unsubscribe-url", "https://veredus.example/u?{{ name }}")
		r.want(t, exitOK, "created deliveries/spring", "rejected: recipient 7 (not an address): address", "7 recipients accepted, 1 ignored, 1 rejected",
			"started; mail that cannot be delivered expires at", "deliveries/spring is finished", "user unknown", "account disabled")
	})
	t.Run("watch", func(t *testing.T) {
		token := filepath.Join(n.dir, "token")
		r := n.run(t, "watch --delivery spring --oldest --until-finished --token-file "+token)
		r.want(t, exitOK, "started", "delivered     ok@gmail.example [google] 250", "bounced       unknown@gmail.example", "finished")
		if strings.Index(r.out, "started") > strings.Index(r.out, "finished") {
			t.Errorf("out of order:\n%s", r.out)
		}
		if data, err := os.ReadFile(token); err != nil || len(bytes.TrimSpace(data)) == 0 {
			t.Errorf("token file: %q, %v", data, err)
		}
		n.run(t, "watch --delivery spring --type bounced --oldest --json --limit 1").want(t, exitOK, `"type":"FEEDBACK_TYPE_BOUNCED"`, `"delivery":"deliveries/spring"`)
		n.run(t, "watch --token nonsense").want(t, exitFailed, "token")
	})
	t.Run("send what cannot be delivered in time", func(t *testing.T) {
		full := write(t, "full.csv", "email\nfull@yahoo.example\n")
		n.run(t, "send "+full+" --delivery late --text "+text+" --from news@veredus.example --subject Hello --validity 1h").want(t, exitOK, "deliveries/late is finished")
		n.run(t, "watch --delivery late --oldest --until-finished").want(t, exitOK, "expired", "full@yahoo.example", "finished")
	})
	t.Run("messages", func(t *testing.T) {
		n.run(t, "messages spring --status failed --reason user_unknown").want(t, exitOK, "unknown@gmail.example", "user unknown [hard]")
		n.run(t, "messages --recipient ok@gmail.example").want(t, exitOK, "deliveries/spring/messages/", "sent")
		n.run(t, "messages spring --limit 2").want(t, exitOK, "there are more; see them with --limit 0")
		one := n.run(t, "messages --recipient-id 5 --json")
		one.want(t, exitOK, `"recipient":"greylist@northwind.example"`, `"status":"LOG_STATUS_SENT"`, `"attempt_count":`)
		var m struct{ Name string }
		if err := json.Unmarshal([]byte(one.out), &m); err != nil {
			t.Fatal(err)
		}
		n.run(t, "messages "+m.Name).want(t, exitOK, "attempt 1 at", "attempt 2 at", "mx.northwind.example", "delivered")
		n.run(t, "messages "+m.Name+" --json").want(t, exitOK, `"attempts":[{`)
		n.run(t, "messages lost").want(t, exitFailed, "deliveries/lost")
	})
	t.Run("explain and qualify", func(t *testing.T) {
		n.run(t, "explain someone@gmail.example").want(t, exitOK, "google", "builtin-google", "gmail-smtp-in.l.google.com", "messages_per_connection")
		n.run(t, "explain gmail.example --json").want(t, exitOK, `"destination":"google"`)
		n.run(t, "explain gone.example").want(t, exitOK, "no mail exchanger")
		args := []string{"550 5.1.1 user unknown"}
		remote, local := n.run(t, "qualify", args...), veredus(t, "qualify", args[0])
		if remote.out != local.out {
			t.Errorf("the node says\n%s\nand this program\n%s", remote.out, local.out)
		}
	})
	t.Run("send in steps", func(t *testing.T) {
		line := "send " + csv + " --delivery steps --validity 48h --text " + text + " --from news@veredus.example --subject Hello --feedback-mode no-efs"
		n.run(t, line+" --no-start").want(t, exitOK, "prepared; start it with 'veredus send --delivery steps'", "deliveries/steps is prepared")
		n.run(t, "forecast steps").want(t, exitOK, "deliveries/steps", "takes about", "google", "It rests on this:", "by pool default")
		n.run(t, "forecast deliveries/steps --json").want(t, exitOK, `"destination":"google"`, `"assumptions":[`)
		n.run(t, "forecast lost").want(t, exitFailed, "deliveries/lost does not exist")
		r := n.run(t, "send --delivery steps --json")
		r.want(t, exitOK, "deliveries/steps is there: prepared, 7 recipients")
		var s summary
		// Beside the double, those that failed for good in the first mailing are left out: unknown, disabled, no mail at all.
		if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.State != "finished" || s.Accepted != 7 || s.Ignored != 4 || s.Rejected != 1 {
			t.Errorf("%v: %s", err, r.out)
		}
		n.run(t, "send --delivery steps").want(t, exitOK, "deliveries/steps is finished")
	})
	t.Run("send what cannot be prepared", func(t *testing.T) {
		n.run(t, "send "+csv+" --delivery bad --text "+text+" --from news@elsewhere.example --subject Hello").
			want(t, exitRefused, "error", "deliveries/bad was not started")
		n.run(t, "send "+csv+" --delivery Bad_Name --text "+text+" --from news@veredus.example --subject Hello").want(t, exitFailed, "Bad_Name", "1 to 63 of a-z")
	})
	t.Run("the receivers' ledger", func(t *testing.T) {
		ledger := get(t, n.ledger)
		if !strings.Contains(ledger, `"dkim_failed":0`) || !strings.Contains(ledger, `"limit_violations":0`) || strings.HasPrefix(ledger, `{"messages":0,`) {
			t.Errorf("ledger: %.400s", ledger)
		}
	})
	t.Run("a second node", func(t *testing.T) {
		config := write(t, "veredus.yaml", "grpc: {listen: \""+n.addr+"\"}\ndata_dir: other\n")
		veredus(t, "serve", "--config", config, "--control", "127.0.0.1:0").want(t, exitFailed, "grpc.listen", "another node may be running")
	})
	if status, out := n.stop(); status != exitOK {
		t.Errorf("stopped with status %d:\n%s", status, out)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// interruptedReader is a file whose reading ends the command half way, as Ctrl-C would.
type interruptedReader struct {
	head   io.Reader
	cancel func()
	done   <-chan struct{}
}

func (r *interruptedReader) Read(p []byte) (int, error) {
	n, err := r.head.Read(p)
	if err != io.EOF {
		return n, err
	}
	r.cancel()
	<-r.done
	return 0, io.ErrUnexpectedEOF
}

func TestAnInterruptedUploadIsResumed(t *testing.T) {
	n := startNode(t)
	var csv strings.Builder
	csv.WriteString("email,name\n")
	for i := range 5000 {
		fmt.Fprintf(&csv, "ok+%d@village.example,N%d\n", i, i)
	}
	text := write(t, "t.txt", "Hello {{ name }}")
	args := []string{"--delivery", "big", "--from", "news@veredus.example", "--subject", "Hello", "--text", text, "--no-start", "--addr", n.addr}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errOut bytes.Buffer
	half := &interruptedReader{strings.NewReader(csv.String()[:csv.Len()/2]), cancel, ctx.Done()}
	status := run(ctx, append([]string{"send", "-", "--format", "csv"}, args...), half, &out, &errOut)
	result{status, out.String(), errOut.String()}.want(t, exitInterrupted, "Go on with the same command and --delivery big")

	file := write(t, "r.csv", csv.String())
	veredus(t, append([]string{"send", file}, args...)...).want(t, exitOK, "deliveries/big is there: draft", "5,000 recipients accepted, 0 ignored, 0 rejected")
}

func TestReceiversServeUntilTheyAreStopped(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out := newLines()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"receivers", "--world", "open", "--control", "127.0.0.1:0"}, strings.NewReader(""), out, io.Discard)
	}()
	if _, err := out.after(ctx, "{"); err != nil {
		t.Fatal(err)
	}
	var where struct {
		World, DNS, Control string
		SMTPPort            int `json:"smtp_port"`
	}
	if err := json.Unmarshal([]byte(out.String()), &where); err != nil || where.World != "open" || where.DNS == "" || where.SMTPPort == 0 {
		t.Fatalf("%v: %s", err, out.String())
	}
	if ledger := get(t, where.Control+"/ledger"); !strings.Contains(ledger, `"messages":0`) {
		t.Errorf("ledger: %.200s", ledger)
	}
	t.Run("a key and its record", func(t *testing.T) { testDKIM(t, where.Control, where.DNS) })
	cancel()
	if status := <-ended; status != exitOK {
		t.Errorf("status %d", status)
	}
}

// testDKIM makes a key and checks it against a DNS that has its record, and before.
func testDKIM(t *testing.T, control, dns string) {
	file := filepath.Join(t.TempDir(), "key.pem")
	made := veredus(t, "dkim", "keygen", "--domain", "brand.example", "--selector", "s1", "--out", file, "--json")
	made.want(t, exitOK, `"name":"s1._domainkey.brand.example"`, `"value":"v=DKIM1; k=rsa; p=`)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info, err)
	}
	again := veredus(t, "dkim", "keygen", "--domain", "brand.example", "--selector", "s1", "--out", file)
	again.want(t, exitFailed, "is not overwritten")

	check := []string{"dkim", "check", "--domain", "brand.example", "--selector", "s1", "--key", file, "--dns", dns}
	veredus(t, check...).want(t, exitFailed, "publish at s1._domainkey.brand.example", "1 of 1 keys cannot be relied on")
	resp, err := http.Post(control+"/txt", "application/json", strings.NewReader(recordOf(t, made.out)))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	veredus(t, check...).want(t, exitOK, "s1._domainkey.brand.example publishes this key")

	config := filepath.Join(filepath.Dir(file), "veredus.yaml")
	content := "dns: {server: \"" + dns + "\"}\ndkim:\n  domains:\n    - {domain: brand.example, selector: s1, key_file: key.pem}\n"
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	veredus(t, "dkim", "check", "--config", config, "--json").want(t, exitOK, `"ok":true`)
}

// recordOf turns what keygen printed into what the control endpoint takes.
func recordOf(t *testing.T, printed string) string {
	t.Helper()
	var r struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	if err := json.Unmarshal([]byte(printed), &r); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
