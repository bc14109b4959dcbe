package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/server/address"
)

// Address entries lie by the hash of their address, so all of one address are
// neighbours, found or ruled out with one seek that the bloom filters answer. A
// second row for each, by domain, makes listing a domain cost what it holds.

// metaEntries holds how many address entries there are: while it is zero nobody
// looks any address up.
var metaEntries = keyName(tableMeta, "address-entries")

// entryKey is the row of an address entry.
func entryKey(k *address.Key) []byte {
	hash := hashOf(k.Folded)
	b := make([]byte, 0, indexPrefix+len(k.Scope.Tenant)+2+len(k.Scope.List))
	return appendEntryScope(append(append(b, tableEntry), hash[:]...), &k.Scope)
}

// appendEntryScope appends what tells the entries of one address apart.
func appendEntryScope(b []byte, s *address.Scope) []byte {
	b = append(append(b, s.Tenant...), 0, byte(s.Class))
	return append(b, s.List...)
}

// parseEntryScope reads what stands behind the hash.
func parseEntryScope(b []byte) (tenant []byte, class address.Class, list []byte, ok bool) {
	end := bytes.IndexByte(b, 0)
	if end < 0 || end+1 >= len(b) {
		return nil, 0, nil, false
	}
	return b[:end], address.Class(b[end+1]), b[end+2:], true
}

// entryDomain is the prefix of a domain's rows in the index by domain.
func entryDomain(domain string) []byte {
	return append(keyName(tableEntryOf, domain), 0)
}

// entryOfKey is the row of the index by domain that belongs to the row of an entry.
func entryOfKey(domain string, entry []byte) []byte {
	return append(entryDomain(domain), entry[1:]...)
}

// parseEntryOfKey reads the hash in a row of the index by domain.
func parseEntryOfKey(k []byte) (h [hashSize]byte, ok bool) {
	end := bytes.IndexByte(k, 0)
	if end < 0 || len(k) < end+1+hashSize {
		return h, false
	}
	copy(h[:], k[end+1:])
	return h, true
}

// covered reports whether an entry with the scope behind a key may concern the mail.
func covered(scope []byte, q *address.Query) bool {
	tenant, class, list, ok := parseEntryScope(scope)
	return ok && (len(tenant) == 0 || string(tenant) == q.Tenant) &&
		(class == address.Everything || class == q.Class) &&
		(len(list) == 0 || string(list) == q.List)
}

// checkKey refuses keys that no row could have.
func checkKey(k *address.Key) error {
	switch {
	case k.Folded == "" || domainOf(k.Folded) == "":
		return fmt.Errorf("pebblestore: address entry: address %.100q: give local@domain in lower case", k.Folded)
	case strings.IndexByte(k.Scope.Tenant, 0) >= 0:
		return fmt.Errorf("pebblestore: address entry: tenant %.100q has a zero octet: give the name of a tenant", k.Scope.Tenant)
	case k.Scope.Class != address.Everything && k.Scope.Class != address.Marketing:
		return fmt.Errorf("pebblestore: address entry: class %d: give everything or marketing", k.Scope.Class)
	case k.Scope.List != "" && k.Scope.Tenant == "":
		return fmt.Errorf("pebblestore: address entry: list %.100q without a tenant: lists belong to tenants", k.Scope.List)
	}
	return nil
}

func encodeEntry(e *address.Entry) []byte {
	b := putString(make([]byte, 0, 256), 1, e.Address)
	if e.Folded != strings.ToLower(e.Address) {
		b = putString(b, 2, e.Folded)
	}
	b = putUint(b, 3, uint64(e.Status))
	b = putBool(b, 4, e.Provisional)
	b = putUint(b, 5, uint64(e.Origin))
	b = putUint(b, 6, uint64(e.Reason))
	b = putInt(b, 7, int64(e.Code))
	b = putString(b, 8, e.Tag)
	b = putInt(b, 9, int64(e.Errors))
	b = putString(b, 10, e.Comment)
	b = putTime(b, 11, e.Created)
	b = putTime(b, 12, e.Updated)
	b = putTime(b, 13, e.LastError)
	for i := range e.Evidence {
		b = putBytes(b, 14, encodeEvidence(&e.Evidence[i]))
	}
	return b
}

// decodeEntry reads the row of an entry with its key.
func decodeEntry(k, row []byte) (*address.Entry, error) {
	if len(k) < indexPrefix {
		return nil, corrupt(errors.New("key of an address entry"))
	}
	tenant, class, list, ok := parseEntryScope(k[indexPrefix:])
	if !ok {
		return nil, corrupt(errors.New("key of an address entry"))
	}
	e, err := decodeEntryRow(row)
	e.Scope = address.Scope{Tenant: string(tenant), Class: class, List: string(list)}
	return e, err
}

