package address

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// desk is a service over a store in memory, with a clock that the test sets.
type desk struct {
	*Service
	m   *memory
	now time.Time
	ctx context.Context
}

func newDesk(t *testing.T) *desk {
	d := &desk{now: start, ctx: t.Context()}
	d.m = newMemory(func() time.Time { return d.now })
	d.Service = d.m.service()
	return d
}

// hard quarantines an address as a reply would.
func (d *desk) hard(t testing.TB, to, text string, provisional bool) {
	t.Helper()
	k := Key{Folded: strings.ToLower(to), Scope: Scope{"acme", Everything, ""}}
	_, err := d.m.ChangeAddressEntries(d.ctx, []Key{k}, Request{}, "", func(e Entry) Entry {
		return Failed(e, Cause{
			Evidence: Evidence{Time: d.now, Text: text, ReplyCode: 550, Effect: bounce.AddressSuppress, Event: "e1"},
			Address:  to, Origin: FromBounce, Reason: bounce.ReasonUserUnknown, Provisional: provisional,
		}, d.m.policy)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// must is the answer of a call that does not fail.
func must[T any](answer T, err error) T {
	if err != nil {
		panic(err)
	}
	return answer
}

func deny(to, tenant, list string) *veredusv1.AddressEntry {
	scope := &veredusv1.AddressScope{Tenant: tenant, ListId: list}
	if tenant != "" {
		scope.MailClass = veredusv1.MailClass_MAIL_CLASS_MARKETING
	}
	return &veredusv1.AddressEntry{Address: to, Scope: scope, Status: veredusv1.AddressStatus_ADDRESS_STATUS_DENYLISTED, Comment: "asked us by phone"}
}

func TestAnOperatorPutsGetsAndDeletes(t *testing.T) {
	d := newDesk(t)
	put := &veredusv1.PutAddressEntryRequest{Entry: deny("Ada@Example.com", "acme", "News.Example"), RequestId: "r1"}
	first := must(d.PutAddressEntry(d.ctx, put))
	if first.GetAddress() != "Ada@example.com" || first.GetScope().GetListId() != "news.example" ||
		first.GetOrigin() != veredusv1.AddressOrigin_ADDRESS_ORIGIN_OPERATOR || first.GetEvidence()[0].GetChange() != "denylisted" {
		t.Errorf("%v", first)
	}
	d.now = d.now.Add(time.Hour)
	if again := must(d.PutAddressEntry(d.ctx, put)); !proto.Equal(first, again) {
		t.Errorf("repeated: %v", again)
	}
	put.RequestId = "r2"
	if same := must(d.PutAddressEntry(d.ctx, put)); !proto.Equal(first, same) {
		t.Errorf("put as it is: %v", same)
	}
	put.Entry.Comment = "changed"
	if _, err := d.PutAddressEntry(d.ctx, put); !errors.Is(err, ErrRequestIDReused) {
		t.Errorf("another body: %v", err)
	}

	get := &veredusv1.GetAddressRequest{Address: "ADA@example.com", Tenant: "acme", ListId: "NEWS.example"}
	got := must(d.GetAddress(d.ctx, get))
	if !got.GetExcluded() || got.GetReason() != veredusv1.FailureReason_FAILURE_REASON_DENYLISTED ||
		got.GetBecause() != "denylisted for tenant acme, list news.example since 2026-03-02 09:00:00 UTC: asked us by phone" {
		t.Errorf("%v", got)
	}
	get.Tenant = ""
	if got := must(d.GetAddress(d.ctx, get)); got.GetExcluded() || len(got.GetEntries()) != 1 || got.GetBecause() != "no entry is about it" {
		t.Errorf("of the default tenant: %v", got)
	}

	remove := &veredusv1.DeleteAddressEntryRequest{Name: first.GetName(), RequestId: "r3"}
	if was := must(d.DeleteAddressEntry(d.ctx, remove)); !proto.Equal(was, first) {
		t.Errorf("deleted %v", was)
	}
	if was := must(d.DeleteAddressEntry(d.ctx, remove)); !proto.Equal(was, first) {
		t.Errorf("deleted again %v", was)
	}
	remove.RequestId = ""
	var missing *NotFoundError
	if _, err := d.DeleteAddressEntry(d.ctx, remove); !errors.As(err, &missing) || missing.Resource != first.GetName() {
		t.Errorf("deleted twice: %v", err)
	}
	byScope := &veredusv1.DeleteAddressEntryRequest{Address: "ada@example.com", Scope: first.GetScope()}
	if _, err := d.DeleteAddressEntry(d.ctx, byScope); !errors.Is(err, ErrNotFound) {
		t.Errorf("by scope: %v", err)
	}
	want := []string{"1: denylisted ada@example.com for tenant acme, list news.example: asked us by phone", "1: deleted: ada@example.com was denylisted for tenant acme, list news.example"}
	if fmt.Sprint(d.m.audits) != fmt.Sprint(want) {
		t.Errorf("%q", d.m.audits)
	}
}

func TestVerdictsInWords(t *testing.T) {
	d := newDesk(t)
	d.hard(t, "gone@example.com", "550 no such user", true)
	d.hard(t, "vip@example.com", "550 no such user", false)
	must(d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: &veredusv1.AddressEntry{
		Address: "vip@example.com", Status: veredusv1.AddressStatus_ADDRESS_STATUS_ALLOWLISTED,
	}}))
	for _, tc := range []struct {
		to      string
		after   time.Duration
		reason  bounce.Reason
		because string
	}{
		{"gone@example.com", 0, 9, "quarantined for tenant acme, all mail since 2026-03-02 09:00:00 UTC: 550 no such user (provisional, until 2026-03-03 09:00:00 UTC)"},
		{"gone@example.com", day, 0, "nothing excludes it: a provisional quarantine is past its hold and the next mail puts it to the test, for tenant acme, all mail"},
		{"vip@example.com", 0, 25, "allowlisted for all tenants, all mail; another entry would exclude it"},
	} {
		d.now = start.Add(tc.after)
		got := must(d.GetAddress(d.ctx, &veredusv1.GetAddressRequest{Address: tc.to, Tenant: "acme"}))
		if got.GetReason() != veredusv1.FailureReason(tc.reason) || got.GetBecause() != tc.because {
			t.Errorf("%s: %v: %s", tc.to, got.GetReason(), got.GetBecause())
		}
	}
}

func TestListingIsComplete(t *testing.T) {
	d := newDesk(t)
	for i := range 57 {
		d.hard(t, fmt.Sprintf("u%d@%s.example", i, []string{"a", "b"}[i%2]), fmt.Sprintf("550 User %d unknown", i%3), i%5 == 0)
		d.now = d.now.Add(time.Minute)
	}
	must(d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: deny("u1@a.example", "", "")}))
	d.m.rows = 4
	for name, tc := range map[string]struct {
		f    *veredusv1.AddressFilter
		want int
	}{
		"all":         {nil, 58},
		"domain":      {&veredusv1.AddressFilter{Domain: "A.Example"}, 30},
		"status":      {&veredusv1.AddressFilter{Status: veredusv1.AddressStatus_ADDRESS_STATUS_DENYLISTED}, 1},
		"tenant":      {&veredusv1.AddressFilter{Tenant: "acme"}, 57},
		"all tenants": {&veredusv1.AddressFilter{Tenant: "*"}, 1},
		"text":        {&veredusv1.AddressFilter{Text: "USER 1 "}, 19},
		"window":      {&veredusv1.AddressFilter{StartTime: timestamppb.New(start.Add(10 * time.Minute)), EndTime: timestamppb.New(start.Add(20 * time.Minute))}, 10},
		"provisional": {&veredusv1.AddressFilter{Provisional: true}, 12},
		"origin":      {&veredusv1.AddressFilter{Origin: veredusv1.AddressOrigin_ADDRESS_ORIGIN_OPERATOR}, 1},
		"reason":      {&veredusv1.AddressFilter{Reason: veredusv1.FailureReason_FAILURE_REASON_MAILBOX_FULL}, 0},
		"together":    {&veredusv1.AddressFilter{Domain: "b.example", Provisional: true, Text: "user 0"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			req := &veredusv1.ListAddressEntriesRequest{Filter: tc.f, PageSize: 7}
			for {
				page := must(d.ListAddressEntries(d.ctx, req))
				for _, e := range page.GetEntries() {
					if seen[e.GetName()] {
						t.Errorf("twice: %v", e)
					}
					seen[e.GetName()] = true
				}
				if len(page.GetEntries()) > 7 {
					t.Errorf("page of %d", len(page.GetEntries()))
				}
				if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			if len(seen) != tc.want {
				t.Errorf("%d entries, want %d", len(seen), tc.want)
			}
		})
	}
}

