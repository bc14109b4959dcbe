package learning

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

// said is a settlement of an attempt that was answered.
func said(reply, provider string, at time.Time) mta.Settlement {
	r := bounce.ParseReply(reply)
	r.Phase = smtpc.PhaseRCPT
	return mta.Settlement{
		Message: &mta.Message{}, Outcome: mta.Bounced, Time: at, Attempt: &mta.Attempt{Reply: r},
		Verdict: bounce.Default().Qualify(bounce.Input{Reply: r, Provider: provider}), Provider: provider,
	}
}

func TestTextsAreCountedByWhatDoesNotVary(t *testing.T) {
	store := newMemory()
	table := NewTable(TableOptions{Store: store, Bounces: bounce.Default})
	table.Settled([]mta.Settlement{
		said("550 5.1.1 <ada@example.com> user unknown at 12:30:01", "google", noon),
		said("550 5.1.1 <alan@example.com> user unknown at 12:31:45", "", noon.Add(time.Hour)),
		said("554 zorkmid refused 17", "qq", noon),
		{Message: &mta.Message{}, Outcome: mta.Delivered, Attempt: &mta.Attempt{Reply: smtpc.Reply{Code: 250, Text: "ok"}}},
		{Message: &mta.Message{}, Outcome: mta.Suppressed, Text: "denylisted"},
		{Message: &mta.Message{}, Outcome: mta.Bounced, Attempt: &mta.Attempt{Reply: smtpc.Reply{Code: 550, Text: "!!!"}}},
	})
	if err := table.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	texts := store.all()
	if len(texts) != 2 {
		t.Fatalf("%d texts: %+v", len(texts), texts)
	}
	u := texts[0]
	if u.Count != 2 || u.Normalised != "<addr> user unknown at <time>" || u.First.Text != "<ada@example.com> user unknown at 12:30:01" ||
		u.Providers["google"] != 1 || u.Providers[other] != 1 || !u.FirstTime.Equal(noon) || !u.LastTime.Equal(noon.Add(time.Hour)) || u.Verdict.Code != 10 {
		t.Errorf("%+v", u)
	}
	table.Settled([]mta.Settlement{said("550 too late", "", noon)})
	if err := table.Flush(t.Context()); err != nil || len(store.all()) != 2 {
		t.Errorf("remembered behind Close: %v", err)
	}
}

// The meaning that is kept is that of the first reply, whatever code the last had.
func TestVerdictIsOfTheFirstReply(t *testing.T) {
	store := newMemory()
	table := NewTable(TableOptions{Store: store, Bounces: bounce.Default})
	for _, reply := range []string{"450 zorkmid", "550 zorkmid"} {
		table.Settled([]mta.Settlement{said(reply, "", noon)})
		if err := table.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if v := store.all()[0].Verdict; v.Rule != "class:4xx" {
		t.Errorf("%+v", v)
	}
	if err := table.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// While a write is under way, what is said waits, bounded, and goes with the next one.
func TestOneWriteForAllThatWaited(t *testing.T) {
	store := newMemory()
	store.gate = make(chan struct{})
	table := NewTable(TableOptions{Store: store, Bounces: bounce.Default})
	table.Settled([]mta.Settlement{said("550 first", "", noon)})
	store.gate <- struct{}{} // the first write began
	for i := range 3000 {
		table.Settled([]mta.Settlement{said("550 again "+letters(i%7), "", noon)})
	}
	closed := make(chan error)
	go func() { closed <- table.Close(context.Background()) }()
	for open := true; open; {
		select {
		case store.gate <- struct{}{}:
		case err := <-closed:
			if open = false; err != nil {
				t.Error(err)
			}
		}
	}
	if n := len(store.all()); n != 8 || store.writes > 4 {
		t.Errorf("%d texts in %d writes", n, store.writes)
	}
}

func TestAStoreThatFailsStopsNothing(t *testing.T) {
	store := newMemory()
	store.err = errors.New("disk on fire")
	table := NewTable(TableOptions{Store: store, Bounces: bounce.Default})
	table.Settled([]mta.Settlement{said("550 lost", "", noon)})
	if err := table.Close(t.Context()); err != nil && !errors.Is(err, store.err) {
		t.Error(err)
	}
}

// A receiver that invents a text for each message pushes out its own, not what
// others say again and again, nor what an operator has spoken about.
func TestInventedTextsPushOutEachOther(t *testing.T) {
	const most = 400
	store := newMemory()
	table := NewTable(TableOptions{Store: store, Bounces: bounce.Default, MaxTexts: most})
	table.Settled([]mta.Settlement{said("550 once but kept", "", noon)})
	if err := table.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := store.all()[0].ID
	if _, err := store.SetReplyTextStatus(t.Context(), kept, Keep); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range 60 {
		at := noon.Add(time.Duration(round) * time.Minute)
		for i := range 50 {
			table.Settled([]mta.Settlement{said("550 honest "+letters(i), "", at)})
			table.Settled([]mta.Settlement{said("550 invented "+letters(random.IntN(1<<30)), "", at)})
		}
		if err := table.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(store.all()); n > most {
			t.Fatalf("%d texts", n)
		}
	}
	if err := table.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	honest := 0
	for _, text := range store.all() {
		if strings.HasPrefix(text.Normalised, "honest") && text.Count == 60 {
			honest++
		}
	}
	if _, err := store.ReplyText(t.Context(), kept); err != nil || honest != 50 {
		t.Errorf("%d honest texts of 50, kept: %v", honest, err)
	}
}

func TestLongAndForeignReplies(t *testing.T) {
	for _, text := range []string{strings.Repeat("mailbox full ", 1000), strings.Repeat("ü", 3000), "bo\xeete pleine", strings.Repeat("\xff", 5000)} {
		got, ok := newText(smtpc.Reply{Code: 550, Text: text}, "", noon)
		if !ok || len(got.First.Text) > maxReply || bounce.Normalise(got.First.Text) != got.Normalised {
			t.Errorf("%.20q: %d octets kept, normal form %.40q", text, len(got.First.Text), got.Normalised)
		}
	}
}

func TestManyProvidersAreFewer(t *testing.T) {
	text, _ := newText(smtpc.Reply{Code: 550, Text: "no"}, "p0", noon)
	for i := range 30 {
		more, _ := newText(smtpc.Reply{Code: 550, Text: "no"}, fmt.Sprintf("p%d", i), noon)
		text.add(&more)
	}
	if len(text.Providers) > maxProviders+1 || text.Providers[other] != 20 || text.providers()[0] != other {
		t.Errorf("%v", text.Providers)
	}
}

// letters writes a number as a word, which is not masked.
func letters(n int) string {
	word := "w"
	for ; n > 0; n /= 26 {
		word += string(rune('a' + n%26))
	}
	return word
}

func BenchmarkSettled(b *testing.B) {
	table := NewTable(TableOptions{Store: newMemory(), Bounces: bounce.Default})
	list := []mta.Settlement{said("550 5.1.1 <ada@example.com>: Recipient address rejected: User unknown in virtual mailbox table", "google", noon)}
	b.ReportAllocs()
	for b.Loop() {
		table.Settled(list)
	}
	if err := table.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}
