package learning

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// desk is a Service with a store, an operator's file, and the reload of a server.
type desk struct {
	*Service
	t       *testing.T
	store   *memory
	book    *book
	table   *Table
	file    string
	mu      sync.Mutex
	bounces *bounce.Table
	reloads int
	broken  error // of the next reload
}

func newDesk(t *testing.T, file string, entries ...address.Entry) *desk {
	t.Helper()
	d := &desk{t: t, store: newMemory(), book: newBook(entries...), file: filepath.Join(t.TempDir(), "bounces.yaml"), bounces: bounce.Default()}
	if file != "" {
		if err := os.WriteFile(d.file, []byte(file), 0o640); err != nil {
			t.Fatal(err)
		}
		d.bounces = rules(t, file)
	}
	current := func() *bounce.Table { d.mu.Lock(); defer d.mu.Unlock(); return d.bounces }
	d.table = NewTable(TableOptions{Store: d.store, Bounces: current})
	t.Cleanup(func() { _ = d.table.Close(context.Background()) })
	d.Service = NewService(Options{
		Store: d.store, Entries: d.book, Flush: d.table.Flush, Bounces: current, Policy: policy,
		File: func() string { return d.file }, Reload: d.reload,
		EntryName: func(k address.Key) string { return "addressEntries/" + k.Folded }, Now: func() time.Time { return noon.Add(48 * time.Hour) },
	})
	return d
}

func (d *desk) reload(context.Context) error {
	if d.broken != nil {
		return d.broken
	}
	content, err := os.ReadFile(d.file)
	if err != nil {
		return err
	}
	table, err := bounce.Load(content, d.file)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bounces = table
	d.reloads++
	return nil
}

