package dkim

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// verifier checks every signature of the message on its standard input with
// dkimpy, a verifier that shares no code with ours, taking DNS records from its
// argument. It prints a JSON list of booleans.
const verifier = `
import dkim, json, sys
records = json.loads(sys.argv[1])
message = sys.stdin.buffer.read()
def lookup(name, timeout=5):
    return records.get(name.decode().rstrip("."), "").encode()
count = sum(1 for name, _ in dkim.rfc822_parse(message)[0] if name.lower() == b"dkim-signature")
def check(i):
    try:
        return bool(dkim.DKIM(message).verify(idx=i, dnsfunc=lookup))
    except dkim.DKIMException as e:
        print(e, file=sys.stderr)
        return False
print(json.dumps([check(i) for i in range(count)]))
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

func verifyWithPython(t *testing.T, python string, message []byte, keys []*Key) []bool {
	t.Helper()
	records := make(map[string]string)
	for _, k := range keys {
		records[RecordName(k)] = Record(k)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, "-c", verifier, string(must(json.Marshal(records))))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var verdicts []bool
	if err := json.Unmarshal(stdout.Bytes(), &verdicts); err != nil {
		t.Fatalf("%v in %q", err, stdout.String())
	}
	return verdicts
}

func TestDebiansVerifierAgrees(t *testing.T) {
	python := findPython(t)
	keys := []*Key{newKey(t, "example.com", "r1", rsa2048()), newKey(t, "example.com", "e1", edKey())}
	kr := newKeyring(t, keys...)
	for name, body := range bodies {
		signed, err := kr.Sign([]byte(header+body), "news.example.com")
		if err != nil {
			t.Fatal(err)
		}
		if got := verifyWithPython(t, python, signed, keys); len(got) != 2 || !got[0] || !got[1] {
			t.Errorf("body %q: RSA and Ed25519 verify as %v", name, got)
		}
	}
	signed, err := kr.Sign([]byte(header+"Pay Ana 10 euros.\r\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"body":       strings.Replace(string(signed), "10 euros", "90 euros", 1),
		"subject":    strings.Replace(string(signed), "Subject: ", "Subject: Re: ", 1),
		"added From": "From: eve@example.org\r\n" + string(signed),
	} {
		if got := verifyWithPython(t, python, []byte(changed), keys); len(got) != 2 || got[0] || got[1] {
			t.Errorf("%s tampered with: RSA and Ed25519 verify as %v", name, got)
		}
	}
}
