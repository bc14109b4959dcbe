package pebblestore

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/veredus/veredus/mta"
)

// The first byte of a key is its table. Numbers are big-endian, so that keys sort
// by them. T is a tenant's number (4 bytes), N a delivery's and H a hand-over's (8);
// M is a message's place in its hand-over: domain (4), lane (1), order (8).
//
//	table           key                     value
//	meta            name                    format, store id, epoch, sequences, secrets, oldest event
//	tenant          name                    T
//	delivery        N                       delivery without content and counters
//	deliveryID      id                      N
//	handover        H                       N
//	active          N                       (Running or Paused: what the relay recovers)
//	transactional   T                       N of the tenant's transactional delivery
//	standing        N sender domain, pool   H
//	totals          N                       counters
//	byDestination   N destination           counters of one destination
//	content         content                 what a mail says
//	contentOf       N content               when its use was noted (contents that single messages of N own)
//	recipient       T N H M                 the only copy of a recipient's data; M's domain is 0 when ignored
//	log             T N H M                 the sending log: last settlement, state, attempts
//	run             T N H domain            name, mark, counts of one recipient domain
//	open            T N H domain            (runs of standing hand-overs with unfinished mail)
//	domain          T N H name              domain
//	retry           T N H domain due lane order  (the retry list)
//	reject          T N index               a refused item
//	claim           H M                     a claim under way
//	expiry          expires H M             (unfinished messages with a validity of their own)
//	address         hash N [order]          H M; without order it is what dedupes N
//	recipientID     hash N H M              (messages by the client's id)
//	event           shard (2) sequence      feedback event
//	usage           path                    quota meters
//	warmUp          source                  warm-up
//	request         request_id              method, body, answer
//	requestAge      time request_id         (requests by age)
//	suspension      id                      suspension
//	trash           N                       T of a deleted or purged delivery whose recipients are not removed yet
//	returned        T N H M                 which returns (late bounce, complaint, unsubscribe) it had
//	entry           hash tenant 0 class list   address entry; class is one byte
//	entryOf         domain 0 hash tenant 0 class list   (address entries by domain)
//	replyText       id (16)                 a distinct text of replies
//	work            id                      an operator's work on waiting mail, and its count so far
//	override        destination 0 source    an operator's limits for paths
//	pathEvents      destination 0 source    places in the log of the path's last events
const (
	tableMeta          = 'm'
	tableTenant        = 't'
	tableDelivery      = 'd'
	tableDeliveryID    = 'i'
	tableHandover      = 'h'
	tableActive        = 'a'
	tableTransactional = 'x'
	tableStanding      = 'X'
	tableTotals        = 'c'
	tableByDestination = 'C'
	tableContent       = 'o'
	tableContentOf     = 'O'
	tableRecipient     = 'r'
	tableLog           = 'l'
	tableRun           = 'n'
	tableOpen          = 'p'
	tableDomain        = 'N'
	tableRetry         = 'q'
	tableReject        = 'j'
	tableClaim         = 'k'
	tableExpiry        = 'e'
	tableAddress       = 'A'
	tableRecipientID   = 'I'
	tableEvent         = 'v'
	tableUsage         = 'u'
	tableWarmUp        = 'U'
	tableRequest       = 'R'
	tableRequestAge    = 'Q'
	tableSuspension    = 's'
	tableTrash         = 'z'
	tableReturned      = 'w'
	tableEntry         = 'E'
	tableEntryOf       = 'D'
	tableReplyText     = 'L'
	tableWork          = 'J'
	tableOverride      = 'P'
	tablePathEvents    = 'H'
)

const (
	hashSize    = 16
	indexPrefix = 1 + hashSize
	placeSize   = 8 + 4 + 1 + 8 // hand-over, domain, lane, order
	scopeSize   = 1 + 4 + 8     // table, tenant, delivery
	messageSize = scopeSize + placeSize
)

// comparer is bytewise. Keys of the two indexes by hash, and of address entries, have
// the hash as their prefix, so that bloom filters answer "is anything stored under this
// address"; all other keys are their own prefix.
var comparer = func() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = "veredus.v1"
	c.Split = splitKey
	return &c
}()

func splitKey(k []byte) int {
	if len(k) <= indexPrefix {
		return len(k)
	}
	switch k[0] {
	case tableAddress, tableRecipientID, tableEntry:
		return indexPrefix
	}
	return len(k)
}

func key8(table byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 1+8), table), n)
}

func keyName(table byte, name string) []byte {
	return append([]byte{table}, name...)
}

func key88(table byte, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(key8(table, a), b)
}

// scope is a delivery: what the rows of all its messages begin with behind the table.
type scope struct {
	tenant   uint32
	delivery uint64
}

// append begins a key of the delivery.
func (s scope) append(k []byte, table byte) []byte {
	k = append(k, table)
	k = binary.BigEndian.AppendUint32(k, s.tenant)
	return binary.BigEndian.AppendUint64(k, s.delivery)
}

