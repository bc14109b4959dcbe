package pebblestore

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/server/campaign"
)

// Rows are protocol buffer messages without generated code: fields with their
// zero value are left out, unknown fields are passed over, numbers are never
// used again. Signed numbers are zigzag, times nanoseconds since 1970.

func putUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func putInt(b []byte, field protowire.Number, v int64) []byte {
	return putUint(b, field, protowire.EncodeZigZag(v))
}

func putBool(b []byte, field protowire.Number, v bool) []byte {
	return putUint(b, field, protowire.EncodeBool(v))
}

func putTime(b []byte, field protowire.Number, t time.Time) []byte {
	return putInt(b, field, nanos(t))
}

func putString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func putBytes(b []byte, field protowire.Number, s []byte) []byte {
	if len(s) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// putNested puts what encode appends as the field's value.
func putNested(b []byte, field protowire.Number, encode func([]byte) []byte) []byte {
	before := len(b)
	b = protowire.AppendTag(b, field, protowire.BytesType)
	begin := len(b)
	b = encode(b)
	size := len(b) - begin
	if size == 0 {
		return b[:before]
	}
	var length [10]byte
	return slices.Insert(b, begin, protowire.AppendVarint(length[:0], uint64(size))...)
}

// value is a field's value as read.
type value struct {
	n     uint64
	bytes []byte // points into the row
}

func (v value) int() int64      { return protowire.DecodeZigZag(v.n) }
func (v value) bool() bool      { return v.n != 0 }
func (v value) time() time.Time { return timeOf(v.int()) }
func (v value) string() string  { return string(v.bytes) }

// readRow calls each for every field of a row.
func readRow(row []byte, each func(field protowire.Number, v value) error) error {
	for len(row) > 0 {
		field, kind, n := protowire.ConsumeTag(row)
		if n < 0 {
			return corrupt(protowire.ParseError(n))
		}
		row = row[n:]
		var v value
		switch kind {
		case protowire.VarintType:
			v.n, n = protowire.ConsumeVarint(row)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(row)
		default:
			n = protowire.ConsumeFieldValue(field, kind, row)
		}
		if n < 0 {
			return corrupt(protowire.ParseError(n))
		}
		row = row[n:]
		if err := each(field, v); err != nil {
			return err
		}
	}
	return nil
}

func corrupt(err error) error { return fmt.Errorf("pebblestore: corrupt row: %w", err) }

// recipient is the only copy of a recipient's data.
type recipient struct {
	address     string
	folded      string
	domain      string
	utf8        bool
	variables   []byte
	recipientID string
	metadata    []byte // encoded pairs, see encodeMetadata
	ignored     int32  // reason + 1; 0: not ignored
	// Of single messages only.
	arrival, expires time.Time
	content          uint64
}

func (r *recipient) encode(b []byte) []byte {
	b = putString(b, 1, r.address)
	b = putBool(b, 2, r.utf8)
	b = putBytes(b, 3, r.variables)
	b = putString(b, 4, r.recipientID)
	b = putBytes(b, 5, r.metadata)
	if r.folded != r.address {
		b = putString(b, 6, r.folded)
	}
	if r.domain != domainOf(r.address) {
		b = putString(b, 7, r.domain)
	}
	b = putUint(b, 8, uint64(r.ignored))
	b = putTime(b, 9, r.arrival)
	b = putTime(b, 10, r.expires)
	return putUint(b, 11, r.content)
}

// decodeRecipient reads a recipient row; variables and metadata point into it.
func decodeRecipient(row []byte) (r recipient, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			r.address = v.string()
		case 2:
			r.utf8 = v.bool()
		case 3:
			r.variables = v.bytes
		case 4:
			r.recipientID = v.string()
		case 5:
			r.metadata = v.bytes
		case 6:
			r.folded = v.string()
		case 7:
			r.domain = v.string()
		case 8:
			r.ignored = int32(v.n)
		case 9:
			r.arrival = v.time()
		case 10:
			r.expires = v.time()
		case 11:
			r.content = v.n
		}
		return nil
	})
	if r.folded == "" {
		r.folded = r.address
	}
	if r.domain == "" {
		r.domain = domainOf(r.address)
	}
	return r, err
}

// domainOf is what stands behind the last @.
func domainOf(address string) string {
	for i := len(address) - 1; i >= 0; i-- {
		if address[i] == '@' {
			return address[i+1:]
		}
	}
	return ""
}

// encodeMetadata renders pairs in the order of their keys.
func encodeMetadata(m map[string]string) []byte {
	var b []byte
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = protowire.AppendString(protowire.AppendString(b, k), m[k])
	}
	return b
}

