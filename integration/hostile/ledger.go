package hostile

import (
	"bytes"
	"hash/fnv"
	"maps"
	"sync"
)

// Ledger is what receivers took: every message whose final dot, or last chunk, they read. The
// zero value lacks its map; [Start] makes one. Safe for concurrent use.
type Ledger struct {
	mu     sync.Mutex
	watch  func(total int)
	total  int
	copies map[string]*Copies
}

// Watch has f called behind each entry with the number of all so far, before the reply
// leaves.
func (l *Ledger) Watch(f func(total int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch = f
}

// Copies is what the ledger knows of one Message-ID.
type Copies struct {
	// Taken counts the copies.
	Taken int
	// Confirmed counts those whose 250 was written.
	Confirmed int
	// Domain is whose receiver took the first.
	Domain string
	// Differ says that two copies were not the same mail: header and body are compared,
	// without DKIM-Signature fields, which carry the time of signing.
	Differ bool

	sum uint64
}

// take enters a message and answers its Message-ID.
func (l *Ledger) take(domain string, content []byte) (messageID string) {
	messageID, sum := digest(content)
	l.mu.Lock()
	c := l.copies[messageID]
	if c == nil {
		c = &Copies{Domain: domain, sum: sum}
		l.copies[messageID] = c
	}
	c.Taken++
	c.Differ = c.Differ || c.sum != sum
	l.total++
	total, watch := l.total, l.watch
	l.mu.Unlock()
	if watch != nil {
		watch(total)
	}
	return messageID
}

func (l *Ledger) confirm(messageID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.copies[messageID].Confirmed++
}

// Total is how many copies were taken.
func (l *Ledger) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Copies is the ledger by Message-ID, without angle brackets.
func (l *Ledger) Copies() map[string]Copies {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]Copies, len(l.copies))
	for id, c := range maps.All(l.copies) {
		all[id] = *c
	}
	return all
}

// digest is a message's Message-ID and a sum of all but its DKIM-Signature fields.
func digest(content []byte) (messageID string, sum uint64) {
	h := fnv.New64a()
	inHeader, inSignature := true, false
	for line := range bytes.Lines(content) {
		if inHeader {
			field := bytes.TrimRight(line, "\r\n")
			switch {
			case len(field) == 0:
				inHeader, inSignature = false, false
			case field[0] != ' ' && field[0] != '\t':
				inSignature = hasName(field, "DKIM-Signature:")
				if hasName(field, "Message-ID:") {
					messageID = string(bytes.Trim(field[len("Message-ID:"):], " \t<>"))
				}
			}
		}
		if !inSignature {
			_, _ = h.Write(line)
		}
	}
	return messageID, h.Sum64()
}

func hasName(field []byte, name string) bool {
	return len(field) >= len(name) && bytes.EqualFold(field[:len(name)], []byte(name))
}
