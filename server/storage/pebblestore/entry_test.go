package pebblestore

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/learning"
)

func TestEveryFieldOfAnEntryIsKept(t *testing.T) {
	n := 0
	var evidence address.Evidence
	fill(reflect.ValueOf(&evidence).Elem(), &n)
	if got := must[address.Evidence](t)(decodeEvidence(encodeEvidence(&evidence))); got != evidence {
		t.Errorf("evidence:\n got %+v\nwant %+v", got, evidence)
	}
	var text learning.Text
	for v, i := reflect.ValueOf(&text).Elem(), 0; i < v.NumField(); i++ {
		if k := v.Field(i).Kind(); k != reflect.Map && k != reflect.Array {
			fill(v.Field(i), &n)
		}
	}
	text.ID, text.Providers = learning.ID{1, 2}, map[string]int64{"google": 3, "other": 4}
	if got := must[*learning.Text](t)(decodeReplyText(text.ID, encodeReplyText(&text))); !reflect.DeepEqual(got, &text) {
		t.Errorf("text:\n got %+v\nwant %+v", got, &text)
	}
}

func FuzzEntryRows(f *testing.F) {
	e := address.Entry{Address: "A@b.test", Status: address.Counting, Evidence: []address.Evidence{{Text: "no", Change: address.Counted}}}
	e.Key = address.Key{Folded: "a@b.test", Scope: address.Scope{Tenant: "acme", Class: address.Marketing, List: "news.example"}}
	f.Add(entryKey(&e.Key), encodeEntry(&e))
	f.Add(entryOfKey("b.test", entryKey(&e.Key)), encodeAnswer([]address.Entry{e}))
	f.Add([]byte{tableEntry}, encodeLinkKeys([]address.LinkKey{{ID: 1}}))
	f.Add([]byte{tableReplyText}, encodeReplyText(&learning.Text{Normalised: "no", Providers: map[string]int64{"google": 1}}))
	f.Fuzz(func(_ *testing.T, k, row []byte) {
		_, _ = decodeEntry(k, row)
		_, _ = decodeAnswer([]address.Key{{}, {}}, row)
		_, _ = decodeReplyText(learning.ID{}, row)
		parseEntryOfKey(k)
		covered(k, &address.Query{Tenant: "acme"})
		splitKey(k)
	})
}

// put stores an entry of an address for all tenants.
func put(t testing.TB, s *Store, e address.Entry, folded ...string) {
	t.Helper()
	var keys []address.Key
	for _, f := range folded {
		keys = append(keys, address.Key{Folded: f, Scope: address.Scope{Class: address.Everything}})
	}
	_, err := s.ChangeAddressEntries(context.Background(), keys, address.Request{}, "", func(old address.Entry) address.Entry {
		e.Address = old.Folded
		return e
	})
	check(t, err)
}

func excluded(t testing.TB, s *Store, folded string) bool {
	t.Helper()
	got, err := s.Exclusions(context.Background(), []address.Query{{Folded: folded, Class: address.Everything}})
	check(t, err)
	return got[0].Excluded()
}

func someAddresses(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("gone%d@a.test", i))
	}
	return list
}

// What is in quarantine is so before, while and after the filter is read, and when there is none.
func TestTheFilterOfEntriesHidesNothing(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	list := someAddresses(500)
	quarantined := address.Entry{Status: address.Quarantined}
	put(t, s, quarantined, list...)
	ask := func(state string) {
		t.Helper()
		for _, a := range list {
			if !excluded(t, s, a) {
				t.Fatalf("%s: %s is not excluded", state, a)
			}
		}
		if excluded(t, s, "somebody@a.test") {
			t.Errorf("%s: somebody is excluded", state)
		}
	}
	ask("as stored")
	check(t, s.Close())
	s = open(t, fs)
	put(t, s, quarantined, "late@a.test")
	list = append(list, "late@a.test")
	ask("just opened")
	s.filters.readers.Wait()
	if f := &s.entryFilter; !f.complete || f.mayHave(hashOf("somebody@a.test")) {
		t.Error("the filter was not read")
	}
	ask("with the filter")
	s.entryFilter.size = maxEntryFilter + 1
	put(t, s, quarantined, "straw@a.test")
	if f := &s.entryFilter; !f.full || f.layers != nil {
		t.Error("the filter grew beyond its bound")
	}
	ask("without a filter")
}