// decodeMetadata is the inverse of encodeMetadata.
func decodeMetadata(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for len(b) > 0 {
		k, n := protowire.ConsumeString(b)
		if n < 0 {
			return nil, corrupt(protowire.ParseError(n))
		}
		v, l := protowire.ConsumeString(b[n:])
		if l < 0 {
			return nil, corrupt(protowire.ParseError(l))
		}
		m[validText(k)], b = validText(v), b[n+l:]
	}
	return m, nil
}

// logStatus is the relay's truth of a settled message.
type logStatus uint8

const (
	// logLost: its claim was lost to a crash; it waits for a retry.
	logLost       logStatus = 10
	logDelivered            = logStatus(mta.Delivered)
	logDeferred             = logStatus(mta.Deferred)
	logBounced              = logStatus(mta.Bounced)
	logExpired              = logStatus(mta.Expired)
	logSuppressed           = logStatus(mta.Suppressed)
)

// final reports whether nothing follows any more.
func (s logStatus) final() bool { return s != logLost && s != logDeferred }

// logRow is a message's row of the sending log.
type logRow struct {
	status      logStatus
	updated     time.Time
	destination string
	text        string
	messageID   string
	state       mta.MessageState
	verdict     bounce.Verdict // of the last settlement
	attempts    [][]byte       // marshalled veredus.v1.Attempt, oldest first
}

// maxAttempts is how many attempts a row of the sending log keeps.
const maxAttempts = 100

func (r *logRow) encode(b []byte) []byte {
	b = putUint(b, 1, uint64(r.status))
	b = putTime(b, 2, r.updated)
	b = putString(b, 3, r.destination)
	b = putString(b, 4, r.text)
	b = putString(b, 5, r.messageID)
	b = putNested(b, 6, func(b []byte) []byte { return encodeState(b, &r.state) })
	b = putNested(b, 7, func(b []byte) []byte { return encodeVerdict(b, &r.verdict) })
	for _, a := range r.attempts {
		b = putBytes(b, 8, a)
	}
	return b
}

// decodeLog reads a row of the sending log; attempts point into it.
func decodeLog(row []byte) (*logRow, error) {
	r := &logRow{}
	err := readRow(row, func(field protowire.Number, v value) (err error) {
		switch field {
		case 1:
			r.status = logStatus(v.n)
		case 2:
			r.updated = v.time()
		case 3:
			r.destination = v.string()
		case 4:
			r.text = v.string()
		case 5:
			r.messageID = v.string()
		case 6:
			r.state, err = decodeState(v.bytes)
		case 7:
			r.verdict, err = decodeVerdict(v.bytes)
		case 8:
			r.attempts = append(r.attempts, v.bytes)
		}
		return err
	})
	return r, err
}

func encodeState(b []byte, s *mta.MessageState) []byte {
	b = putInt(b, 1, int64(s.Attempts))
	b = putInt(b, 2, int64(s.Charged))
	b = putInt(b, 3, int64(s.Blocked))
	b = putInt(b, 4, int64(s.Unmatched))
	b = putInt(b, 5, int64(s.LostClaims))
	b = putTime(b, 6, s.FirstClaim)
	b = putTime(b, 7, s.Due)
	b = putString(b, 8, s.Source)
	b = putNested(b, 9, func(b []byte) []byte { return encodeVerdict(b, &s.Last) })
	return putNested(b, 10, func(b []byte) []byte { return encodeReply(b, &s.LastReply) })
}

func decodeState(row []byte) (s mta.MessageState, err error) {
	err = readRow(row, func(field protowire.Number, v value) (err error) {
		switch field {
		case 1:
			s.Attempts = int(v.int())
		case 2:
			s.Charged = int(v.int())
		case 3:
			s.Blocked = int(v.int())
		case 4:
			s.Unmatched = int(v.int())
		case 5:
			s.LostClaims = int(v.int())
		case 6:
			s.FirstClaim = v.time()
		case 7:
			s.Due = v.time()
		case 8:
			s.Source = v.string()
		case 9:
			s.Last, err = decodeVerdict(v.bytes)
		case 10:
			s.LastReply, err = decodeReply(v.bytes)
		}
		return err
	})
	return s, err
}

func encodeReply(b []byte, r *smtpc.Reply) []byte {
	b = putUint(b, 1, uint64(r.Phase))
	b = putInt(b, 2, int64(r.Code))
	b = putString(b, 3, r.Enhanced)
	return putString(b, 4, capText(r.Text))
}

