package dkim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// verifier checks every signature of the messages on its standard input with
// dkimpy, a verifier that shares no code with ours, taking DNS records from its
// argument. Messages come as a JSON list in base64; it prints a JSON list of booleans
// for each.
const verifier = `
import base64, dkim, json, sys
records = json.loads(sys.argv[1])
def lookup(name, timeout=5):
    return records.get(name.decode().rstrip("."), "").encode()
def check(message, i):
    try:
        return bool(dkim.DKIM(message).verify(idx=i, dnsfunc=lookup))
    except dkim.DKIMException as e:
        print(e, file=sys.stderr)
        return False
def verdicts(message):
    count = sum(1 for name, _ in dkim.rfc822_parse(message)[0] if name.lower() == b"dkim-signature")
    return [check(message, i) for i in range(count)]
print(json.dumps([verdicts(base64.b64decode(m)) for m in json.load(sys.stdin)]))
`

// findPython returns a Python that has dkimpy with Ed25519: Debian's own, or
// the first on the path.
func findPython(t *testing.T) string {
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import dkim, nacl").Run() == nil {
			return python
		}
	}
	t.Skip("no python3 with dkimpy and PyNaCl: install Debian's python3-dkim (and python3-nacl) to run this test")
	return ""
}

// verifyWithPython returns the verdicts about each message.
func verifyWithPython(t *testing.T, python string, messages [][]byte, keys []*Key) [][]bool {
	t.Helper()
	records := make(map[string]string)
	for _, k := range keys {
		records[RecordName(k)] = Record(k)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, "-c", verifier, string(must(json.Marshal(records))))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(must(json.Marshal(messages))), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var verdicts [][]bool
	if err := json.Unmarshal(stdout.Bytes(), &verdicts); err != nil || len(verdicts) != len(messages) {
		t.Fatalf("%v in %q", err, stdout.String())
	}
	return verdicts
}

// pythonCases are messages of which Debian's verifier must find every signature good,
// or every one bad.
type pythonCases struct {
	messages [][]byte
	names    []string
	good     []bool
}

func (c *pythonCases) add(name string, message []byte, good bool) {
	c.messages, c.names, c.good = append(c.messages, message), append(c.names, name), append(c.good, good)
}

func TestDebiansVerifierAgrees(t *testing.T) {
	python := findPython(t)
	keys := []*Key{must(LoadKey("example.com", "r1", must(MarshalPEM(rsa2048())))), newKey(t, "example.com", "e1", edKey())}
	kr := newKeyring(t, keys...)
	var cases pythonCases
	for name, body := range bodies {
		cases.add("body "+name, must(kr.Sign([]byte(header+body), "news.example.com")), true)
	}
	for i := range 30 {
		// SMTP ends the last line in any case; about white space in one without an end,
		// verifiers disagree.
		body := bodyGenerator.Example(i) + "\r\n"
		cases.add(fmt.Sprintf("body %q", body), must(kr.Sign([]byte(header+body), "news.example.com")), true)
	}
	signed := must(kr.Sign([]byte(header+"Pay Ana 10 euros.\r\n"), "example.com"))
	for name, changed := range map[string]string{
		"body":       strings.Replace(string(signed), "10 euros", "90 euros", 1),
		"subject":    strings.Replace(string(signed), "Subject: ", "Subject: Re: ", 1),
		"added From": "From: eve@example.org\r\n" + string(signed),
	} {
		cases.add(name+" tampered with", []byte(changed), false)
	}
	for i, got := range verifyWithPython(t, python, cases.messages, keys) {
		if good := cases.good[i]; len(got) != 2 || got[0] != good || got[1] != good {
			t.Errorf("%s: RSA and Ed25519 verify as %v", cases.names[i], got)
		}
	}
}