// Counters that ran out leave the disk as others come; nothing else does.
func TestCountersThatRanOutLeaveTheDisk(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	s := open(t, vfs.NewMem(), func(o *Options) { o.Now = func() time.Time { return now } })
	put(t, s, address.Entry{Status: address.Counting, Errors: 1, LastError: now, Updated: now}, someAddresses(300)...)
	put(t, s, address.Entry{Status: address.Quarantined, LastError: now}, "kept@a.test")
	rows := func() (n int) {
		check(t, s.scan(nil, []byte{tableEntry}, after([]byte{tableEntry}), func(_, _ []byte) (bool, error) { n++; return true, nil }))
		return n
	}
	now = now.AddDate(0, 0, 20)
	for i := range 100 {
		put(t, s, address.Entry{Status: address.Denylisted}, fmt.Sprintf("new%d@b.test", i))
	}
	if n := rows(); n != 101 || s.entryCount.Load() != 101 || int(must[uint64](t)(s.readNumber(metaEntries))) != n {
		t.Errorf("%d rows, %d counted", n, s.entryCount.Load())
	}
	if !excluded(t, s, "kept@a.test") || excluded(t, s, "gone1@a.test") {
		t.Error("quarantine went, or a counter excludes")
	}
}

// Asking and changing run side by side.
func TestExclusionsBesideChanges(t *testing.T) {
	s := open(t, vfs.NewMem(), func(o *Options) { o.MemTableBytes = 256 << 10 })
	list := someAddresses(200)
	put(t, s, address.Entry{Status: address.Quarantined}, list...)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				for _, a := range list[:100] {
					if !excluded(t, s, a) {
						t.Errorf("%s is not excluded", a)
						return
					}
				}
			}
		})
	}
	for i := range 20 {
		status := address.Status(i%2) * address.Quarantined
		put(t, s, address.Entry{Status: status}, list[100:]...)
	}
	group.Wait()
}

// A filter chooses entries by domain without reading those of others.
func TestListingADomainReadsThatDomain(t *testing.T) {
	cost := func(others int) int64 {
		s := open(t, vfs.NewMem())
		for from := 0; from < others; from += 1000 {
			var list []string
			for i := range 1000 {
				list = append(list, fmt.Sprintf("u%d@b.test", from+i))
			}
			put(t, s, address.Entry{Status: address.Quarantined}, list...)
		}
		put(t, s, address.Entry{Status: address.Quarantined}, someAddresses(10)...)
		check(t, s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
		before := s.db.Metrics().BlockCache
		page, next, err := s.ListAddressEntries(t.Context(), address.Filter{Domain: "a.test"}, nil, 100)
		if err != nil || len(page) != 10 || next != nil {
			t.Fatalf("%d of 10 entries, %v", len(page), err)
		}
		m := s.db.Metrics().BlockCache
		return m.Hits + m.Misses - before.Hits - before.Misses
	}
	if few, many := cost(0), cost(20_000); many > few+100 {
		t.Errorf("listing 10 entries reads %d blocks alone and %d beside 20,000 others", few, many)
	}
}

// An operation that fails leaves no entry behind, and nothing in memory.
func TestAFailedChangeLeavesNoEntry(t *testing.T) {
	s := open(t, vfs.NewMem())
	check(t, s.db.Set(append(entryKey(&address.Key{Folded: "bad@a.test", Scope: address.Scope{Class: address.Everything}}), 'x'), []byte{0xff}, pebble.Sync))
	s.entryCount.Store(1)
	s.entryFilter.add(hashOf("bad@a.test"))
	keys := []address.Key{
		{Folded: "good@a.test", Scope: address.Scope{Class: address.Everything}},
		{Folded: "bad@a.test", Scope: address.Scope{Class: address.Everything}},
	}
	_, end := s.Ends()
	_, err := s.ChangeAddressEntries(t.Context(), keys, address.Request{ID: "r"}, "audit", func(address.Entry) address.Entry {
		return address.Entry{Status: address.Denylisted}
	})
	if err == nil {
		t.Fatal("a corrupt row went unnoticed")
	}
	if _, now := s.Ends(); excluded(t, s, "good@a.test") || now[0] != end[0] || s.entryCount.Load() != 1 {
		t.Error("a failed change left something behind")
	}
}
