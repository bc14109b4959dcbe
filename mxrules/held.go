package mxrules

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// Held is what holds a path by time, and how it came to that: a rest, a wait that a
// reply named, and the row of rests whose next is longer. It outlives a restart, since
// a receiver that is knocked at before its time extends its penalty. The zero Held
// holds nothing.
type Held struct {
	// Since and Until are the last rest or wait, ConnectUntil the end of a wait before
	// new connections, EaseAt when the next rest becomes shorter again; like Learned.At
	// on the governor's clock in a learner, in Unix nanoseconds in a Usage.
	Since, Until, ConnectUntil, EaseAt int64
	// Level is how many rests came in a row, Soft how many of them nobody ordered.
	Level, Soft uint8
	// Probing: one cautious probe ends it.
	Probing bool
	// Text is the reply that caused it, for explanations; in a Usage only.
	Text string
}

// held is what is worth keeping of rests.
func (r *rests) held(t time.Duration) Held {
	if r.level == 0 && !r.probing && r.until <= t && r.connectUntil <= t {
		return Held{}
	}
	return Held{
		Since: int64(r.since), Until: int64(r.until), ConnectUntil: int64(r.connectUntil), EaseAt: int64(r.easeAt),
		Level: uint8(min(r.level, maxInARow)), Probing: r.probing,
	}
}

// recall takes up what held the path before a restart. A clock that was set back
// meanwhile makes it no longer than the longest rest there is.
func (r *rests) recall(t time.Duration, h Held, tm *Timings) {
	if h == (Held{}) {
		return
	}
	bounded := func(at int64) time.Duration { return min(time.Duration(at), t+maxReactionRest) }
	r.since, r.until = min(time.Duration(h.Since), t), bounded(h.Until)
	r.connectUntil = bounded(h.ConnectUntil)
	r.level, r.easeAt = int(min(h.Level, maxInARow)), min(time.Duration(h.EaseAt), max(r.until, t)+tm.Recover)
	r.probing = h.Probing
}

// shift moves its times.
func (h Held) shift(by int64) Held {
	if h == (Held{}) {
		return h
	}
	for _, at := range []*int64{&h.Since, &h.Until, &h.ConnectUntil, &h.EaseAt} {
		*at += by
	}
	return h
}

// heldSize is the binary form without its text, which has a length of two octets.
const heldSize = 4*8 + 3 + 2

func (h Held) append(b []byte) []byte {
	for _, at := range [...]int64{h.Since, h.Until, h.ConnectUntil, h.EaseAt} {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	probing := byte(0)
	if h.Probing {
		probing = 1
	}
	text := h.Text
	if len(text) > maxTrouble {
		text = strings.ToValidUTF8(text[:maxTrouble], "")
	}
	b = append(b, h.Level, h.Soft, probing)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// errHeld is a form that append did not write.
var errHeld = errors.New("mxrules: what holds a path is stored in a form that is not known")

// latest is a time in Unix nanoseconds behind which none makes sense.
const latest = int64(1) << 62

// parse reads what append wrote. Times that make no sense hold nothing.
func (h *Held) parse(b []byte) error {
	if len(b) < heldSize || len(b) != heldSize+int(binary.BigEndian.Uint16(b[heldSize-2:])) || len(b) > heldSize+maxTrouble {
		return errHeld
	}
	text := b[heldSize:]
	if !utf8.Valid(text) || b[34] > 1 {
		return errHeld
	}
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[i*8:])) }
	*h = Held{
		Since: at(0), Until: at(1), ConnectUntil: at(2), EaseAt: at(3),
		Level: min(b[32], maxInARow), Soft: min(b[33], maxInARow), Probing: b[34] == 1, Text: string(text),
	}
	for _, t := range [...]int64{h.Since, h.Until, h.ConnectUntil, h.EaseAt} {
		if t < -latest || t > latest {
			*h = Held{}
		}
	}
	return nil
}