// all is the prefix of the delivery's rows in a table.
func (s scope) all(table byte) []byte { return s.append(make([]byte, 0, messageSize+8), table) }

// handover is the prefix of the rows of one hand-over.
func (s scope) handover(table byte, handover uint64) []byte {
	return binary.BigEndian.AppendUint64(s.all(table), handover)
}

// run is a run's row, and the prefix of its messages.
func (s scope) run(table byte, k runKey) []byte {
	return binary.BigEndian.AppendUint32(s.handover(table, k.handover), k.domain)
}

func (s scope) message(table byte, id mta.MessageID) []byte {
	return appendPlace(s.all(table), id)
}

func (s scope) named(n runName) []byte {
	return append(s.handover(tableDomain, n.handover), n.name...)
}

func (s scope) reject(index int64) []byte {
	return binary.BigEndian.AppendUint64(s.all(tableReject), uint64(index))
}

// retry is the key of a message in the retry list of its run.
func (s scope) retry(k runKey, r retryRow) []byte {
	b := binary.BigEndian.AppendUint64(s.run(tableRetry, k), uint64(r.due))
	b = append(b, r.lane)
	return binary.BigEndian.AppendUint64(b, r.order)
}

// retryRow is a place in a run's retry list. Due is in nanoseconds since 1970.
type retryRow struct {
	due   int64
	lane  uint8
	order uint64
}

// keyOf is the run of a message.
func keyOf(id mta.MessageID) runKey { return runKey{id.Handover, id.Domain} }

// retryAt is the place of a message due at a time.
func retryAt(id mta.MessageID, due time.Time) retryRow {
	return retryRow{due: nanos(due), lane: id.Lane, order: id.Order}
}

func (r retryRow) id(k runKey) mta.MessageID {
	return mta.MessageID{Handover: k.handover, Domain: k.domain, Lane: r.lane, Order: r.order}
}

// parseRetry reads the key of a retry row.
func parseRetry(k []byte) (retryRow, bool) {
	if len(k) != messageSize+8 {
		return retryRow{}, false
	}
	k = k[scopeSize+12:]
	return retryRow{
		due:  int64(binary.BigEndian.Uint64(k)),
		lane: k[8], order: binary.BigEndian.Uint64(k[9:]),
	}, true
}

func appendPlace(k []byte, id mta.MessageID) []byte {
	k = binary.BigEndian.AppendUint64(k, id.Handover)
	k = binary.BigEndian.AppendUint32(k, id.Domain)
	k = append(k, id.Lane)
	return binary.BigEndian.AppendUint64(k, id.Order)
}

// parsePlace reads the last placeSize bytes of a key.
func parsePlace(k []byte) (mta.MessageID, bool) {
	if len(k) < placeSize {
		return mta.MessageID{}, false
	}
	k = k[len(k)-placeSize:]
	return mta.MessageID{
		Handover: binary.BigEndian.Uint64(k), Domain: binary.BigEndian.Uint32(k[8:]),
		Lane: k[12], Order: binary.BigEndian.Uint64(k[13:]),
	}, true
}

func claimKey(id mta.MessageID) []byte {
	return appendPlace(append(make([]byte, 0, 1+placeSize), tableClaim), id)
}

// parseClaimKey reads the key of a claim row.
func parseClaimKey(k []byte) (mta.MessageID, bool) {
	if len(k) != 1+placeSize {
		return mta.MessageID{}, false
	}
	return parsePlace(k)
}

func expiryKey(expires time.Time, id mta.MessageID) []byte {
	return appendPlace(key8(tableExpiry, uint64(nanos(expires))), id)
}

// parseExpiryKey reads the key of an expiry row.
func parseExpiryKey(k []byte) (mta.MessageID, bool) {
	if len(k) != 9+placeSize {
		return mta.MessageID{}, false
	}
	return parsePlace(k)
}

// indexKey is the prefix of an index by hash within one delivery.
func indexKey(table byte, hash [hashSize]byte, delivery uint64) []byte {
	k := make([]byte, 0, indexPrefix+8+placeSize)
	k = append(append(k, table), hash[:]...)
	return binary.BigEndian.AppendUint64(k, delivery)
}

// addressKey is the row that finds a message by its address. Without an order it
// stands for the delivery's one deliverable message to that address.
func addressKey(hash [hashSize]byte, delivery uint64, order uint64) []byte {
	k := indexKey(tableAddress, hash, delivery)
	if order == 0 {
		return k
	}
	return binary.BigEndian.AppendUint64(k, order)
}

func eventKey(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 3+8), tableEvent, 0, 0), sequence)
}

func requestAgeKey(at time.Time, id string) []byte {
	return append(key8(tableRequestAge, uint64(nanos(at))), id...)
}

// after is the least key that has not the prefix k.
func after(k []byte) []byte {
	end := bytes.Clone(k)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// next is the least key greater than k.
func next(k []byte) []byte { return append(bytes.Clone(k), 0) }

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
