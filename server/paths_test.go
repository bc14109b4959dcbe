package server

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/operator"
)

// shownRate is how the message rate of a path is explained.
func shownRate(rule mxrules.Limits, inForce, learned mxrules.Rate) *veredusv1.Limit {
	p := &dispatch.PathView{Effective: mxrules.Effective{Limits: rule}, State: mxrules.State{MessageRate: inForce}, Pace: mxrules.Pace{MessageRate: learned}}
	p.Fresh.MessageRate = rule.Bounds.MessageRateStart
	for _, l := range pathLimits(p, noon).Limits {
		if l.GetField() == "message_rate" {
			return l
		}
	}
	return nil
}

func TestLearnedRatesAreShownInTheUnitThatPeopleUse(t *testing.T) {
	rule := mxrules.Limits{Governor: mxrules.GovernorOn, MessageRate: mxrules.Rate{Count: 36_000, Per: time.Hour}}
	rule.Bounds.MessageRateStart = mxrules.Rate{Count: 5, Per: time.Second}
	hourly := func(n int) mxrules.Rate { return mxrules.Rate{Count: n, Per: time.Hour} }
	l := shownRate(rule, hourly(10_800), hourly(10_800))
	if l.GetValue() != "{start: 5/s, high: 36000/h}" || l.GetStart() != "5/s" || l.GetLearned() != "3/s" || l.GetEffective() != "3/s" || l.GetSetBy() != "learned" {
		t.Errorf("below the rule: %v", l)
	}
	l = shownRate(rule, mxrules.Rate{Count: 100, Per: 10 * time.Second}, mxrules.Rate{})
	if l.GetEffective() != "36000/h" || l.GetSetBy() != "rule" {
		t.Errorf("at the rule: %v", l)
	}
}

// Work that changed nothing leaves no record behind.
func TestWorkThatChangedNothingIsNoEvent(t *testing.T) {
	none := queueEvent(&operator.Work{Kind: operator.Retry}, noon)
	if none.Type != veredusv1.FeedbackType_FEEDBACK_TYPE_UNSPECIFIED {
		t.Errorf("%+v", none)
	}
	if some := queueEvent(&operator.Work{Kind: operator.Retry, Count: 1}, noon); some.Type != veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED {
		t.Errorf("%+v", some)
	}
}
