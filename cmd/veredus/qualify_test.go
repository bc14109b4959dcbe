package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestQualifySaysWhatFollows(t *testing.T) {
	plain := veredus(t, "qualify", "550 5.1.1 The email account that you tried to reach does not exist")
	plain.want(t, exitOK, "10 Invalid recipient (hard)", "user unknown", "failed for good", "quarantine")
	if strings.Contains(plain.out, "considered:") {
		t.Errorf("the rules considered are shown without being asked for:\n%s", plain.out)
	}
	veredus(t, "qualify", "--explain", "550 5.1.1 The email account that you tried to reach does not exist").
		want(t, exitOK, "considered:", "google.no-such-user: matched")
	veredus(t, "qualify", "452 4.2.2 mailbox full", "--json").want(t, exitOK, `"bounce_code":22`, `"disposition":"DISPOSITION_RETRY"`, `"address_effect":"count"`)
	veredus(t, "qualify", "--explain", "250 2.0.0 queued").want(t, exitOK, "delivered", "the reply is positive")
	veredus(t, "qualify", "no such user here").want(t, exitOK, "Invalid recipient")
	veredus(t, "qualify", "--phase", "end of DATA", "554 5.7.1 denied").want(t, exitOK, "Mail block")
	veredus(t, "qualify", "").want(t, exitUsage, "the reply is empty")
}

func TestQualifyWithOwnRules(t *testing.T) {
	bad := write(t, "bad.yaml", "rules:\n  - id: x\n    wrong: key\n")
	veredus(t, "qualify", "550 no", "--rules", bad).want(t, exitUsage, "bad.yaml")
	own := write(t, "own.yaml", "providers: [{id: acme}]\nrules:\n  - {id: acme.x, match: {text: [xyzzy], provider: [acme]}, tag: mailbox_full}\n")
	veredus(t, "qualify", "550 xyzzy", "--rules", own, "--provider", "acme").want(t, exitOK, "acme.x")
	veredus(t, "qualify", "550 no", "--provider", "gogle").want(t, exitUsage, `--provider "gogle" is not known; use one of apple,`, "google")
}

// keys are those of an answer, in order.
var batchKeys = []string{"id", "code", "name", "category", "tag", "reason", "reason_code", "type", "disposition", "address", "path", "rule"}

func TestBatchAnswersEveryLineInOrder(t *testing.T) {
	in := strings.Join([]string{
		`{"id":"a","reply":"550 5.1.1 user unknown","domain":"example.com","phase":"rcpt"}`,
		`{"id":2,"reply":"452 4.2.2 mailbox full","domain":"","phase":"","more":[1,2]}`,
		``,
		`{"id":"c","reply":"250 ok"}`,
		`{"id":"d","reply":"too many connections, slow down","phase":"MAIL"}`,
		"{\"id\":\"e\",\"reply\":\"421-4.7.0 try\\n421 4.7.0 later\"}\r",
		`{"id":"f","reply":"550 5.7.1 Greylisted"}`,
	}, "\n")
	got := veredusWith(t, in, "qualify", "--batch")
	got.want(t, exitOK)
	want := []string{
		`{"id":"a","code":10,"name":"Invalid recipient","category":"hard","tag":"user_unknown","reason":"User unknown","reason_code":1,"type":"hard","disposition":"final","address":"suppress","path":"none","rule":"unknown.phrase"}`,
		`{"id":2,"code":22,"name":"Mailbox full","category":"soft","tag":"mailbox_full","reason":"Mailbox full","reason_code":5,"type":"soft","disposition":"retry","address":"count","path":"none","rule":"full.phrase"}`,
		`{"id":"c","code":0,"name":"","category":"","tag":"","reason":"Not defined","reason_code":0,"type":"","disposition":"delivered","address":"none","path":"none","rule":"class:2xx"}`,
	}
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if len(lines) != 6 {
		t.Fatalf("%d lines:\n%s", len(lines), got.out)
	}
	for i, w := range want {
		if lines[i] != w {
			t.Errorf("line %d is\n%s\nwant\n%s", i, lines[i], w)
		}
	}
	for i, id := range []string{`"a"`, `2`, `"c"`, `"d"`, `"e"`, `"f"`} {
		if !strings.HasPrefix(lines[i], `{"id":`+id+`,`) {
			t.Errorf("line %d answers another: %s", i, lines[i])
		}
		if keys := keysOf(t, lines[i]); !slices.Equal(keys, batchKeys) {
			t.Errorf("line %d has the keys %v", i, keys)
		}
	}
	if !strings.Contains(lines[5], `"disposition":"retry_soon"`) {
		t.Errorf("greylisting: %s", lines[5])
	}
}

// keysOf are an object's keys in order.
func keysOf(t *testing.T, line string) (keys []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	for key := true; ; key = !key {
		token, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		switch token {
		case json.Delim('{'):
			key = false
			continue
		case json.Delim('}'):
			return keys
		}
		if key {
			keys = append(keys, token.(string))
		}
	}
}

