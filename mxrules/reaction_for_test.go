package mxrules

import (
	"testing"
	"time"
)

func TestReactionsAboutTheMessage(t *testing.T) {
	reactions, err := NewReactions([]Reaction{
		{Tag: "rate_limit", Do: DoSlow},
		{Tag: "spam_content", Count: 3, Within: time.Minute, Do: DoHoldDelivery},
		{Text: "later", Do: DoRetrySoon},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		e    Evidence
		want Do
		ok   bool
	}{
		"content":                        {Evidence{Code: 554, Tag: "spam_content", Text: "DOT: 554 spam"}, DoHoldDelivery, true},
		"content, sooner or later":       {Evidence{Code: 554, Tag: "spam_content", Text: "DOT: 554 later"}, DoHoldDelivery, true},
		"greylisted":                     {Evidence{Code: 451, Tag: "greylist", Text: "RCPT: 451 come back later"}, DoRetrySoon, true},
		"a path reaction comes first":    {Evidence{Code: 451, Tag: "rate_limit", Effect: EffectSlow, Text: "RCPT: 451 later"}, 0, false},
		"but not if it is no such reply": {Evidence{Code: 451, Tag: "rate_limit", Text: "RCPT: 451 later"}, DoRetrySoon, true},
		"accepted":                       {Evidence{Code: 250, Text: "DOT: 250 delivered sooner or later"}, 0, false},
		"something else":                 {Evidence{Code: 550, Tag: "user_unknown", Text: "RCPT: 550 no"}, 0, false},
	} {
		r, ok := reactions.OfMessage(tt.e)
		if ok != tt.ok || ok && r.Do != tt.want {
			t.Errorf("%s: %v, %v, want %v, %v", name, r.Do, ok, tt.want, tt.ok)
		}
	}
	if _, ok := (*Reactions)(nil).OfMessage(Evidence{Code: 554}); ok {
		t.Error("a rule without reactions has one")
	}
}

// To the path a reply that holds the delivery, or that is retried soon, says nothing.
func TestReactionsAboutTheMessageLeaveThePathAlone(t *testing.T) {
	for _, do := range []Do{DoHoldDelivery, DoRetrySoon} {
		reactions, err := NewReactions([]Reaction{{Text: "slow down", Do: do}})
		if err != nil {
			t.Fatal(err)
		}
		p := newPath(t, Limits{MessageRate: Rate{Count: 100, Per: time.Second}, Connections: 4, Reactions: reactions})
		for i := range 10 {
			p.Observe(after(time.Duration(i)*time.Minute), Evidence{Effect: EffectRest, Code: 421, Text: "MAIL: 421 slow down"})
		}
		if s := p.state(10 * time.Minute); s.Hold == HoldRest || s.MessageRate.String() != "100/s" {
			t.Errorf("%v: %+v", do, s)
		}
	}
}

func TestReactionsThatMakeNoSense(t *testing.T) {
	for _, r := range []Reaction{
		{Tag: "greylist", Count: 3, Within: time.Minute, Do: DoRetrySoon},
		{Tag: "spam", Do: DoHoldDelivery, For: time.Hour},
		{Tag: "spam", Do: DoRetrySoon + 1},
	} {
		if r.Check() == nil {
			t.Errorf("%s is taken", r.String())
		}
	}
}