func decodeReply(row []byte) (r smtpc.Reply, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			r.Phase = smtpc.Phase(v.n)
		case 2:
			r.Code = int(v.int())
		case 3:
			r.Enhanced = v.string()
		case 4:
			r.Text = v.string()
		}
		return nil
	})
	return r, err
}

func encodeVerdict(b []byte, v *bounce.Verdict) []byte {
	b = putInt(b, 1, int64(v.Code))
	if v.Name != bounce.CodeName(v.Code) {
		b = putString(b, 2, v.Name)
	}
	if v.Category != v.BounceType.String() {
		b = putString(b, 3, v.Category)
	}
	b = putString(b, 4, v.Tag)
	b = putUint(b, 5, uint64(v.BounceType))
	b = putUint(b, 6, uint64(v.Type))
	b = putUint(b, 7, uint64(v.Reason))
	b = putUint(b, 8, uint64(v.Disposition))
	b = putInt(b, 9, int64(v.MaxAttempts))
	b = putInt(b, 10, int64(v.RetryAfter))
	b = putBool(b, 11, v.Charged)
	b = putUint(b, 12, uint64(v.Address))
	b = putUint(b, 13, uint64(v.Path))
	b = putUint(b, 14, uint64(v.Hold))
	return putString(b, 15, v.Rule)
}

func decodeVerdict(row []byte) (r bounce.Verdict, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			r.Code = int(v.int())
		case 2:
			r.Name = v.string()
		case 3:
			r.Category = v.string()
		case 4:
			r.Tag = v.string()
		case 5:
			r.BounceType = bounce.BounceType(v.n)
		case 6:
			r.Type = bounce.Type(v.n)
		case 7:
			r.Reason = bounce.Reason(v.n)
		case 8:
			r.Disposition = bounce.Disposition(v.n)
		case 9:
			r.MaxAttempts = int(v.int())
		case 10:
			r.RetryAfter = time.Duration(v.int())
		case 11:
			r.Charged = v.bool()
		case 12:
			r.Address = bounce.AddressEffect(v.n)
		case 13:
			r.Path = bounce.PathEffect(v.n)
		case 14:
			r.Hold = bounce.Hold(v.n)
		case 15:
			r.Rule = v.string()
		}
		return nil
	})
	if r.Name == "" {
		r.Name = bounce.CodeName(r.Code)
	}
	if r.Category == "" {
		r.Category = r.BounceType.String()
	}
	return r, err
}

// run is the state of one recipient domain of a hand-over.
type run struct {
	name     string
	fresh    int64
	deferred int64
	nextDue  int64 // no retry row lies below it; 0 when none
	mark     mta.Position
	// pool is where its mail was moved to, in place of its delivery's pool instead.
	pool, instead string

	// Behind logged no message of the run has a row of the log. It is not stored: the
	// first claim finds it.
	logged      mta.Position
	loggedKnown bool
}

func (r *run) encode(b []byte) []byte {
	b = putString(b, 1, r.name)
	b = putInt(b, 2, r.fresh)
	b = putInt(b, 3, r.deferred)
	b = putInt(b, 4, r.nextDue)
	b = putUint(b, 5, uint64(r.mark.Lane))
	b = putUint(b, 6, r.mark.Order)
	b = putString(b, 7, r.pool)
	return putString(b, 8, r.instead)
}

func decodeRun(row []byte) (r run, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			r.name = v.string()
		case 2:
			r.fresh = v.int()
		case 3:
			r.deferred = v.int()
		case 4:
			r.nextDue = v.int()
		case 5:
			r.mark.Lane = uint8(v.n)
		case 6:
			r.mark.Order = v.n
		case 7:
			r.pool = v.string()
		case 8:
			r.instead = v.string()
		}
		return nil
	})
	return r, err
}

// claim is a claim under way.
type claim struct {
	epoch     uint64
	time      time.Time
	first     time.Time // first claim of the message
	messageID string
	// logged: it was settled before, or lost by a crash; there is a row of the log.
	logged bool
}

func (c *claim) encode(b []byte) []byte {
	b = putUint(b, 1, c.epoch)
	b = putTime(b, 2, c.time)
	b = putTime(b, 3, c.first)
	b = putString(b, 4, c.messageID)
	return putBool(b, 5, c.logged)
}

func decodeClaim(row []byte) (*claim, error) {
	c := &claim{}
	err := readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			c.epoch = v.n
		case 2:
			c.time = v.time()
		case 3:
			c.first = v.time()
		case 4:
			c.messageID = v.string()
		case 5:
			c.logged = v.bool()
		}
		return nil
	})
	return c, err
}

