package campaign

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// FuzzRecipient: whatever a client sends becomes either an item that can be mailed, or a
// refusal that can be stored and read back.
func FuzzRecipient(f *testing.F) {
	f.Add("ada@example.com", []byte(`{"a":1}`), "crm-1", "k", "v")
	f.Add("\"A@b\"@EXAMPLE.com", []byte("[]"), strings.Repeat("x", 200), "", "")
	f.Add("j\u00f6rg@b\u00fccher.example", []byte(`{"a":"\xff"}`), "a\x00b", "k", strings.Repeat("v", 2000))
	f.Add("a@b.example", bytes.Repeat([]byte("{\"a\":"), 70), "", "\xff", "")
	f.Add("a@b.example", append(append(bytes.Repeat([]byte(`{"a":`), 70), '1'), bytes.Repeat([]byte("}"), 70)...), "", "", "")
	f.Add("", []byte(" {} "), "", "", "")
	f.Fuzz(func(t *testing.T, addr string, variables []byte, id, key, value string) {
		r := &veredusv1.Recipient{Address: addr, Variables: variables, RecipientId: id}
		if key != "" || value != "" {
			r.Metadata = map[string]string{key: value}
		}
		var item Item
		recipient(&item, r)
		if no := item.Reject; no != nil {
			if no.GetField() == "" || no.GetDescription() == "" || len(no.GetAddress()) > maxShownAddress || len(no.GetRecipientId()) > maxRecipientID {
				t.Fatalf("refused with %v", no)
			}
			if _, err := proto.Marshal(no); err != nil {
				t.Fatal(err)
			}
			if item.Address != "" || item.Variables != nil || item.Metadata != nil {
				t.Fatalf("a refused item holds more: %+v", item)
			}
			return
		}
		a, err := address.Parse(addr)
		if err != nil || item.Address != a.String() || item.Folded != a.Folded() || item.Domain != a.Domain || item.UTF8 != a.UTF8 {
			t.Fatalf("%q became %+v, not %+v (%v)", addr, item, a, err)
		}
		if len(item.Variables) > 0 {
			var object map[string]any
			if json.Unmarshal(item.Variables, &object) != nil || len(item.Variables) > maxVariables || !utf8.Valid(item.Variables) {
				t.Fatalf("variables %q were taken", item.Variables)
			}
		}
		if len(item.RecipientID) > maxRecipientID || strings.ContainsAny(item.RecipientID, "\x00\r\n") {
			t.Fatalf("recipient_id %q was taken", item.RecipientID)
		}
	})
}

// FuzzPageToken: no text panics, and only what was given is taken back, by the same query.
func FuzzPageToken(f *testing.F) {
	q := query("List", &veredusv1.ListDeliveriesRequest{Tenant: "a"})
	f.Add(pageToken(q, number(7)), []byte("cursor"))
	f.Add("", []byte{})
	f.Add("AQ", []byte{0xff})
	f.Add(strings.Repeat("A", 600), []byte{1})
	f.Fuzz(func(t *testing.T, token string, cursor []byte) {
		v := violations{}
		if got := v.cursor(q, token); len(v.list) == 0 && token != "" && pageToken(q, got) != token {
			t.Fatalf("%q was taken and is not what we give", token)
		}
		_ = v.number(cursor)
		if len(cursor) > 100 {
			return
		}
		v = violations{}
		given := pageToken(q, cursor)
		if got := v.cursor(q, given); !bytes.Equal(got, cursor) || v.err() != nil {
			t.Fatalf("%x came back as %x: %v", cursor, got, v.err())
		}
		if given == "" {
			return
		}
		other := query("List", &veredusv1.ListDeliveriesRequest{Tenant: "b"})
		if v.cursor(other, given); len(v.list) != 1 {
			t.Fatal("another query took it")
		}
		if query("List", &veredusv1.ListDeliveriesRequest{Tenant: "a", PageSize: 9, PageToken: given}) != q {
			t.Fatal("the page is part of the query")
		}
	})
}

