package mta

import (
	"bufio"
	"crypto"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// leaver is a receiver that hangs up without a word. With mayStay it does so at the MAIL
// for which that answers false, given the connection and how many messages it carried,
// both from 0; with grouping false, at any MAIL with something in the same flight behind it.
type leaver struct {
	mayStay  func(connection, carried int) bool
	grouping bool
	hello    string
	takes    time.Duration // for each message

	mu          sync.Mutex
	connections int
	left        int
}

func (l *leaver) serve(conn net.Conn) {
	defer conn.Close()
	l.mu.Lock()
	n := l.connections
	l.connections++
	l.mu.Unlock()
	fmt.Fprint(conn, "220 mx ESMTP\r\n")
	in := bufio.NewReader(conn)
	for carried, data := 0, false; ; {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		switch {
		case err != nil:
			return
		case data && line != ".":
			continue
		case strings.HasPrefix(line, "MAIL") && (!l.grouping && in.Buffered() > 0 || l.mayStay != nil && !l.mayStay(n, carried)):
			l.mu.Lock()
			l.left++
			l.mu.Unlock()
			return
		}
		reply := "250 ok"
		switch {
		case strings.HasPrefix(line, "EHLO") && l.hello != "":
			reply = l.hello
		case line == "DATA":
			reply = "354 go"
		case line == ".":
			carried++
			time.Sleep(l.takes)
		}
		data = strings.HasPrefix(reply, "354")
		if _, err := io.WriteString(conn, reply+"\r\n"); err != nil || line == "QUIT" {
			return
		}
	}
}

// learning is a rule for one connection whose governor learns.
func learning(t *testing.T) *mxrules.Rules {
	t.Helper()
	rules, err := mxrules.NewRules([]mxrules.Rule{{
		ID: "one", Set: mxrules.FieldsOf(mxrules.FieldConnections, mxrules.FieldGovernor),
		Limits: mxrules.Limits{Connections: 1, Governor: mxrules.GovernorOn},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// learnedBy is a relay that learns, with the store's bulk mail under way to the receiver.
func (l *leaver) learnedBy(t *testing.T, store *memory) *Relay {
	t.Helper()
	cfg := config(t, store, l.serve)
	cfg.Settings.Rules = learning(t)
	r := started(t, cfg)
	r.HandOver(bulk(1))
	return r
}

// told collects what happened to paths, but for limits that were raised.
func (m *memory) told() (texts func() []string) {
	var mu sync.Mutex
	var list []string
	m.after = func(call string, b any) {
		if call != "Write" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range b.(*Batch).Events {
			if e.Kind != PathRaisedEvent {
				list = append(list, e.Kind.String()+": "+e.Text)
			}
		}
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}

func crowd(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("u%d@a.example", i))
	}
	return list
}

// untroubled checks that each message was delivered at its only attempt.
func (m *memory) untroubled(t *testing.T, ids []MessageID) {
	t.Helper()
	for _, id := range ids {
		if list := m.outcomes(id); len(list) != 1 || list[0].Outcome != Delivered || list[0].Message.State.Attempts != 1 {
			t.Fatalf("%v: %+v", id, list)
		}
	}
}

// A connection that the receiver closes in silence between two messages, which shows only
// at the next MAIL, costs that message nothing and says nothing of the pace.
func TestClosedInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		l := &leaver{takes: 10 * time.Millisecond, mayStay: func(connection, carried int) bool {
			return carried < 3+connection%5
		}}
		ids := store.add(bulk(1), 1, crowd(60)...)
		told := store.told()
		r := l.learnedBy(t, store)
		pass(10 * time.Second)
		store.untroubled(t, ids)
		if l.left < 8 {
			t.Errorf("%d connections were closed in silence", l.left)
		}
		stop(t, r)
		if list := told(); len(list) != 0 {
			t.Errorf("told of the path: %q", list)
		}
	})
}

// A receiver that closes each connection in silence behind as many messages has a cap on
// them. It is learned, and kept to.
func TestSilentCapOnMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		l := &leaver{takes: 10 * time.Millisecond, mayStay: func(_, carried int) bool { return carried < 10 }}
		ids := store.add(bulk(1), 1, crowd(200)...)
		told := store.told()
		r := l.learnedBy(t, store)
		pass(3 * time.Second)
		v, _, err := r.Destination(t.Context(), "a.example")
		if err != nil || len(v.Paths) != 1 || v.Paths[0].State.MessagesPerConnection != 10 {
			t.Errorf("path %+v, %v", v.Paths, err)
		}
		pass(7 * time.Second)
		store.untroubled(t, ids)
		if l.left != samePlace || l.connections != 20 {
			t.Errorf("%d of %d connections were closed in silence", l.left, l.connections)
		}
		stop(t, r)
		if list := told(); len(list) != 1 || !strings.Contains(list[0], "mx.a.example closed 4 connections in a row without a word, each behind 10 messages") {
			t.Errorf("told of the path: %q", list)
		}
	})
}

