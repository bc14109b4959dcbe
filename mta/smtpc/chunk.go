package smtpc

import (
	"strconv"
	"time"
)

// appendChunk appends the BDAT command for a content of so many octets (RFC 3030
// section 2).
func appendChunk(b []byte, octets int) []byte {
	return append(strconv.AppendInt(append(b, "BDAT "...), int64(octets), 10), " LAST\r\n"...)
}

// chunked says the envelope and the content in one flight. Nothing goes behind it: who
// refuses BDAT may have lost count of the octets.
func (t *transaction) chunked(env *Envelope) {
	s := t.s
	s.lines = s.appendEnvelope(s.lines[:0], env, "")
	s.lines = appendChunk(s.lines, chunkLen(t.mail.Content))
	whole, err := t.putChunk()
	if !whole {
		t.cutChunk(err)
		return
	}
	for _, st := range envelopeSteps[:2] {
		reply, ok := t.take(st.phase)
		if ok {
			t.judge(st, reply)
		}
		if s.closed() {
			t.res.Uncertain = t.res.Reply.Code == 0
			return
		}
	}
	t.chunkReply()
}

// chunk says the content of a transaction whose recipient was accepted.
func (t *transaction) chunk() {
	if t.unasked(PhaseEndOfData) {
		return
	}
	t.s.lines = appendChunk(t.s.lines[:0], chunkLen(t.mail.Content))
	if whole, err := t.putChunk(); !whole {
		t.cutOff(err)
		return
	}
	t.chunkReply()
}

// putChunk writes the commands in Session.lines and the content behind them.
func (t *transaction) putChunk() (whole bool, err error) {
	s := t.s
	if !t.res.Began {
		t.from = time.Now()
	}
	sent, whole, err := s.writeChunk(s.lines, t.mail.Content)
	if !t.res.Began && sent > 0 {
		t.res.Began = true
		s.info.Messages++
	}
	t.said = sent > 0
	t.res.Bytes = max(0, sent-int64(len(s.lines)))
	return whole, err
}

// cutChunk decides when content did not go out whole, by the replies that came.
func (t *transaction) cutChunk(cause error) {
	t.none = true
	if !t.res.Began {
		t.fail(PhaseQuit, cause)
		return
	}
	for _, st := range [...]step{envelopeSteps[0], envelopeSteps[1], {PhaseEndOfData, 0}} {
		got, err := t.s.lastWords(t.ctx, cause)
		if err != nil {
			t.fail(st.phase, err)
			return
		}
		reply := t.keep(got, st.phase)
		switch {
		case reply.Code >= 400:
			t.decide(reply)
		case reply.Code/100 != st.want:
			t.fail(st.phase, protocolErrorf("%d before the content was complete", reply.Code))
			return
		}
		if reply.Code == 421 {
			break
		}
	}
	t.s.Abort() // in the middle of a chunk there is no other way out
}

// chunkReply takes the final reply to BDAT LAST.
func (t *transaction) chunkReply() {
	s := t.s
	got, err := s.await(t.ctx, s.cfg.FinalDotTimeout)
	if err == nil && got.code/100 == 3 {
		t.keep(got, PhaseEndOfData)
		err = protocolErrorf("%d in answer to BDAT", got.code)
	}
	if err != nil {
		t.res.Uncertain = !t.decided
		t.fail(PhaseEndOfData, err)
		return
	}
	reply := t.keep(got, PhaseEndOfData)
	if !t.decided && reply.Code >= 500 && reply.Code <= 504 {
		// It offers CHUNKING and does not know the command: that says nothing of the message.
		t.none = true
		t.fail(PhaseEndOfData, protocolErrorf("%s to BDAT", reply))
		return
	}
	t.res.Delivered = !t.decided && reply.Code/100 == 2
	t.decide(reply)
	s.dirty = reply.Code/100 != 2
	s.alone = s.dirty
	t.hangUpAfter(got)
}

// chunkLen is the content's length as a chunk: with a last CRLF.
func chunkLen(message []byte) int { return len(message) + len(missingEnd(message)) }