// FuzzNames: names that are taken read back as they were.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"deliveries/spring", "deliveries/-", "deliveries/a/messages/04", "deliveries/9", "deliveries/a/messages/", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		v := violations{}
		if id := v.delivery("name", name); v.err() == nil && deliveryName(id) != name {
			t.Fatalf("%q reads as %q", name, id)
		}
		v = violations{}
		delivery, id := v.message("name", name)
		if err := v.err(); err == nil && messageName(delivery, id) != name {
			t.Fatalf("%q reads as %q, %v", name, delivery, id)
		}
		var bad *InvalidError
		if err := v.err(); err != nil && (!errors.As(err, &bad) || len(err.Error()) > 500 || !utf8.ValidString(err.Error())) {
			t.Fatalf("%q", err)
		}
	})
}

// FuzzMask: no mask panics, changes what cannot be changed, or touches a field beside it.
func FuzzMask(f *testing.F) {
	for _, s := range []string{
		"content.subject", "sender", "content content.subject", "metadata label", "unsubscribe.url priority", "kpis", "tenant", "content.", ".", "*", "content.headers.name",
	} {
		f.Add(s)
	}
	old := &veredusv1.Delivery{Tenant: "a", Label: "old", Content: &veredusv1.Content{Subject: "old", Text: "old"}, Metadata: map[string]string{"a": "old"}}
	with := &veredusv1.Delivery{
		Name: "deliveries/d", Tenant: "b", State: 3, Label: "new", Content: &veredusv1.Content{Subject: "new"},
		Sender: &veredusv1.Sender{From: "a@b.example"}, Kpis: &veredusv1.Kpis{Sent: 9},
	}
	f.Fuzz(func(t *testing.T, paths string) {
		v := violations{}
		m := v.mask(strings.Fields(paths))
		before := proto.CloneOf(with)
		got := m.apply(old, with)
		if !proto.Equal(before, with) {
			t.Fatal("the request was changed")
		}
		if got.GetTenant() != "a" || got.GetState() != 0 || got.GetName() != "" || got.GetKpis() != nil {
			t.Fatalf("%q changed what is not the client's: %v", paths, got)
		}
		named := func(path string) bool {
			return slices.ContainsFunc(m.paths, func(p string) bool { return p == path || strings.HasPrefix(path, p+".") })
		}
		if (got.GetLabel() == "new") != named("label") || (got.GetContent().GetSubject() == "new") != named("content.subject") ||
			(got.GetContent().GetText() == "") != named("content.text") || (got.GetSender().GetFrom() != "") != named("sender.from") {
			t.Fatalf("%q gave %v", paths, got)
		}
	})
}

// FuzzDepth: the depth of valid JSON is what a decoder finds.
func FuzzDepth(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,{"b":"}]\\\""}]}`, `"\\"`, `[[[]],[]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var v any
		if json.Unmarshal(raw, &v) != nil {
			return
		}
		if got, want := depth(raw), depthOf(v); got < want || got > want && !bytes.ContainsRune(raw, '"') {
			t.Fatalf("%s is %d deep, not %d", raw, want, got)
		}
	})
}

// depthOf is the depth of a decoded value; keys given twice hide some.
func depthOf(v any) int {
	deepest := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
	default:
		return 0
	}
	return deepest + 1
}

// TestWhatIsTakenInRenders: the deepest variables that are taken are not too deep later.
func TestWhatIsTakenInRenders(t *testing.T) {
	tmpl, err := compose.Compile(compose.Source{From: compose.Mailbox{Address: "a@b.example"}, Subject: "s", Text: "{{ a }}"})
	if err != nil {
		t.Fatal(err)
	}
	for deep := 1; deep < 100; deep++ {
		raw := []byte(strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep))
		problem, _ := variablesProblem(raw)
		_, err := tmpl.Render(t.Context(), compose.Job{To: "c@d.example", Variables: raw, MessageID: "x@b.example", Date: time.Unix(1e9, 0)})
		if (problem == "") != (err == nil) {
			t.Fatalf("depth %d: taken in: %q, rendered: %v", deep, problem, err)
		}
	}
}
