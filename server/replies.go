package server

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	// keepReplies is how many replies of a destination are shown.
	keepReplies = 20
	// keepDestinations is how many destinations have their replies kept; the one
	// that was longest without trouble leaves first.
	keepDestinations = 500
	// replyText bounds a reply that is kept, in octets.
	replyText = 512
)

// replies remembers the latest replies that were not a success, by destination,
// since the process began. Safe for concurrent use.
type replies struct {
	mu    sync.Mutex
	clock uint64
	by    map[string]*lastReplies
}

// lastReplies are one destination's, latest last.
type lastReplies struct {
	used uint64
	list []*veredusv1.LastReply
}

func newReplies() *replies { return &replies{by: map[string]*lastReplies{}} }

// settled takes what was settled.
func (r *replies) settled(list []mta.Settlement) {
	for i := range list {
		if s := &list[i]; s.Attempt != nil && s.Outcome != mta.Delivered {
			r.add(s)
		}
	}
}

func (r *replies) add(s *mta.Settlement) {
	reply := &veredusv1.LastReply{
		Time: timestamppb.New(s.Time), Source: s.Attempt.Source, RemoteHost: s.Attempt.RemoteHost,
		Phase: s.Attempt.Reply.Phase.String(), Reply: clip(s.Attempt.Reply.String(), replyText),
		BounceCode: int32(s.Verdict.Code), Tag: s.Verdict.Tag,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	d := r.by[s.Destination]
	if d == nil {
		r.makeRoom()
		d = &lastReplies{}
		r.by[s.Destination] = d
	}
	d.used = r.clock
	if len(d.list) == keepReplies {
		copy(d.list, d.list[1:])
		d.list = d.list[:keepReplies-1]
	}
	d.list = append(d.list, reply)
}

// makeRoom forgets the destination that was longest without trouble.
func (r *replies) makeRoom() {
	if len(r.by) < keepDestinations {
		return
	}
	oldest, least := "", r.clock
	for name, d := range r.by {
		if d.used <= least {
			oldest, least = name, d.used
		}
	}
	delete(r.by, oldest)
}

// of is a destination's replies, latest first.
func (r *replies) of(destination string) []*veredusv1.LastReply {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.by[destination]
	if d == nil {
		return nil
	}
	list := slices.Clone(d.list)
	slices.Reverse(list)
	return list
}