func TestAfterAnOutage(t *testing.T) {
	d := newDesk(t)
	for i := range 2500 {
		d.hard(t, fmt.Sprintf("u%d@provider.example", i), "550 5.1.1 Recipient address rejected", i%2 == 0)
	}
	d.hard(t, "other@elsewhere.example", "550 5.1.1 Recipient address rejected", true)
	must(d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: deny("denied@provider.example", "acme", "")}))
	d.m.audits, d.m.writes = nil, 0

	req := &veredusv1.ReleaseAddressEntriesRequest{Filter: &veredusv1.AddressFilter{Domain: "provider.example", Text: "5.1.1 recipient"}, DryRun: true, Comment: "their outage of Monday"}
	dry := must(d.ReleaseAddressEntries(d.ctx, req))
	if dry.GetCount() != 2500 || len(dry.GetSample()) != 20 || d.m.writes != 0 {
		t.Fatalf("dry run: %d with %d, %d writes", dry.GetCount(), len(dry.GetSample()), d.m.writes)
	}
	req.DryRun, req.RequestId = false, "release-1"
	d.m.fail = func(write int) error {
		if write == 2 {
			return errors.New("the disk is full")
		}
		return nil
	}
	if _, err := d.ReleaseAddressEntries(d.ctx, req); err == nil || !strings.Contains(err.Error(), "1000 entries were changed") {
		t.Fatalf("cut short: %v", err)
	}
	first := must(d.ReleaseAddressEntries(d.ctx, req))
	if first.GetCount() != 1500 || len(first.GetSample()) != 20 {
		t.Errorf("the rest: %d", first.GetCount())
	}
	want := []string{"1000: released from quarantine: their outage of Monday", "1000: released from quarantine: their outage of Monday", "500: released from quarantine: their outage of Monday"}
	if fmt.Sprint(d.m.audits) != fmt.Sprint(want) {
		t.Errorf("%q", d.m.audits)
	}
	if len(d.m.entries) != 2 {
		t.Errorf("%d entries are left", len(d.m.entries))
	}
	d.hard(t, "u1@provider.example", "550 5.1.1 Recipient address rejected", false)
	if again := must(d.ReleaseAddressEntries(d.ctx, req)); !proto.Equal(again, first) || len(d.m.entries) != 3 {
		t.Errorf("a repeated release did something: %v", again.GetCount())
	}
}

