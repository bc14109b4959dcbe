package mta

import (
	"fmt"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// hangUps watches for receivers that close connections without a word behind the same
// number of messages each time: that is their cap on the messages of a connection. Any
// other silent end says nothing of the pace. It belongs to the owner.
type hangUps struct {
	paths map[string]place
}

// place is where connections of a path ended.
type place struct {
	messages int // carried before
	times    int // in a row
	last     time.Time
}

const (
	// samePlace is how many connections, each opened behind the end of the one before,
	// show a cap. Those that began together may have ended together for another reason.
	samePlace = 4
	// maxPlaces bounds how many paths are watched.
	maxPlaces = 4096
	// breather is from which pause on a server may have closed a connection because it
	// was idle.
	breather = time.Second
)

// again notes a connection, opened then, that ended in silence behind so many messages.
// It answers whether that shows a cap; then it begins anew.
func (h *hangUps) again(path string, messages int, opened, now time.Time) bool {
	p, known := h.paths[path]
	switch {
	case known && p.messages == messages && opened.Before(p.last) && !now.Before(p.last): // else the clock was set back
		return false
	case known && p.messages == messages:
		p.times++
	default:
		p = place{messages: messages, times: 1}
	}
	if p.times == samePlace {
		delete(h.paths, path)
		return true
	}
	if p.last = now; h.paths == nil || !known && len(h.paths) >= maxPlaces {
		h.paths = map[string]place{} // what is lost comes again
	}
	h.paths[path] = p
	return false
}

// carried notes a connection that ended otherwise: if it carried more messages than the
// others there is no cap.
func (h *hangUps) carried(path string, messages int) {
	if p, known := h.paths[path]; known && messages > p.messages {
		delete(h.paths, path)
	}
}

// cappedAt is the evidence of a cap.
func cappedAt(host string, messages int) dispatch.Evidence {
	return dispatch.Evidence{Evidence: mxrules.Evidence{
		Effect: mxrules.EffectFewerMessages, Messages: messages,
		Text: fmt.Sprintf("%s closed %d connections in a row without a word, each behind %d messages", host, samePlace, messages),
	}}
}
