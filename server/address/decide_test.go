package address

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

func TestDecide(t *testing.T) {
	at := func(tenant string, class Class, list string, status Status) Entry {
		return Entry{Key: Key{Folded: "ada@example.com", Scope: Scope{tenant, class, list}}, Status: status, LastError: start}
	}
	unsubscribed := func(list string) Entry {
		e := at("acme", Marketing, list, Denylisted)
		e.Origin = FromUnsubscribe
		return e
	}
	provisional := at("acme", Everything, "", Quarantined)
	provisional.Provisional = true
	news := Query{Folded: "ada@example.com", Tenant: "acme", List: "news", Class: Marketing}
	receipt := Query{Folded: "ada@example.com", Tenant: "acme", Class: Everything}
	const goes, denied, quarantined, ignored = bounce.ReasonNotDefined, bounce.ReasonDenylisted, bounce.ReasonInQuarantine, bounce.ReasonErrorIgnored
	for name, tc := range map[string]struct {
		q       Query
		after   time.Duration
		entries []Entry
		want    bounce.Reason
		by      int // index of the entry that decides, -1: none
	}{
		"nothing known":                                {news, 0, nil, goes, -1},
		"errors are counted":                           {news, 0, []Entry{at("acme", Everything, "", Counting)}, goes, -1},
		"quarantined":                                  {news, 0, []Entry{at("acme", Everything, "", Quarantined)}, quarantined, 0},
		"quarantined for all tenants":                  {receipt, 0, []Entry{at("", Everything, "", Quarantined)}, quarantined, 0},
		"quarantined for another tenant":               {news, 0, []Entry{at("other", Everything, "", Quarantined)}, goes, -1},
		"quarantined long ago":                         {news, 9999 * time.Hour, []Entry{at("acme", Everything, "", Quarantined)}, quarantined, 0},
		"provisional, within the hold":                 {news, day - 1, []Entry{provisional}, quarantined, 0},
		"provisional, put to the test":                 {news, day, []Entry{provisional}, goes, -1},
		"denylisted for marketing":                     {news, 0, []Entry{at("acme", Marketing, "", Denylisted)}, denied, 0},
		"but a receipt goes":                           {receipt, 0, []Entry{at("acme", Marketing, "", Denylisted)}, goes, -1},
		"denylisted for everything":                    {receipt, 0, []Entry{at("acme", Everything, "", Denylisted)}, denied, 0},
		"denylisted before quarantined":                {news, 0, []Entry{at("acme", Everything, "", Quarantined), at("acme", Marketing, "", Denylisted)}, denied, 1},
		"unsubscribed from this list":                  {news, 0, []Entry{unsubscribed("news")}, denied, 0},
		"unsubscribed from another list":               {news, 0, []Entry{unsubscribed("offers")}, goes, -1},
		"unsubscribed from a list, but not a receipt":  {receipt, 0, []Entry{unsubscribed("news")}, goes, -1},
		"allowlisted, nothing else":                    {news, 0, []Entry{at("", Everything, "", Allowlisted)}, goes, 0},
		"allowlisted, an error is ignored":             {news, 0, []Entry{at("acme", Everything, "", Quarantined), at("", Everything, "", Allowlisted)}, ignored, 1},
		"allowlisted, a complaint is ignored":          {news, 0, []Entry{at("", Everything, "", Allowlisted), at("acme", Marketing, "", Denylisted)}, ignored, 0},
		"allowlisted, the error is on probation":       {news, day, []Entry{at("", Everything, "", Allowlisted), provisional}, goes, 0},
		"allowlisted, unsubscribed from the list":      {news, 0, []Entry{at("", Everything, "", Allowlisted), unsubscribed("news")}, denied, 1},
		"allowlisted, unsubscribed from all lists":     {news, 0, []Entry{at("", Everything, "", Allowlisted), unsubscribed("")}, denied, 1},
		"unsubscribed from all, came back to the list": {news, 0, []Entry{at("acme", Marketing, "news", Allowlisted), unsubscribed("")}, ignored, 0},
		"allowlisted for marketing, a receipt":         {receipt, 0, []Entry{at("acme", Marketing, "", Allowlisted), at("acme", Everything, "", Quarantined)}, quarantined, 1},
		"the tenant's own entry is named":              {news, 0, []Entry{at("", Everything, "", Quarantined), at("acme", Everything, "", Quarantined)}, quarantined, 1},
		"another address":                              {Query{Folded: "bob@example.com", Tenant: "acme", Class: Marketing}, 0, []Entry{at("acme", Everything, "", Quarantined)}, goes, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var by Key
			if tc.by >= 0 {
				by = tc.entries[tc.by].Key
			}
			entries := append([]Entry(nil), tc.entries...)
			for range 3 { // in any order
				got := Decide(entries, tc.q, DefaultPolicy(), start.Add(tc.after))
				if got.Reason != tc.want || got.By != by {
					t.Errorf("%v by %v, want %v by %v", got.Reason, got.By, tc.want, by)
				}
				if got.Excluded() != (tc.want == denied || tc.want == quarantined) {
					t.Errorf("excluded %v", got.Excluded())
				}
				rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	entries := []Entry{
		{Key: Key{Folded: "ada@example.com", Scope: Scope{"acme", Everything, ""}}, Status: Quarantined},
		{Key: Key{Folded: "ada@example.com", Scope: Scope{"acme", Marketing, "news"}}, Status: Denylisted},
		{Key: Key{Folded: "ada@example.com", Scope: Scope{"", Everything, ""}}, Status: Allowlisted},
	}
	q, p := Query{Folded: "ada@example.com", Tenant: "acme", List: "news", Class: Marketing}, DefaultPolicy()
	b.ReportAllocs()
	for b.Loop() {
		Decide(entries, q, p, start)
	}
}