// say tells replies n times each and answers the resource name of the first one's text.
func (d *desk) say(n int, provider string, replies ...string) string {
	d.t.Helper()
	for _, r := range replies {
		for range n {
			d.table.Said(said(r, provider, noon).Attempt.Reply, provider, noon)
		}
	}
	if err := d.table.Flush(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	text, _ := newText(bounce.ParseReply(replies[0]), "", noon)
	return textsPrefix + text.ID.String()
}

func (d *desk) content() string {
	d.t.Helper()
	content, err := os.ReadFile(d.file)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(content)
}

func (d *desk) qualify(req *veredusv1.QualifyReplyTextRequest) *veredusv1.QualifyReplyTextResponse {
	d.t.Helper()
	resp, err := d.QualifyReplyText(d.t.Context(), req)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

// meaning is what a reply means now.
func (d *desk) meaning(reply, provider string) bounce.Verdict {
	return d.o.Bounces().Qualify(bounce.Input{Reply: bounce.ParseReply(reply), Provider: provider})
}

func TestTextsAreListedMostFrequentFirst(t *testing.T) {
	d := newDesk(t, "")
	d.say(1, "google", "550 zorkmid alpha")
	d.say(5, "google", "550 zorkmid beta")
	d.say(3, "qq", "550 zorkmid gamma", "550 5.1.1 user unknown", "550 zorkmid delta")
	req := &veredusv1.ListReplyTextsRequest{PageSize: 2, Status: veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_TO_QUALIFY}
	var texts []string
	for pages := 0; ; pages++ {
		resp, err := d.ListReplyTexts(t.Context(), req)
		if err != nil || pages > 3 {
			t.Fatal(pages, err)
		}
		for _, text := range resp.GetReplyTexts() {
			texts = append(texts, text.GetNormalisedText())
			if q := text.GetQualification(); q.GetRule() != "class:5xx" || text.GetStatus() != req.Status || text.GetPhase() != "rcpt" {
				t.Errorf("%v", text)
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	slices.Sort(texts[1:3])
	if want := []string{"zorkmid beta", "zorkmid delta", "zorkmid gamma", "zorkmid alpha"}; !slices.Equal(texts, want) {
		t.Errorf("%q", texts)
	}
	resp, err := d.ListReplyTexts(t.Context(), &veredusv1.ListReplyTextsRequest{Provider: "qq", Status: veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_KEEP})
	if err != nil || len(resp.GetReplyTexts()) != 1 || resp.GetReplyTexts()[0].GetQualification().GetBounceCode() != 10 || resp.GetReplyTexts()[0].GetFirstReply() != "550 5.1.1 user unknown" {
		t.Errorf("%v %v", resp, err)
	}
}

// refused wants a refusal of one field.
func refused(t *testing.T, err error, field string) {
	t.Helper()
	var bad *campaign.InvalidError
	if !errors.As(err, &bad) || bad.Violations[0].Field != field || bad.Violations[0].Remedy == "" {
		t.Errorf("%v, want a refusal of %s", err, field)
	}
}

func TestPageTokensBelongToTheirList(t *testing.T) {
	d := newDesk(t, "")
	d.say(1, "", "550 zorkmid alpha", "550 zorkmid beta")
	page, err := d.ListReplyTexts(t.Context(), &veredusv1.ListReplyTextsRequest{PageSize: 1})
	if err != nil || page.GetNextPageToken() == "" {
		t.Fatal(page, err)
	}
	for _, req := range []*veredusv1.ListReplyTextsRequest{
		{PageToken: page.GetNextPageToken(), Provider: "qq"},
		{PageToken: page.GetNextPageToken() + "A"},
		{PageToken: "!"},
		{PageToken: page.GetNextPageToken()[1:]},
	} {
		_, err := d.ListReplyTexts(t.Context(), req)
		refused(t, err, "page_token")
	}
	_, err = d.ListReplyTexts(t.Context(), &veredusv1.ListReplyTextsRequest{PageSize: 1001})
	refused(t, err, "page_size")
	_, err = d.ListReplyTexts(t.Context(), &veredusv1.ListReplyTextsRequest{Status: 9})
	refused(t, err, "status")
}

func TestAChoiceBecomesARuleInForce(t *testing.T) {
	d := newDesk(t, "")
	name := d.say(4, "qq", "554 5.7.1 <ada@example.com>: Zorkmid {found} | in 10.1.2.3 ~ see https://example.com/x?y=1 ^_^ ... 100% $ \"quoted\"")
	resp := d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "mailbox_full"})
	if q := resp.GetReplyText().GetQualification(); q.GetBounceCode() != 22 || !strings.HasPrefix(q.GetRule(), "op.zorkmid-found-in-see-") {
		t.Errorf("%v", q)
	}
	if resp.GetFile() != d.file || !strings.Contains(d.content(), strings.TrimSpace(strings.Split(resp.GetRule(), "\n")[2])) {
		t.Errorf("%s\n%s", resp.GetRule(), d.content())
	}
	if resp.GetReplyText().GetStatus() != veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_KEEP {
		t.Errorf("status %v", resp.GetReplyText().GetStatus())
	}
	if v := d.meaning("452 4.2.0 <alan@example.org>: zorkmid found in 10.9.9.9 see https://example.net/z 7% quoted", ""); v.Code != 22 {
		t.Errorf("the same text with other variables: %+v", v)
	}
	for _, other := range []string{
		"554 5.7.1 more <ada@example.com>: Zorkmid found in 10.1.2.3 see https://example.com/ 100% quoted",
		"554 5.7.1 <ada@example.com>: Zorkmid found in 10.1.2.3 see https://example.com/ 100% quoted more",
		"554 5.7.1 Zorkmid found in 10.1.2.3",
	} {
		if v := d.meaning(other, ""); strings.HasPrefix(v.Rule, "op.") {
			t.Errorf("another text is decided by %s: %s", v.Rule, other)
		}
	}
	before, reloads := d.content(), d.reloads
	d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "mailbox_full"})
	if d.content() != before || d.reloads != reloads {
		t.Errorf("the same choice again:\n%s", d.content())
	}
	d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, BounceCode: 52})
	if n := strings.Count(d.content(), "- id:"); n != 1 || d.meaning("554 5.7.1 <x@example.com>: Zorkmid found in 10.1.2.3 see https://a.example/ 1% quoted", "").Code != 52 {
		t.Errorf("another choice: %d rules\n%s", n, d.content())
	}
}

const operatorsFile = `# Ours. Keep this line.
providers:
  - {id: acme, hosts: [.acme.example]} # our neighbours
rules:   # in this order

  # the first one
  - id: own.first
    match:
      text:
        - "gronk * refused"
    note: |
      several lines

      of text
    tag: policy

  - {id: own.second, match: {text: ["plugh"]}, tag: virus}
# the end
`

