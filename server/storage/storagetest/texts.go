package storagetest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/server/learning"
)

// changeTexts adds to the texts of replies, says an operator's word on one, or removes some.
func (e *engine) changeTexts() error {
	id := learning.ID{byte(e.rng.IntN(5))}
	_, known := e.m.texts[id]
	switch e.rng.IntN(6) {
	case 0:
		delete(e.m.texts, id)
		return e.store.DeleteReplyTexts(ctx(), []learning.ID{id})
	case 1:
		if !known {
			return nil
		}
		n := e.m.texts[id]
		n.Status = learning.Status(e.rng.IntN(4))
		e.m.texts[id] = n
		got, err := e.store.SetReplyTextStatus(ctx(), id, n.Status)
		if err == nil && got.Status != n.Status {
			err = fmt.Errorf("status of a text: got %d, want %d", got.Status, n.Status)
		}
		return err
	}
	var texts []learning.Text
	for range 1 + e.rng.IntN(4) {
		texts = append(texts, e.text())
	}
	for _, n := range texts {
		e.addText(n)
	}
	return e.store.AddReplyTexts(ctx(), texts)
}

func (e *engine) text() learning.Text {
	n := byte(e.rng.IntN(5))
	return learning.Text{
		ID: learning.ID{n}, Normalised: fmt.Sprintf("text %d", n), Count: int64(1 + e.rng.IntN(5)),
		First:     smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.1.1", Text: fmt.Sprintf("Text %d", e.rng.IntN(100))},
		Providers: map[string]int64{fmt.Sprintf("p%d", e.rng.IntN(3)): 1},
		FirstTime: e.m.now, LastTime: e.m.now.Add(time.Minute),
		Verdict: bounce.Verdict{Code: 10, Name: "Invalid recipient", Category: "hard", BounceType: bounce.BounceHard, Rule: fmt.Sprint(e.rng.IntN(3))},
	}
}

func (e *engine) addText(n learning.Text) {
	old, known := e.m.texts[n.ID]
	providers := map[string]int64{}
	for _, from := range []map[string]int64{old.Providers, n.Providers} {
		for name, count := range from {
			providers[name] += count
		}
	}
	if known {
		old.Count, old.LastTime, old.Verdict = old.Count+n.Count, n.LastTime, n.Verdict
		n = old
	}
	n.Providers = providers
	e.m.texts[n.ID] = n
}

func (e *engine) compareTexts(m *model) error {
	got := map[learning.ID]learning.Text{}
	err := e.store.EachReplyText(ctx(), func(n *learning.Text) bool {
		got[n.ID] = *n
		return true
	})
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(got, m.texts) {
		return fmt.Errorf("reply texts:\n got %+v\nwant %+v", got, m.texts)
	}
	return nil
}