func putMinutes(b []byte, field protowire.Number, m *campaign.Minutes) []byte {
	var row []byte
	for i := max(m.Last-59, 0); i <= m.Last; i++ {
		if n := m.Count[i%60]; n != 0 {
			row = protowire.AppendVarint(protowire.AppendVarint(row, uint64(i)), uint64(n))
		}
	}
	return putBytes(b, field, row)
}

func decodeMinutes(b []byte) (m campaign.Minutes, err error) {
	for len(b) > 0 {
		minute, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return m, corrupt(protowire.ParseError(n))
		}
		count, l := protowire.ConsumeVarint(b[n:])
		if l < 0 || minute > math.MaxInt32 || count > math.MaxUint32 {
			return m, corrupt(fmt.Errorf("minute %d, count %d", minute, count))
		}
		m.Add(time.Unix(int64(minute)*60, 0), int64(count))
		b = b[n+l:]
	}
	return m, nil
}

// putReasons renders counts by reason in the order of the reasons.
func putReasons(b []byte, field protowire.Number, by map[int32]int64) []byte {
	var row []byte
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		row = protowire.AppendVarint(protowire.AppendVarint(row, uint64(reason)), uint64(by[reason]))
	}
	return putBytes(b, field, row)
}

func decodeReasons(b []byte) (map[int32]int64, error) {
	by := map[int32]int64{}
	for len(b) > 0 {
		reason, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, corrupt(protowire.ParseError(n))
		}
		count, l := protowire.ConsumeVarint(b[n:])
		if l < 0 {
			return nil, corrupt(protowire.ParseError(l))
		}
		by[int32(reason)] = int64(count)
		b = b[n+l:]
	}
	return by, nil
}

func encodeTotals(b []byte, c *campaign.Counters) []byte {
	for i, n := range []int64{
		c.LastIndex, c.Accepted, c.Rejected, c.Pending, c.InRelay, c.Deferred, c.Claimed,
		c.Sent, c.Failed, c.Cancelled, c.Attempts, c.Complaints, c.Unsubs,
	} {
		b = putInt(b, protowire.Number(i+1), n)
	}
	b = putReasons(b, 20, c.Ignored)
	b = putReasons(b, 21, c.FailedBy)
	b = putMinutes(b, 22, &c.HandedOver)
	return putMinutes(b, 23, &c.DeliveredBy)
}

func decodeTotals(row []byte) (c campaign.Counters, err error) {
	plain := []*int64{
		&c.LastIndex, &c.Accepted, &c.Rejected, &c.Pending, &c.InRelay, &c.Deferred, &c.Claimed,
		&c.Sent, &c.Failed, &c.Cancelled, &c.Attempts, &c.Complaints, &c.Unsubs,
	}
	c.Ignored, c.FailedBy = map[int32]int64{}, map[int32]int64{}
	err = readRow(row, func(field protowire.Number, v value) (err error) {
		switch {
		case int(field) <= len(plain):
			*plain[field-1] = v.int()
		case field == 20:
			c.Ignored, err = decodeReasons(v.bytes)
		case field == 21:
			c.FailedBy, err = decodeReasons(v.bytes)
		case field == 22:
			c.HandedOver, err = decodeMinutes(v.bytes)
		case field == 23:
			c.DeliveredBy, err = decodeMinutes(v.bytes)
		}
		return err
	})
	return c, err
}

func encodeDestination(b []byte, d *campaign.DestinationCounters) []byte {
	for i, n := range []int64{d.Sent, d.Failed, d.Deferred, d.Attempts, d.Complaints, d.Unsubs, d.Cancelled, d.AuthRejections, d.ContentRejections} {
		b = putInt(b, protowire.Number(i+1), n)
	}
	b = putReasons(b, 20, d.FailedBy)
	return putMinutes(b, 21, &d.DeliveredBy)
}

func decodeDestination(row []byte) (*campaign.DestinationCounters, error) {
	d := &campaign.DestinationCounters{FailedBy: map[int32]int64{}}
	plain := []*int64{&d.Sent, &d.Failed, &d.Deferred, &d.Attempts, &d.Complaints, &d.Unsubs, &d.Cancelled, &d.AuthRejections, &d.ContentRejections}
	err := readRow(row, func(field protowire.Number, v value) (err error) {
		switch {
		case int(field) <= len(plain):
			*plain[field-1] = v.int()
		case field == 20:
			d.FailedBy, err = decodeReasons(v.bytes)
		case field == 21:
			d.DeliveredBy, err = decodeMinutes(v.bytes)
		}
		return err
	})
	return d, err
}