func decodeEntryRow(row []byte) (*address.Entry, error) {
	e := &address.Entry{}
	err := readRow(row, func(field protowire.Number, v value) (err error) {
		switch field {
		case 1:
			e.Address = v.string()
		case 2:
			e.Folded = v.string()
		case 3:
			e.Status = address.Status(v.n)
		case 4:
			e.Provisional = v.bool()
		case 5:
			e.Origin = address.Origin(v.n)
		case 6:
			e.Reason = bounce.Reason(v.n)
		case 7:
			e.Code = int(v.int())
		case 8:
			e.Tag = v.string()
		case 9:
			e.Errors = int(v.int())
		case 10:
			e.Comment = v.string()
		case 11:
			e.Created = v.time()
		case 12:
			e.Updated = v.time()
		case 13:
			e.LastError = v.time()
		case 14:
			var n address.Evidence
			n, err = decodeEvidence(v.bytes)
			e.Evidence = append(e.Evidence, n)
		}
		return err
	})
	if e.Folded == "" {
		e.Folded = strings.ToLower(e.Address)
	}
	return e, err
}

// changes are the words of evidence; a row has the place of one in here, from 1. Append only.
var changes = []address.Change{
	address.Counted, address.WasQuarantined, address.WasProvisional, address.WasConfirmed, address.WasReleased,
	address.WasDenylisted, address.WasAllowlisted, address.WasCleared, address.WasRequalified, address.WasOverridden,
}

func encodeEvidence(n *address.Evidence) []byte {
	b := putTime(nil, 1, n.Time)
	if i := slices.Index(changes, n.Change); i >= 0 {
		b = putUint(b, 2, uint64(i)+1)
	} else {
		b = putString(b, 14, string(n.Change))
	}
	b = putString(b, 3, n.Event)
	b = putString(b, 4, n.Message)
	b = putInt(b, 5, int64(n.ReplyCode))
	b = putString(b, 6, n.Enhanced)
	b = putString(b, 7, n.Text)
	b = putString(b, 8, n.Phase)
	b = putInt(b, 9, int64(n.Code))
	b = putString(b, 10, n.Rule)
	b = putString(b, 11, n.Destination)
	b = putString(b, 12, n.Provider)
	return putUint(b, 13, uint64(n.Effect))
}

func decodeEvidence(row []byte) (n address.Evidence, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			n.Time = v.time()
		case 2:
			if i := int(v.n) - 1; i >= 0 && i < len(changes) {
				n.Change = changes[i]
			}
		case 3:
			n.Event = v.string()
		case 4:
			n.Message = v.string()
		case 5:
			n.ReplyCode = int(v.int())
		case 6:
			n.Enhanced = v.string()
		case 7:
			n.Text = v.string()
		case 8:
			n.Phase = v.string()
		case 9:
			n.Code = int(v.int())
		case 10:
			n.Rule = v.string()
		case 11:
			n.Destination = v.string()
		case 12:
			n.Provider = v.string()
		case 13:
			n.Effect = bounce.AddressEffect(v.n)
		case 14:
			n.Change = address.Change(v.bytes)
		}
		return nil
	})
	return n, err
}

// entryReader finds the entries of addresses, one after the other. It is of one goroutine.
type entryReader struct {
	it  *pebble.Iterator
	key []byte
}

func newEntryReader(r pebble.Reader) (*entryReader, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{tableEntry}, UpperBound: after([]byte{tableEntry})})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	return &entryReader{it: it}, nil
}

func (r *entryReader) close() error { return r.it.Close() }

// entries reads the entries of an address, whose hash is given, in the scopes wanted.
func (r *entryReader) entries(folded string, hash [hashSize]byte, wanted func(scope []byte) bool) (list []address.Entry, err error) {
	r.key = append(append(r.key[:0], tableEntry), hash[:]...)
	for ok := r.it.SeekPrefixGE(r.key); ok; ok = r.it.Next() {
		k := r.it.Key()
		if len(k) < indexPrefix || wanted != nil && !wanted(k[indexPrefix:]) {
			continue
		}
		row, err := r.it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("pebblestore: reading: %w", err)
		}
		e, err := decodeEntry(k, row)
		if err != nil {
			return nil, err
		}
		if e.Folded == folded {
			list = append(list, *e)
		}
	}
	if err := r.it.Error(); err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	return list, nil
}