func TestTheOperatorsFileKeepsItsWords(t *testing.T) {
	for _, eol := range []string{"\n", "\r\n"} {
		file := strings.ReplaceAll(operatorsFile, "\n", eol)
		d := newDesk(t, file)
		name := d.say(1, "acme", "550 gronk was refused")
		d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "mailbox_full", Provider: "acme"})
		if v := d.meaning("550 gronk was refused", "acme"); v.Code != 22 {
			t.Errorf("%+v", v)
		}
		if v := d.meaning("550 gronk was refused", ""); v.Rule != "own.first" {
			t.Errorf("beyond its provider: %+v", v)
		}
		d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "user_unknown"})
		if a, b := d.meaning("550 gronk was refused", "acme").Code, d.meaning("550 gronk was refused", "").Code; a != 22 || b != 10 {
			t.Errorf("%d for the provider, %d for all", a, b)
		}
		d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "virus", Provider: "acme"})
		var left []string
		skip := false
		for line := range strings.SplitSeq(d.content(), eol) {
			if skip = strings.HasPrefix(line, "  - id: op.") || skip && strings.HasPrefix(line, "    "); !skip {
				left = append(left, line)
			}
		}
		if got := strings.Join(left, eol); got != file {
			t.Errorf("without the new rules it is\n%s", got)
		}
		if info, err := os.Stat(d.file); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%v %v", info, err)
		}
		if files, _ := filepath.Glob(filepath.Join(filepath.Dir(d.file), ".*")); len(files) > 0 {
			t.Errorf("left behind: %v", files)
		}
	}
}

func TestFilesOfManyForms(t *testing.T) {
	for _, file := range []string{"", "# only words", "---\n", "rules:", "rules: [] # none yet\n", "rules: null\n", "providers: []\n", "rules:\n- {id: a, match: {text: [gronk]}, tag: policy}"} {
		d := newDesk(t, file)
		name := d.say(1, "", "550 zorkmid")
		d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "mailbox_full"})
		if v := d.meaning("550 zorkmid", ""); v.Code != 22 {
			t.Errorf("%q: %+v\n%s", file, v, d.content())
		}
	}
	for _, file := range []string{"{rules: []}\n", "rules: [{id: a, match: {text: [gronk]}, tag: policy}]\n", "rules: &x []\n"} {
		d := newDesk(t, file)
		_, err := d.QualifyReplyText(t.Context(), &veredusv1.QualifyReplyTextRequest{Name: d.say(1, "", "550 zorkmid"), Tag: "virus"})
		if !errors.Is(err, ErrFile) || d.content() != file {
			t.Errorf("%q: %v\n%s", file, err, d.content())
		}
	}
}

// A rule that cannot come into force leaves no trace.
func TestARuleThatFailsIsTakenBack(t *testing.T) {
	for _, file := range []string{"", operatorsFile} {
		d := newDesk(t, file)
		name := d.say(1, "", "550 zorkmid")
		d.broken = errors.New("the rest of the configuration is wrong")
		_, err := d.QualifyReplyText(t.Context(), &veredusv1.QualifyReplyTextRequest{Name: name, Tag: "virus", RequestId: "r"})
		if !errors.Is(err, d.broken) {
			t.Error(err)
		}
		if content, err := os.ReadFile(d.file); string(content) != file || (file == "") != errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q %v", content, err)
		}
		d.broken = nil
		if resp := d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "virus", RequestId: "r"}); resp.GetReplyText().GetQualification().GetBounceCode() != 52 {
			t.Errorf("the call repeated: %v", resp)
		}
	}
}

func TestQualifyRefusesWhatIsWrong(t *testing.T) {
	d := newDesk(t, "")
	name := d.say(1, "qq", "550 zorkmid")
	keep := veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_KEEP
	for field, req := range map[string]*veredusv1.QualifyReplyTextRequest{
		"name":        {Name: "replyTexts/XYZ", Tag: "virus"},
		"tag":         {Name: name},
		"status":      {Name: name, Status: keep, Tag: "virus"},
		"bounce_code": {Name: name, BounceCode: 11},
		"provider":    {Name: name, Tag: "virus", Provider: "gogle"},
		"request_id":  {Name: name, Status: keep, RequestId: strings.Repeat("r", 129)},
	} {
		_, err := d.QualifyReplyText(t.Context(), req)
		refused(t, err, field)
	}
	_, err := d.QualifyReplyText(t.Context(), &veredusv1.QualifyReplyTextRequest{Name: name, Tag: "lunch"})
	refused(t, err, "tag")
	_, err = d.QualifyReplyText(t.Context(), &veredusv1.QualifyReplyTextRequest{Name: textsPrefix + strings.Repeat("0", 32), Status: keep})
	if !errors.Is(err, campaign.ErrNotFound) {
		t.Error(err)
	}
	d.file = ""
	_, err = d.QualifyReplyText(t.Context(), &veredusv1.QualifyReplyTextRequest{Name: name, Tag: "virus"})
	if !errors.Is(err, ErrNoFile) {
		t.Error(err)
	}
}

