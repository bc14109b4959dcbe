package pebblestore

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/campaign"
)

// fill sets every field that it finds to a value of its own, so that a field which a
// codec forgets shows.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString("s" + string(rune('a'+*n%26)))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n % 200))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(timeOf(int64(*n) * 1e9)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic(v.Kind())
	}
}

func TestEveryFieldIsKept(t *testing.T) {
	n := 0
	var state mta.MessageState
	fill(reflect.ValueOf(&state).Elem(), &n)
	if got := must[mta.MessageState](t)(decodeState(encodeState(nil, &state))); got != state {
		t.Errorf("state:\n got %+v\nwant %+v", got, state)
	}
	var verdict bounce.Verdict
	fill(reflect.ValueOf(&verdict).Elem(), &n)
	if got := must[bounce.Verdict](t)(decodeVerdict(encodeVerdict(nil, &verdict))); got != verdict {
		t.Errorf("verdict:\n got %+v\nwant %+v", got, verdict)
	}
	var reply smtpc.Reply
	fill(reflect.ValueOf(&reply).Elem(), &n)
	if got := must[smtpc.Reply](t)(decodeReply(encodeReply(nil, &reply))); got != reply {
		t.Errorf("reply:\n got %+v\nwant %+v", got, reply)
	}
	var usage mxrules.Usage
	fill(reflect.ValueOf(&usage).Elem(), &n)
	usage.Learned.Held.Level, usage.Learned.Held.Soft = 11, 12 // doublings are bounded as they are read
	if got := must[mxrules.Usage](t)(decodeUsage(encodeUsage(usage))); got != usage {
		t.Errorf("usage:\n got %+v\nwant %+v", got, usage)
	}
}

func TestCountersAreKept(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	c := campaign.Counters{
		LastIndex: 1, Accepted: 2, Rejected: 3, Pending: 4, InRelay: 5, Deferred: 6, Claimed: 7,
		Sent: 8, Failed: 9, Cancelled: 10, Attempts: 11, Complaints: 12, Unsubs: 13,
		Ignored: map[int32]int64{10: 1, 127: 2}, FailedBy: map[int32]int64{0: 3},
	}
	c.HandedOver.Add(now, 5)
	c.HandedOver.Add(now.Add(59*time.Minute), 6)
	c.DeliveredBy.Add(now, 1)
	if got := must[campaign.Counters](t)(decodeTotals(encodeTotals(nil, &c))); !reflect.DeepEqual(got, c) {
		t.Errorf("totals:\n got %+v\nwant %+v", got, c)
	}
	d := &campaign.DestinationCounters{Sent: 1, Failed: 2, Deferred: 3, Attempts: 4, Complaints: 5, Unsubs: 6, Cancelled: 7, FailedBy: map[int32]int64{1: 2}}
	d.DeliveredBy.Add(now, 9)
	if got := must[*campaign.DestinationCounters](t)(decodeDestination(encodeDestination(nil, d))); !reflect.DeepEqual(got, d) {
		t.Errorf("destination:\n got %+v\nwant %+v", got, d)
	}
}

func TestRecipientsAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 20, 40)
		r := recipient{
			address: text.Draw(t, "local") + "@" + text.Draw(t, "domain"), utf8: rapid.Bool().Draw(t, "utf8"),
			variables: []byte(text.Draw(t, "variables")), recipientID: text.Draw(t, "id"),
			metadata: encodeMetadata(rapid.MapOfN(text, text, 0, 3).Draw(t, "metadata")),
			ignored:  rapid.Int32Range(0, 128).Draw(t, "ignored"),
		}
		r.folded, r.domain = r.address, domainOf(r.address)
		if rapid.Bool().Draw(t, "folds") {
			r.folded, r.domain = "folded", "other.example"
		}
		got, err := decodeRecipient(r.encode(nil))
		if err != nil || got.address != r.address || got.folded != r.folded || got.domain != r.domain ||
			!bytes.Equal(got.variables, r.variables) || got.recipientID != r.recipientID || !bytes.Equal(got.metadata, r.metadata) || got.ignored != r.ignored {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, r)
		}
	})
}

// Rows that were damaged are errors, never panics.
func FuzzRows(f *testing.F) {
	state := mta.MessageState{Attempts: 1, LastReply: smtpc.Reply{Code: 450, Text: "later"}}
	row := logRow{status: logDeferred, destination: "a.test", state: state, attempts: [][]byte{{8, 1}}}
	f.Add(row.encode(nil))
	f.Add((&recipient{address: "a@b.test", metadata: encodeMetadata(map[string]string{"k": "v"})}).encode(nil))
	f.Add((&run{name: "a.test", fresh: 1, mark: mta.Position{Order: 3}}).encode(nil))
	c := campaign.Counters{Accepted: 3, Ignored: map[int32]int64{10: 1}}
	c.HandedOver.Add(time.Unix(1e9, 0), 3)
	f.Add(encodeTotals(nil, &c))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, row []byte) {
		if r, err := decodeRecipient(row); err == nil {
			_, _ = decodeMetadata(r.metadata)
		}
		_, _ = decodeLog(row)
		_, _ = decodeRun(row)
		_, _ = decodeClaim(row)
		_, _ = decodeTotals(row)
		_, _ = decodeDestination(row)
		_, _ = decodeDelivery(row)
		_, _ = decodeRequest(row)
		_, _ = decodeSuspension(row)
		_, _ = decodeUsage(row)
		_, _ = decodeDomains(row)
		parseRetry(row)
		parseClaimKey(row)
		parseExpiryKey(row)
		splitKey(row)
	})
}

func TestKeysSortByWhatTheyHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := scope{tenant: 1, delivery: 2}
		draw := func(name string) mta.MessageID {
			return mta.MessageID{
				Handover: rapid.Uint64().Draw(t, name), Domain: rapid.Uint32().Draw(t, name),
				Lane: rapid.Uint8().Draw(t, name), Order: rapid.Uint64().Draw(t, name),
			}
		}
		a, b := draw("a"), draw("b")
		if got := bytes.Compare(sc.message(tableLog, a), sc.message(tableLog, b)); got != compareIDs(a, b) {
			t.Fatalf("keys compare %d, messages %d", got, compareIDs(a, b))
		}
		if got, ok := parsePlace(sc.message(tableLog, a)); !ok || got != a {
			t.Fatalf("parsed %+v, want %+v", got, a)
		}
		due := rapid.Int64Min(0).Draw(t, "due")
		row := retryRow{due: due, lane: a.Lane, order: a.Order}
		if got, ok := parseRetry(sc.retry(keyOf(a), row)); !ok || got != row || got.id(keyOf(a)) != a {
			t.Fatalf("parsed %+v, want %+v", got, row)
		}
	})
}
