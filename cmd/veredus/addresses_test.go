package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// An operator looks after addresses on one node.
func TestAddressesOfANode(t *testing.T) {
	n := startNode(t)

	t.Run("put, get and delete", func(t *testing.T) {
		n.run(t, "addresses put Ada@example.com --status denylisted --tenant acme --list News.Example", "--comment", "asked by phone").
			want(t, exitOK, "addressEntries/", "denylisted", "tenant acme, list news.example", "asked by phone")
		n.run(t, "addresses get ada@EXAMPLE.com --tenant acme --list news.example").
			want(t, exitOK, "would not be mailed (denylisted)", "denylisted for tenant acme, list news.example")
		n.run(t, "addresses get ada@example.com --tenant acme").want(t, exitOK, "would be mailed: no entry is about it", "addressEntries/")
		r := n.run(t, "addresses get ada@example.com --json")
		var answer struct{ Entries []struct{ Name string } }
		if err := json.Unmarshal([]byte(r.out), &answer); err != nil || len(answer.Entries) != 1 {
			t.Fatalf("%v: %s", err, r.out)
		}
		n.run(t, "addresses delete "+answer.Entries[0].Name+" --tenant acme").want(t, exitUsage, "the name says the scope")
		n.run(t, "addresses delete "+answer.Entries[0].Name).want(t, exitOK, "Ada@example.com", "denylisted")
		n.run(t, "addresses delete ada@example.com --tenant acme --list news.example").want(t, exitFailed, "does not exist")
		n.run(t, "addresses put ada@example.com").want(t, exitUsage, "--status is required")
		n.run(t, "addresses put ada --status denylisted").want(t, exitFailed, `"ada"`, "has no @")
		n.run(t, "addresses put ada@example.com --status counting").want(t, exitFailed, "entry.status", "cannot be put")
	})
	t.Run("import, list and export", func(t *testing.T) {
		ses := write(t, "ses.json", `{"SuppressedDestinationSummaries": [{"EmailAddress": "gone@provider.example", "Reason": "BOUNCE"}, {"EmailAddress": "angry@provider.example", "Reason": "COMPLAINT"}]}`)
		n.run(t, "addresses import "+ses+" --tenant acme --dry-run").want(t, exitOK, "2 entries would be imported")
		n.run(t, "addresses list --tenant acme").want(t, exitOK, "address  status")
		n.run(t, "addresses import "+ses+" --tenant acme").want(t, exitOK, "2 entries imported, of which 0 replaced another; 0 were kept")
		n.run(t, "addresses list --domain provider.example --status quarantined").want(t, exitOK, "gone@provider.example", "quarantined", "tenant acme", "suppressed at Amazon SES")
		bad := write(t, "bad.csv", "address,status\nbob@provider.example,quarantined\nnobody\n")
		n.run(t, "addresses import "+bad+" --json").want(t, exitFailed, `"imported":"1"`, "line 3", "has no @", "1 lines were malformed")

		file := filepath.Join(n.dir, "all.csv")
		n.run(t, "addresses export --output "+file).want(t, exitOK)
		data, err := os.ReadFile(file)
		if err != nil || strings.Count(string(data), "\n") != 4 {
			t.Errorf("%v: %s", err, data)
		}
		n.run(t, "addresses import "+file).want(t, exitOK, "3 entries imported, of which 0 replaced another")
		n.run(t, "addresses export --format sparkpost --tenant acme").want(t, exitOK, "gone@provider.example,transactional,,Bounce Rule", "angry@provider.example,non_transactional,,Spam Complaint")
		if left, _ := filepath.Glob(file + ".part-*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("release and confirm", func(t *testing.T) {
		n.run(t, "addresses release").want(t, exitFailed, "chooses every quarantined entry")
		n.run(t, "addresses release --domain provider.example --tenant acme --dry-run").want(t, exitOK, "1 entries would be released", "gone@provider.example")
		n.run(t, "addresses release --domain provider.example --tenant acme", "--comment", "their outage").want(t, exitOK, "1 entries released")
		n.run(t, "addresses get gone@provider.example --tenant acme").want(t, exitOK, "would be mailed")
		n.run(t, "addresses get angry@provider.example --tenant acme").want(t, exitOK, "would not be mailed")
		n.run(t, "addresses confirm --domain provider.example --json").want(t, exitOK, "{}")
		n.run(t, "addresses release --since yesterday").want(t, exitUsage, `--since "yesterday" is no time`)
		n.run(t, "watch --type addresses_changed --oldest --limit 1").want(t, exitOK)
	})
	t.Run("a delivery", func(t *testing.T) {
		n.run(t, "addresses put ok@gmail.example --status denylisted").want(t, exitOK)
		csv, text := write(t, "to.csv", "email\nok@gmail.example\nunknown@gmail.example\n"), write(t, "hello.txt", "Hello\n")
		n.run(t, "send "+csv+" --delivery one --validity 48h --text "+text+" --from news@veredus.example --subject Hello").want(t, exitOK)
		n.run(t, "addresses get unknown@gmail.example").want(t, exitOK, "would not be mailed (in quarantine)", "quarantined for tenant default", "550", "deliveries/one/messages/")
		n.run(t, "messages one --status ignored").want(t, exitOK, "ok@gmail.example")
	})
	t.Run("keys", func(t *testing.T) {
		n.run(t, "addresses rotate-unsubscribe-key").want(t, exitOK, "new links have key")
		veredus(t, "addresses", "rotate").want(t, exitUsage, "there is no command", "rotate-unsubscribe-key")
	})
}

func TestGuessedFormats(t *testing.T) {
	for head, want := range map[string]veredusv1.AddressFileFormat{
		"":                            1,
		"address,status\n":            1,
		"ada@example.com\n":           1,
		"ada@example.com,\n":          1,
		"ada@example.com, BOUNCE\r\n": 2,
		"{\n  \"SuppressedDestinationSummaries\": [":              2,
		`{"emailAddress": "ada@example.com", "reason": "BOUNCE"}`: 2,
		"\xef\xbb\xbfrecipient,type,description\n":                3,
		`"recipient","type"`:                                      3,
		`{"results": [{"recipient": "ada@example.com"`:            3,
	} {
		if got := guessFormat([]byte(head)); got != want {
			t.Errorf("%q is %v, want %v", head, got, want)
		}
	}
}