func TestAWordOfTheOperator(t *testing.T) {
	d := newDesk(t, "")
	name := d.say(1, "", "550 zorkmid")
	for _, status := range []veredusv1.ReplyTextStatus{veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_KEEP, veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_IGNORE, veredusv1.ReplyTextStatus_REPLY_TEXT_STATUS_TO_QUALIFY} {
		if got := d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Status: status}); got.GetReplyText().GetStatus() != status || got.GetRule() != "" {
			t.Errorf("%v", got)
		}
		list, err := d.ListReplyTexts(t.Context(), &veredusv1.ListReplyTextsRequest{Status: status})
		if err != nil || len(list.GetReplyTexts()) != 1 {
			t.Errorf("%v: %v %v", status, list, err)
		}
	}
}

func TestARequestIsAnsweredOnce(t *testing.T) {
	d := newDesk(t, "")
	name := d.say(1, "", "550 zorkmid")
	req := &veredusv1.QualifyReplyTextRequest{Name: name, Tag: "virus", RequestId: "once"}
	first := d.qualify(req)
	d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "mailbox_full"})
	if again := d.qualify(req); !proto.Equal(again, first) || d.meaning("550 zorkmid", "").Code != 22 {
		t.Errorf("%v", again)
	}
	_, err := d.QualifyReplyText(t.Context(), &veredusv1.QualifyReplyTextRequest{Name: name, Tag: "policy", RequestId: "once"})
	if !errors.Is(err, ErrRequestIDReused) {
		t.Error(err)
	}
}

func TestChoicesAtOnceAreMadeOneByOne(t *testing.T) {
	d := newDesk(t, operatorsFile)
	var names []string
	for i := range 20 {
		names = append(names, d.say(1, "", "550 zorkmid "+letters(i)))
	}
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			if _, err := d.QualifyReplyText(context.Background(), &veredusv1.QualifyReplyTextRequest{Name: name, Tag: "mailbox_full"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := strings.Count(d.content(), "id: op."); n != len(names) {
		t.Errorf("%d rules of %d", n, len(names))
	}
}

// Whatever a receiver says, a rule for it decides it, and choosing it again changes
// nothing. (That such a phrase matches nothing else is fuzzed beside the phrases.)
func TestAnyTextCanBeChosen(t *testing.T) {
	for _, reply := range []string{
		"550 5.1.1 <ada@example.com> user unknown",
		"554 {a|b} * ~c ... ^ $ \"x\" 'y' # z: [1]",
		"421 bo\xeete aux lettres pleine <id> <addr>",
		"550 邮箱已满 mailbox 300秒",
		"550 " + strings.Repeat("user mailbox quota full ip blocked ", 100),
		"550 5.7.1 5.1.1 550 550-5.1.1 e-mail x@y.z, RP-001 aup#1310 it's www.spamhaus.org/a",
		"550-first line\n550 second line",
	} {
		text, ok := newText(bounce.ParseReply(reply), "", noon)
		if !ok {
			t.Fatalf("%q has no words", reply)
		}
		c := &choice{text: &text, tag: "mailbox_full"}
		content, err := withRule([]byte(operatorsFile), c)
		if err != nil {
			t.Fatalf("%.80q: %v", reply, err)
		}
		if again, err := withRule(content, c); err != nil || string(again) != string(content) {
			t.Errorf("%.80q: again: %v\n%s", reply, err, again)
		}
	}
}

// No file is damaged, whatever is in it.
func FuzzOperatorsFile(f *testing.F) {
	f.Add([]byte(operatorsFile))
	f.Add([]byte("rules: [] # none\n"))
	f.Add([]byte("rules:\n- {id: a, match: {text: [gronk]}, tag: policy}\n...\n"))
	f.Add([]byte("\xef\xbb\xbfrules:\r\n  -\r\n    id: a\r\n    match: {text: [gronk]}\r\n    tag: policy\r\n"))
	f.Add([]byte("? rules\n: - {id: a, match: {text: [gronk]}, tag: policy}\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		before, err := bounce.Load(file, "own.yaml")
		if err != nil {
			return
		}
		text, _ := newText(bounce.ParseReply("550 zorkmid plover"), "", noon)
		content, err := withRule(file, &choice{text: &text, tag: "mailbox_full"})
		if err != nil {
			return // refused, and nothing is written
		}
		after, err := bounce.Load(content, "own.yaml")
		if err != nil {
			t.Fatalf("%v\n%s", err, content)
		}
		for _, reply := range []string{"550 gronk", "550 plugh", "550 gronk is refused", "550 user unknown", "421 busy"} {
			in := bounce.Input{Reply: bounce.ParseReply(reply)}
			if a, b := before.Qualify(in), after.Qualify(in); a != b {
				t.Errorf("%s: %s before, %s after\n%s", reply, a.Rule, b.Rule, content)
			}
		}
	})
}
