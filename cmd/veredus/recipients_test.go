package main

import (
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// readAll reads recipients as `send -` does.
func readAll(format, content string) ([]*veredusv1.Recipient, error) {
	file, err := openRecipients("-", format, 0, strings.NewReader(content))
	if err != nil {
		return nil, err
	}
	var all []*veredusv1.Recipient
	for r, err := range file.source(1) {
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

func TestRecipientsAreRead(t *testing.T) {
	ada := &veredusv1.Recipient{Address: "ada@example.com", RecipientId: "1", Variables: []byte(`{"name":"Ada"}`)}
	alan := &veredusv1.Recipient{Address: "alan@example.com", RecipientId: "2", Variables: []byte(`{"name":"Alan"}`)}
	cases := []struct {
		name, format, content string
		want                  []*veredusv1.Recipient
	}{
		{"CSV", "csv", "email,recipient_id,name\nada@example.com,1,Ada\nalan@example.com,2,Alan\n", []*veredusv1.Recipient{ada, alan}},
		{"CSV with semicolons, as spreadsheets write it", "csv", "\ufeffAddress;Recipient_ID;name\r\nada@example.com;1;Ada\r\n", []*veredusv1.Recipient{ada}},
		{"tabs", "csv", "name\te-mail\trecipient_id\nAda\tada@example.com\t1\n", []*veredusv1.Recipient{ada}},
		{"CSV without variables", "csv", "email\nada@example.com\n\nalan@example.com\n", []*veredusv1.Recipient{{Address: "ada@example.com"}, {Address: "alan@example.com"}}},
		{
			"CSV with metadata and quotes", "csv", "email,metadata.list,\"full, name\"\nada@example.com,spring,\"Ada \"\"the\"\" Countess\"\n",
			[]*veredusv1.Recipient{{Address: "ada@example.com", Metadata: map[string]string{"list": "spring"}, Variables: []byte(`{"full, name":"Ada \"the\" Countess"}`)}},
		},
		{
			"a second address column is a variable", "csv", "email,address\nada@example.com,12 St James's Square\n",
			[]*veredusv1.Recipient{{Address: "ada@example.com", Variables: []byte(`{"address":"12 St James's Square"}`)}},
		},
		{
			"JSON lines", "jsonl", `{"email":"ada@example.com","recipient_id":"1","name":"Ada"}` + "\n\n" + `{"address":"alan@example.com","recipient_id":"2","variables":{"name":"Alan"}}`,
			[]*veredusv1.Recipient{ada, alan},
		},
		{
			"JSON keeps types", "jsonl", `{"address":"a@example.com","points":12,"vip":true,"tags":["x"],"metadata":{"k":"v"}}`,
			[]*veredusv1.Recipient{{Address: "a@example.com", Metadata: map[string]string{"k": "v"}, Variables: []byte(`{"points":12,"tags":["x"],"vip":true}`)}},
		},
		{
			"JSON with nulls", "jsonl", `{"address":"a@example.com","variables":null,"metadata":null,"name":null}`,
			[]*veredusv1.Recipient{{Address: "a@example.com", Variables: []byte(`{"name":null}`)}},
		},
		{
			"who is engaged, CSV", "csv", "email,Engaged\nada@example.com,yes\nalan@example.com,\n",
			[]*veredusv1.Recipient{{Address: "ada@example.com", Engaged: true}, {Address: "alan@example.com"}},
		},
		{
			"who is engaged, JSON lines", "jsonl", `{"email":"ada@example.com","engaged":true}` + "\n" + `{"email":"alan@example.com","engaged":false}`,
			[]*veredusv1.Recipient{{Address: "ada@example.com", Engaged: true}, {Address: "alan@example.com"}},
		},
		{"no recipients", "csv", "email,name\n", nil},
		{"an empty JSON lines file", "jsonl", "\n\n", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := readAll(c.format, c.content)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d recipients, want %d", len(got), len(c.want))
			}
			for i := range got {
				if !proto.Equal(got[i], c.want[i]) {
					t.Errorf("recipient %d: %v, want %v", i, got[i], c.want[i])
				}
			}
		})
	}
}

func TestMistakesInRecipientFilesAreNamed(t *testing.T) {
	cases := []struct{ name, format, content, want string }{
		{"empty", "csv", "", "standard input: the file is empty; its first line must name the columns"},
		{"no header", "csv", "ada@example.com,Ada\n", `standard input:1: the header row has no column "email" or "address" but "ada@example.com", "Ada"`},
		{"unnamed column", "csv", "email,,name\n", "standard input:1: column 2 of the header row has no name"},
		{"column twice", "csv", "email,name,name\n", `standard input:1: column "name" occurs twice`},
		{"half engaged", "csv", "email,engaged\nada@example.com,perhaps\n", `standard input:2: engaged: "perhaps" is neither true nor false`},
		{"engaged in words", "jsonl", `{"email":"ada@example.com","engaged":"yes"}`, `standard input:1: "engaged"`},
		{"too few fields", "csv", "email,name\nada@example.com,Ada\nalan@example.com\n", "standard input:3: wrong number of fields"},
		{"stray quote", "csv", "email,name\nada@example.com,A\"da\n", `standard input:2: bare " in non-quoted-field`},
		{"not JSON", "jsonl", "{\"email\":\"a@example.com\"}\nada@example.com\n", "standard input:2: not a JSON object"},
		{"JSON of another kind", "jsonl", "[1]", "standard input:1: not a JSON object"},
		{"no address", "jsonl", `{"name":"Ada"}`, `standard input:1: 0 addresses; give one as "address" or "email"`},
		{"two addresses", "jsonl", `{"email":"a@example.com","address":"b@example.com"}`, "standard input:1: 2 addresses"},
		{"address of another type", "jsonl", `{"email":7}`, `standard input:1: "email": json: cannot unmarshal number`},
		{"metadata of another type", "jsonl", `{"email":"a@example.com","metadata":{"a":1}}`, `standard input:1: "metadata": json`},
		{"variable twice", "jsonl", `{"email":"a@example.com","variables":{"n":1},"n":2}`, `"n" is given beside "variables" and within`},
		{"endless line", "jsonl", `{"email":"` + strings.Repeat("a", 2<<20), "standard input:1: the line is longer than 1048576 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := readAll(c.format, c.content)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestRecipientFileIsReadFromAnIndexOn(t *testing.T) {
	file, err := openRecipients(write(t, "r.csv", "email\na@x.example\nb@x.example\nc@x.example\n"), "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := file.count()
	if err != nil || n != 3 {
		t.Fatalf("count %d, %v", n, err)
	}
	for first, want := range map[int64][]string{1: {"a", "b", "c"}, 3: {"c"}, 4: nil, 9: nil} {
		var got []string
		for r, err := range file.source(first) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.GetAddress()[:1])
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from %d: %v, want %v", first, got, want)
		}
	}
}

func TestStandardInputIsReadOnce(t *testing.T) {
	file, err := openRecipients("-", "csv", 0, strings.NewReader("email\na@x.example\n"))
	if err != nil {
		t.Fatal(err)
	}
	for range file.source(1) {
		continue
	}
	for _, err := range file.source(1) {
		if err == nil || !strings.Contains(err.Error(), "give a file") {
			t.Errorf("error %v", err)
		}
	}
}

func FuzzRecipients(f *testing.F) {
	f.Add("csv", "email,name\na@example.com,Ada\n")
	f.Add("csv", "\ufeffaddress;recipient_id;metadata.k\n\"a\";b;c\n")
	f.Add("jsonl", `{"email":"a@example.com","variables":{"a":[1,{"b":null}]}}`)
	f.Add("jsonl", `{"address":null,"metadata":null,"variables":null,"x":1e999}`)
	f.Fuzz(func(t *testing.T, format, content string) {
		all, err := readAll(format, content)
		for _, r := range all {
			if len(r.GetVariables()) > 0 && !json.Valid(r.GetVariables()) {
				t.Fatalf("variables are not JSON: %q", r.GetVariables())
			}
		}
		if err != nil && err != io.EOF && err.Error() == "" {
			t.Fatal("an error without a text")
		}
	})
}

func BenchmarkReadCSV(b *testing.B) {
	var content strings.Builder
	content.WriteString("email,recipient_id,first_name,city\n")
	for range b.N {
		content.WriteString("ada.lovelace@example.com,crm-1815,Ada,London\n")
	}
	b.ReportAllocs()
	b.ResetTimer()
	if all, err := readAll("csv", content.String()); err != nil || len(all) != b.N {
		b.Fatal(len(all), err)
	}
}
