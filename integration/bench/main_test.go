//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strings"
	"testing"
)

// The test binary is also the receiver and the relay of its runs, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "sink" || os.Args[1] == "node") {
		if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A small run from end to end: processes start, all mail arrives and is verified, figures
// come out, and nothing is left behind.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	runtime.LockOSThread() // children die with the thread that started them
	defer runtime.UnlockOSThread()
	parent := t.TempDir()
	dir, err := workDir(parent)
	if err != nil {
		t.Skip(err) // temporary files are in memory here
	}
	b := &bench{messages: 300, repeat: 1, sessions: 20, dir: dir, note: &bytes.Buffer{}}
	r, err := b.one(t.Context(), caseUnsigned, 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sink.Messages < 300 || r.Messages != 300 || r.PerSecond <= 0 || r.CPUPerThousand <= 0 || r.PeakBytes <= 0 || r.P99 < r.P50 || r.P50 <= 0 {
		t.Errorf("result %+v", r)
	}
	r.Signing = signing{By: "test", PerSecond: 4000}
	r.compare()
	var out strings.Builder
	report(&out, []*result{r})
	for _, want := range []string{"messages/s", "unsigned", "without signing at most 0.15"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
