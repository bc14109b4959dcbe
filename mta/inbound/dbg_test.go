package inbound

import (
	"fmt"
	"github.com/veredus/veredus/mta/bounce"
	"os"
	"testing"
)

func TestDbg(t *testing.T) {
	f := os.Getenv("DBG")
	if f == "" {
		t.Skip()
	}
	raw, _ := os.ReadFile("testdata/mails/" + f)
	m := Parse(raw, Limits{})
	s := newStudy(m)
	fmt.Printf("REPORT<<%s>>\nCOPIED<<%.300s>>\nstatus %+v\nscore %d\n", s.report, s.copied, s.status, bounceScore(s, s.original()))
	for _, p := range passages(s.report) {
		fmt.Printf("P %+v\n", p)
	}
	r := NewClassifier(bounce.Default(), nil).Classify(m, Envelope{})
	fmt.Printf("%+v\n", r)
	for _, x := range r.Recipients {
		fmt.Printf("EXPLAIN %+v\n", bounce.Default().Explain(bounce.Input{Reply: x.Diagnostic}))
	}
}
