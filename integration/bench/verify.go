//go:build linux

package main

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/dkim"
)

// archive holds all messages in memory, so that the receiver's disk does not slow down
// that of the relay.
type archive struct {
	mu    sync.Mutex
	chunk []byte
	list  []letter
}

// letter is a message as it was received.
type letter struct {
	at      time.Time
	index   int  // which message it is; -1 for none of ours
	dotted  bool // lines that begin with a dot have one more (RFC 5321 section 4.5.2)
	content []byte
}

const chunkSize = 8 << 20

func (k *archive) add(m letter, content []byte) letter {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.chunk)+len(content) > cap(k.chunk) {
		k.chunk = make([]byte, 0, max(chunkSize, len(content)))
	}
	begin := len(k.chunk)
	k.chunk = append(k.chunk, content...)
	m.content = k.chunk[begin:len(k.chunk):len(k.chunk)]
	k.list = append(k.list, m)
	return m
}

// message is what was sent.
func (m *letter) message() []byte {
	if !m.dotted {
		return m.content
	}
	return bytes.ReplaceAll(bytes.TrimPrefix(m.content, []byte(".")), []byte("\r\n."), []byte("\r\n"))
}

// findings are what the receiver says of a run.
type findings struct {
	Messages     int     `json:"messages"`
	Missing      int     `json:"missing"`
	Duplicates   int     `json:"duplicates"` // of recipients or Message-IDs
	Foreign      int     `json:"foreign"`    // to an address of no message
	Verified     int     `json:"verified"`
	VerifiedLive int     `json:"verified_live"`
	Bytes        float64 `json:"mean_bytes"`
	Connections  int64   `json:"connections"`
	Problem      string  `json:"problem,omitempty"` // the first bad signature

	accepted []int64
}

// err says what is wrong with a run of n messages.
func (f *findings) err(n int) error {
	if f.Messages == n && f.Verified == n && f.Missing+f.Duplicates+f.Foreign == 0 && f.Problem == "" && f.VerifiedLive >= n/liveth {
		return nil
	}
	return fmt.Errorf("the receiver found faults among %d messages: %+v", n, *f)
}

// check verifies one message's signature.
func (r *receiver) check(m *letter) error {
	verdicts, err := dkim.Verify(m.message(), func(name string) ([]string, error) {
		if name != selector+"._domainkey."+fromDomain {
			return nil, fmt.Errorf("no key at %s", name)
		}
		return []string{r.record}, nil
	})
	if err != nil {
		return err
	}
	if r.unsigned && len(verdicts) == 1 && verdicts[0].Err != nil && strings.Contains(verdicts[0].Err.Error(), "signature did not verify") {
		return nil // all that comes before the key's part is right: fields, key and body hash
	}
	if len(verdicts) != 1 || verdicts[0].Result != dkim.Pass || verdicts[0].Domain != fromDomain {
		return fmt.Errorf("message to %s: signatures %+v", address(max(m.index, 0)), verdicts)
	}
	return nil
}

func (r *receiver) verifyLive() {
	defer close(r.liveDone)
	for m := range r.live {
		if err := r.check(&m); err != nil {
			r.liveBad = append(r.liveBad, err.Error())
			continue
		}
		r.liveChecked++
	}
}

// verifyAll looks at every message of a run of n. Nothing may arrive any more.
func (r *receiver) verifyAll(n int) *findings {
	close(r.live)
	<-r.liveDone
	list := r.kept.list
	f := &findings{Messages: len(list), VerifiedLive: r.liveChecked, Connections: r.connections.Load(), accepted: make([]int64, n)}
	if len(r.liveBad) > 0 {
		f.Problem = r.liveBad[0]
	}
	r.tally(f, list)
	bad := r.verify(list)
	f.Verified = len(list) - len(bad)
	if len(bad) > 0 && f.Problem == "" {
		f.Problem = bad[0].Error()
	}
	return f
}

// tally finds what is missing and what came twice.
func (r *receiver) tally(f *findings, list []letter) {
	ids := make(map[string]bool, len(list))
	total := 0
	for i := range list {
		m := &list[i]
		total += len(m.content)
		id := messageID(m.content)
		switch {
		case m.index < 0 || m.index >= len(f.accepted):
			f.Foreign++
		case f.accepted[m.index] != 0 || ids[id] || id == "":
			f.Duplicates++
		default:
			f.accepted[m.index] = m.at.UnixNano()
		}
		ids[id] = true
	}
	for _, at := range f.accepted {
		if at == 0 {
			f.Missing++
		}
	}
	if len(list) > 0 {
		f.Bytes = float64(total) / float64(len(list))
	}
}

// messageID is the Message-ID field's value; empty without one.
func messageID(content []byte) string {
	header, _, _ := bytes.Cut(content, []byte("\r\n\r\n"))
	const name = "\r\nmessage-id:"
	i := bytes.Index(bytes.ToLower(header), []byte(name))
	if i < 0 {
		return ""
	}
	value, _, _ := bytes.Cut(header[i+len(name):], []byte("\r\n"))
	return string(bytes.TrimSpace(value))
}

// verify checks all signatures on all cores.
func (r *receiver) verify(list []letter) (bad []error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(list); i += workers {
				if err := r.check(&list[i]); err != nil {
					mu.Lock()
					bad = append(bad, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return bad
}