func TestProvisionalEntriesAreConfirmed(t *testing.T) {
	d := newDesk(t)
	for i := range 10 {
		d.hard(t, fmt.Sprintf("u%d@provider.example", i), "550", i%2 == 0)
	}
	req := &veredusv1.ConfirmAddressEntriesRequest{Filter: &veredusv1.AddressFilter{Domain: "provider.example"}, Comment: "they closed", RequestId: "c1"}
	first := must(d.ConfirmAddressEntries(d.ctx, req))
	if first.GetCount() != 5 || !first.GetSample()[0].GetProvisional() {
		t.Errorf("%v", first)
	}
	if again := must(d.ConfirmAddressEntries(d.ctx, req)); again.GetCount() != 5 {
		t.Errorf("%v", again)
	}
	list := must(d.ListAddressEntries(d.ctx, &veredusv1.ListAddressEntriesRequest{Filter: &veredusv1.AddressFilter{Text: "they closed"}}))
	if len(list.GetEntries()) != 5 || list.GetEntries()[0].GetProvisional() || list.GetEntries()[0].GetEvidence()[0].GetChange() != "confirmed" {
		t.Errorf("%v", list)
	}
}

func TestRotatedKeys(t *testing.T) {
	d := newDesk(t)
	told := 0
	d.o.Rotated = func(keys []LinkKey) { told = len(keys) }
	for i, id := range []string{"a", "a", "b", ""} {
		want := []int32{1, 1, 2, 3}[i]
		if got := must(d.RotateUnsubscribeKey(d.ctx, &veredusv1.RotateUnsubscribeKeyRequest{RequestId: id})); got.GetKeyId() != want || got.GetKeyCount() != want || told != int(want) {
			t.Errorf("%q: %v, told %d", id, got, told)
		}
	}
}