func TestBatchAnswersWhatItCannotReadAndFails(t *testing.T) {
	long := `{"id":"big","reply":"550 ` + strings.Repeat("x", maxBatchLine) + `"}`
	largest := `{"id":"max","reply":"550 user unknown ` + strings.Repeat("x ", maxBatchLine/2-30) + `"}`
	in := strings.Join([]string{`not json`, `{"id":"b"}`, `{"id":"c","reply":"550","phase":"lunch"}`, long, largest, `{"id":"e","reply":5}`, `{"id":"f","reply":"550 user unknown"}`}, "\n")
	got := veredusWith(t, in, "qualify", "--batch")
	got.want(t, exitFailed, "5 lines could not be read",
		`{"id":"","error":"line 1: `, `{"id":"b","error":"line 2: \"reply\" is empty`, `{"id":"c","error":"line 3: \"phase\" \"lunch\" is not known`,
		`{"id":"","error":"line 4 is longer than 1 MiB`, `{"id":"max","code":10,`, `"error":"line 6: `, `{"id":"f","code":10,`)
	if n := strings.Count(got.out, "\n"); n != 7 {
		t.Errorf("%d lines", n)
	}
}

func TestBatchIsAloneWithItsInput(t *testing.T) {
	for line, want := range map[string]string{
		"qualify --batch 550":                     `unexpected argument "550"`,
		"qualify --batch --explain":               "--explain is for one reply",
		"qualify --batch --phase rcpt":            "write them into the lines",
		"qualify --batch --addr 127.0.0.1:1":      "leave --addr out",
		"qualify --batch --provider gogle":        "is not known",
		"replies list --status lost":              `"lost" is not known`,
		"replies list --limit -1":                 "--limit -1",
		"replies qualify":                         "the text (its id",
		"replies qualify abc":                     "give --tag or --code",
		"replies keep":                            "the text (its id",
		"replies frobnicate":                      "there is no command",
		"replies requalify --dry-run now":         `unexpected argument "now"`,
		"replies list --plaintext --tls --json":   "--plaintext contradicts --tls",
		"replies requalify --addr nowhere --json": "give host:port",
	} {
		t.Run(line, func(t *testing.T) { veredus(t, strings.Fields(line)...).want(t, exitUsage, want) })
	}
	veredus(t, "replies", "list", "--addr", "127.0.0.1:1").want(t, exitFailed, "no node answers at 127.0.0.1:1")
}

// A program that writes a line and waits for its answer before it writes the next gets it.
func TestBatchAnswersWhenTheInputPauses(t *testing.T) {
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{"qualify", "--batch"}, inRead, outWrite, io.Discard)
		_ = outWrite.Close()
	}()
	answers := bufio.NewScanner(outRead)
	for i := range 3 {
		fmt.Fprintf(inWrite, "{\"id\":%d,\"reply\":\"550 user unknown\"}\n{\"id\":", i)
		if !answers.Scan() || !strings.HasPrefix(answers.Text(), fmt.Sprintf(`{"id":%d,"code":10,`, i)) {
			t.Fatalf("answer %d: %q, %v", i, answers.Text(), answers.Err())
		}
		fmt.Fprintf(inWrite, "0,\"reply\":\"250 ok\"}\n")
		if !answers.Scan() {
			t.Fatal("the second half of a line was not read")
		}
	}
	_ = inWrite.Close()
	if status := <-ended; status != exitOK {
		t.Errorf("status %d", status)
	}
}

func FuzzBatchLine(f *testing.F) {
	f.Add([]byte(`{"id":"1","reply":"550 5.1.1 user unknown","domain":"","phase":""}`))
	f.Add([]byte("{\"id\":{\"a\":[1]},\"reply\":\"\\u0000\"}\n[]\n\n{\"reply\":null}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out, errOut bytes.Buffer
		run(t.Context(), []string{"qualify", "--batch"}, bytes.NewReader(in), &out, &errOut)
		wanted := 0
		for line := range bytes.Lines(in) {
			if len(bytes.TrimSpace(line)) > 0 {
				wanted++
			}
		}
		if got := bytes.Count(out.Bytes(), []byte("\n")); got != wanted {
			t.Errorf("%d answers for %d lines: %q", got, wanted, out.Bytes())
		}
		for line := range bytes.Lines(out.Bytes()) {
			if !json.Valid(line) {
				t.Errorf("no JSON: %q", line)
			}
		}
	})
}

func BenchmarkQualifyBatch(b *testing.B) {
	line := []byte(`{"id":"a1","reply":"550 5.1.1 <user@example.com>: Recipient address rejected: User unknown in virtual mailbox table","domain":"example.com","phase":"rcpt"}` + "\n")
	in := bytes.Repeat(line, 1000)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if status := run(b.Context(), []string{"qualify", "--batch"}, bytes.NewReader(in), io.Discard, io.Discard); status != exitOK {
			b.Fatal(status)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/line")
}
