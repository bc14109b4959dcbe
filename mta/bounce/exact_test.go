package bounce

import (
	"strings"
	"testing"
)

// The phrase for one text matches it and no other, whatever a receiver wrote.
func FuzzExactPhrase(f *testing.F) {
	f.Add("<ada@example.com> user unknown", "user unknown")
	f.Add("{a|b} * ~c ... ^ $ \"x\" 'y' # z: [1]", "a")
	f.Add("bo\xeete aux lettres pleine <id> <addr>", "boîte pleine")
	f.Add("邮箱已满 mailbox", "邮箱已满")
	f.Add(strings.Repeat("user mailbox quota full ip blocked ", 100), "x")
	f.Add("5.7.1 5.1.1 550 550-5.1.1 e-mail x@y.z, RP-001 aup#1310 it's www.spamhaus.org/a", "5")
	f.Fuzz(func(t *testing.T, text, other string) {
		normal := Normalise(text)
		if normal == "" {
			return
		}
		if again := Normalise(normal); again != normal {
			t.Fatalf("%q becomes %q becomes %q", text, normal, again)
		}
		entry := ruleEntry{ID: "exact", Tag: "policy", Match: matchEntry{Text: []string{ExactPhrase(normal, true)}}}
		table, err := compile(&ruleFile{Rules: []ruleEntry{entry}}, &ruleFile{})
		if err != nil {
			t.Fatalf("%q: %v", normal, err)
		}
		for _, reply := range []string{text, normal, other, normal + " " + other, other + " " + normal} {
			in := Input{Reply: ParseReply("550 x")}
			in.Reply.Text = reply
			if got, want := table.Qualify(in).Rule == "exact", Normalise(reply) == normal; got != want {
				t.Errorf("%q for the phrase of %q: matched %v", Normalise(reply), normal, got)
			}
		}
	})
}