func TestBadRequestsNameFieldValueAndRemedy(t *testing.T) {
	d := newDesk(t)
	long := strings.Repeat("x", 300)
	put := func(change func(*veredusv1.AddressEntry)) func() error {
		return func() error {
			e := deny("ada@example.com", "acme", "")
			change(e)
			_, err := d.PutAddressEntry(d.ctx, &veredusv1.PutAddressEntryRequest{Entry: e})
			return err
		}
	}
	list := func(f *veredusv1.AddressFilter) func() error {
		return func() error {
			_, err := d.ListAddressEntries(d.ctx, &veredusv1.ListAddressEntriesRequest{Filter: f})
			return err
		}
	}
	release := func(f *veredusv1.AddressFilter, comment string) func() error {
		return func() error {
			_, err := d.ReleaseAddressEntries(d.ctx, &veredusv1.ReleaseAddressEntriesRequest{Filter: f, Comment: comment})
			return err
		}
	}
	remove := func(req *veredusv1.DeleteAddressEntryRequest) func() error {
		return func() error { _, err := d.DeleteAddressEntry(d.ctx, req); return err }
	}
	for want, call := range map[string]func() error{
		`address: is empty; give an address`: func() error { _, err := d.GetAddress(d.ctx, &veredusv1.GetAddressRequest{}); return err },
		`tenant: "A B" is no tenant`: func() error {
			_, err := d.GetAddress(d.ctx, &veredusv1.GetAddressRequest{Address: "a@b.co", Tenant: "A B"})
			return err
		},
		`entry.address: "ada" has no @`:                             put(func(e *veredusv1.AddressEntry) { e.Address = "ada" }),
		`entry.status: "ADDRESS_STATUS_COUNTING" cannot be put`:     put(func(e *veredusv1.AddressEntry) { e.Status = 1 }),
		`entry.status: "77" cannot be put`:                          put(func(e *veredusv1.AddressEntry) { e.Status = 77 }),
		`entry.scope.tenant: "Acme" is no tenant; use 1 to 63`:      put(func(e *veredusv1.AddressEntry) { e.Scope.Tenant = "Acme" }),
		`entry.scope.list_id: "news" names a list but no tenant`:    put(func(e *veredusv1.AddressEntry) { e.Scope = &veredusv1.AddressScope{ListId: "News"} }),
		`entry.scope.list_id: "` + long[:97] + `..." is 300 octets`: put(func(e *veredusv1.AddressEntry) { e.Scope.ListId = long }),
		`entry.scope.mail_class: "9" is no class`:                   put(func(e *veredusv1.AddressEntry) { e.Scope.MailClass = 9 }),
		`entry.reason: "11" is no failure reason`:                   put(func(e *veredusv1.AddressEntry) { e.Reason = 11 }),
		`entry.comment: "a\nb" holds a control character`:           put(func(e *veredusv1.AddressEntry) { e.Comment = "a\nb" }),
		`filter.status: "9" is no status`:                           list(&veredusv1.AddressFilter{Status: 9}),
		`filter.origin: "99" is no origin`:                          list(&veredusv1.AddressFilter{Origin: 99}),
		`filter.domain: "no dot"`:                                   list(&veredusv1.AddressFilter{Domain: "no dot"}),
		`filter.tenant: "A" is no tenant`:                           list(&veredusv1.AddressFilter{Tenant: "A"}),
		`filter.text: "` + long[:97] + `..." is 300 octets`:         list(&veredusv1.AddressFilter{Text: long}),
		`filter.end_time: "2026-03-02T09:00:00Z" is not after`:      list(&veredusv1.AddressFilter{StartTime: timestamppb.New(start), EndTime: timestamppb.New(start)}),
		`filter.start_time: "1125899906842624 s 0 ns" is no time`:   list(&veredusv1.AddressFilter{StartTime: &timestamppb.Timestamp{Seconds: 1 << 50}}),
		`filter: chooses every quarantined entry; say which`:        release(&veredusv1.AddressFilter{Status: 2, Provisional: true}, ""),
		`filter.status: "ADDRESS_STATUS_DENYLISTED" cannot be`:      release(&veredusv1.AddressFilter{Status: 3, Domain: "a.example"}, ""),
		`comment: "` + long[:97] + `..." is 300 octets long`:        release(&veredusv1.AddressFilter{Domain: "a.example"}, long),
		`name: is missing; give the entry's name, or its address`:   remove(&veredusv1.DeleteAddressEntryRequest{}),
		`name: "addressEntries/?" is no entry's name`:               remove(&veredusv1.DeleteAddressEntryRequest{Name: "addressEntries/?"}),
		`address: "a@b.co" is given beside a name`:                  remove(&veredusv1.DeleteAddressEntryRequest{Name: EntryName(Key{"a@b.co", Scope{"", Everything, ""}}), Address: "a@b.co"}),
		`page_size: "1001" is out of range`: func() error {
			_, err := d.ListAddressEntries(d.ctx, &veredusv1.ListAddressEntriesRequest{PageSize: 1001})
			return err
		},
		`request_id: "` + long[:97] + `..." is 300 octets`: func() error {
			_, err := d.RotateUnsubscribeKey(d.ctx, &veredusv1.RotateUnsubscribeKeyRequest{RequestId: long})
			return err
		},
	} {
		var bad *InvalidError
		if err := call(); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if len(d.m.entries) != 0 || d.m.writes != 0 {
		t.Error("a bad request did something")
	}
}

func TestPageTokensBelongToTheirFilter(t *testing.T) {
	d := newDesk(t)
	for i := range 5 {
		d.hard(t, fmt.Sprintf("u%d@a.example", i), "550", false)
	}
	page := must(d.ListAddressEntries(d.ctx, &veredusv1.ListAddressEntriesRequest{PageSize: 2}))
	token := page.GetNextPageToken()
	for _, tc := range []struct{ token, domain, want string }{
		{token, "a.example", "belongs to another filter"},
		{token[:len(token)-2], "", "page token"},
		{"B" + token[1:], "", "is damaged"},
		{"???", "", "is no page token"},
		{strings.Repeat("A", 4000), "", "is no page token"},
	} {
		_, err := d.ListAddressEntries(d.ctx, &veredusv1.ListAddressEntriesRequest{PageToken: tc.token, Filter: &veredusv1.AddressFilter{Domain: tc.domain}})
		if err == nil || !strings.Contains(err.Error(), "page_token") || tc.want == "is damaged" && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v", tc.token, err)
		}
	}
}

func TestNamesOfEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Key{
			Folded: strings.ToLower(rapid.StringMatching(`[a-zöß'+"=-]{1,64}@[a-z0-9.-]{1,200}\.[a-z]{2,8}`).Draw(t, "address")),
			Scope:  Scope{rapid.StringMatching(`[a-z0-9-]{0,63}`).Draw(t, "tenant"), rapid.SampledFrom([]Class{Everything, Marketing}).Draw(t, "class"), ""},
		}
		if k.Scope.Tenant != "" {
			k.Scope.List = rapid.StringMatching(`[a-z0-9.]{0,255}`).Draw(t, "list")
		}
		name := EntryName(k)
		got, err := ParseEntryName(name)
		if err != nil || got != k {
			t.Fatalf("%s: %v, %v; want %v", name, got, err, k)
		}
	})
	typical := EntryName(Key{"firstname.lastname+newsletter@subdomain.company.example", Scope{"marketing-department", Marketing, "weekly-news.lists.company.example"}})
	if len(typical) > 200 {
		t.Errorf("a typical name has %d octets", len(typical))
	}
	for _, bad := range []string{"", "addressEntries/", "addressEntries/a", strings.ToUpper(typical), typical + "=", typical[:len(typical)-1], strings.Repeat("a", 5000), "deliveries/d"} {
		if k, err := ParseEntryName(bad); err == nil {
			t.Errorf("%q is %v", bad, k)
		}
	}
}

func FuzzParseEntryName(f *testing.F) {
	f.Add(EntryName(Key{"ada@example.com", Scope{"acme", Marketing, "news"}}))
	f.Add("addressEntries/aaaa")
	f.Fuzz(func(t *testing.T, name string) {
		if k, err := ParseEntryName(name); err == nil && EntryName(k) != name {
			t.Errorf("%q is %v, whose name is %q", name, k, EntryName(k))
		}
	})
}