// What a receiver does with idle connections is no cap.
func TestIdleConnectionsClosedAreNoCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		l := &leaver{mayStay: func(_, carried int) bool { return carried < 1 }}
		h := standing(1)
		told := store.told()
		r := started(t, config(t, store, l.serve))
		var ids []MessageID
		for _, to := range crowd(40) {
			id := store.add(h, 1, to)[0]
			ids = append(ids, id)
			r.Arrived(h, id, "a.example", time.Now().Add(time.Hour))
			pass(3 * time.Second)
		}
		store.untroubled(t, ids)
		stop(t, r)
		if list := told(); l.left < 10 || len(list) != 0 {
			t.Errorf("%d connections were closed in silence; told of the path: %q", l.left, list)
		}
	})
}

// A receiver that drops connections at what stands behind MAIL in one flight gets its
// commands one by one, and the messages whose groups it dropped go again at once.
func TestDroppedGroupsReturnTheirMessages(t *testing.T) {
	for _, hello := range []string{"250-mx\r\n250 PIPELINING", "250-mx\r\n250-PIPELINING\r\n250 CHUNKING"} {
		synctest.Test(t, func(t *testing.T) {
			store := newMemory()
			l := &leaver{hello: hello, takes: 10 * time.Millisecond, mayStay: func(int, int) bool { return true }}
			chunks := strings.HasSuffix(hello, "CHUNKING")
			h := bulk(1)
			ids := store.add(h, 1, crowd(60)...)
			told := store.told()
			r := started(t, config(t, store, l.serve))
			r.HandOver(h)
			pass(10 * time.Second)
			if chunks { // what went out whole with its envelope may have been delivered
				pass(time.Hour)
			} else {
				store.untroubled(t, ids)
			}
			for _, id := range ids {
				if list := store.outcomes(id); len(list) == 0 || list[len(list)-1].Outcome != Delivered {
					t.Fatalf("%v: %+v", id, list)
				}
			}
			news := 0
			for _, text := range told() {
				if strings.Contains(text, "broke inside a group") {
					news++
				}
			}
			if news == 0 || news > 2 || l.left > 8 {
				t.Errorf("%d connections were dropped; told %q", l.left, told())
			}
			stop(t, r)
		})
	}
}

// Places in a row count only of connections that began behind each other.
func TestHangUpsThatShowACap(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	type end struct{ messages, opened, closed int }
	for name, tt := range map[string]struct {
		ends []end
		want bool
	}{
		"four in a row":            {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}, {9, 3, 4}}, want: true},
		"three":                    {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}}},
		"began together":           {ends: []end{{9, 0, 5}, {9, 0, 5}, {9, 0, 5}, {9, 0, 5}, {9, 0, 6}}},
		"two at a time":            {ends: []end{{9, 0, 5}, {9, 0, 5}, {9, 5, 9}, {9, 5, 9}, {9, 9, 14}, {9, 9, 14}, {9, 14, 19}}, want: true},
		"another place":            {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}, {8, 3, 4}, {9, 4, 5}}},
		"one that carried more":    {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}, {-12, 3, 4}, {9, 4, 5}}},
		"one that carried fewer":   {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}, {-5, 3, 4}, {9, 4, 5}}, want: true},
		"counting begins anew":     {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}, {9, 3, 4}, {9, 4, 5}}},
		"nothing known, carried":   {ends: []end{{-9, 0, 1}}},
		"the clock was set back":   {ends: []end{{9, 10, 11}, {9, 1, 2}, {9, 2, 3}, {9, 3, 4}}, want: true},
		"others do not disturb it": {ends: []end{{9, 0, 1}, {9, 1, 2}, {9, 2, 3}, {9, 3, 4}}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			var h hangUps
			got := false
			for i, e := range tt.ends {
				h.again(fmt.Sprint("other", i), 9, at(e.opened), at(e.closed))
				if got = false; e.messages > 0 {
					got = h.again("p", e.messages, at(e.opened), at(e.closed))
				} else {
					h.carried("p", -e.messages)
				}
			}
			if got != tt.want {
				t.Errorf("a cap: %t", got)
			}
		})
	}
	var h hangUps
	for i := range 3 * maxPlaces {
		h.again(fmt.Sprint(i), 9, at(0), at(1))
	}
	if len(h.paths) > maxPlaces {
		t.Errorf("%d paths are watched", len(h.paths))
	}
}

// What is lost at its own MAIL goes again at once a few times; what another's failure
// took with it always does.
func TestReturnsAreBounded(t *testing.T) {
	own, others := smtpc.Result{Lost: true, Reply: smtpc.Reply{Phase: smtpc.PhaseMAIL}}, smtpc.Result{Lost: true, Reply: smtpc.Reply{Phase: smtpc.PhaseQuit}}
	for returns := range 5 {
		j := &job{h: &held{returns: returns}}
		if got := j.mayReturn(&own); got != (returns < 3) {
			t.Errorf("the %d. time: %t", returns+1, got)
		}
		if !j.mayReturn(&others) {
			t.Errorf("behind another's failure, the %d. time", returns+1)
		}
	}
}

// sleepy is a key that takes its time.
type sleepy struct{ crypto.Signer }

func (s sleepy) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	time.Sleep(3 * time.Second)
	return s.Signer.Sign(rand, digest, opts)
}

// listening is a learner that notes how long messages took.
type listening struct {
	mxrules.Learner
	took *[]time.Duration
}

func (l listening) Note(at time.Duration, e mxrules.Event) {
	if e.Kind == mxrules.EventServed {
		*l.took = append(*l.took, e.Took)
	}
	l.Learner.Note(at, e)
}

// Governors learn from the time that the receiver takes, not from what it takes us to sign.
func TestLatencyIsTheReceiversAlone(t *testing.T) {
	key, err := dkim.GenerateRSA(2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := dkim.NewKey("sender.example", "s1", sleepy{key})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := dkim.NewKeyring([]*dkim.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	for _, hello := range []string{"", "250-mx\r\n250 PIPELINING"} {
		synctest.Test(t, func(t *testing.T) {
			store := newMemory()
			l := &leaver{hello: hello, grouping: true, takes: 200 * time.Millisecond}
			h := bulk(1)
			ids := store.add(h, 1, crowd(5)...)
			cfg := config(t, store, l.serve)
			cfg.Settings.Rules, cfg.Settings.Keys = oneConnection(t), keys
			var took []time.Duration
			cfg.Dispatch.Learner = func(timings mxrules.Timings) mxrules.Learner {
				return listening{mxrules.NewAdaptive(timings), &took}
			}
			r := started(t, cfg)
			r.HandOver(h)
			pass(time.Minute)
			store.untroubled(t, ids)
			stop(t, r)
			if len(took) != len(ids) {
				t.Errorf("%d replies were heard", len(took))
			}
			for _, d := range took {
				if d != l.takes {
					t.Errorf("took %s", d)
				}
			}
		})
	}
}
