package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const smallScenario = `
name: small
duration: 1h
receivers:
  - name: small
    domains: [{name: small.example}]
    hosts: [{name: mx.small.example, preference: 10}]
    hidden: {message_rate: 5/s burst 10}
    latency: {end_of_data: 50ms, jitter: 30}
hand_overs:
  - {at: 0s, recipients: 200}
`

func TestSimulate(t *testing.T) {
	file, folder := write(t, "small.yaml", smallScenario), t.TempDir()
	plot := filepath.Join(folder, "small.svg")
	table := veredus(t, "simulate", file, "--plot", plot)
	table.want(t, exitOK, "small (seed 0)", "efficiency", "limit overruns 0")
	if drawing, err := os.ReadFile(plot); err != nil || !strings.HasPrefix(string(drawing), "<svg ") {
		t.Errorf("the plot: %v, %.40q", err, drawing)
	}
	first := veredus(t, "simulate", file, "--json", "--seed", "7")
	first.want(t, exitOK, `"efficiency":`, `"seed": 7`, `"delivered": 200`)
	if again := veredus(t, "simulate", file, "--json", "--seed", "7"); again.out != first.out {
		t.Error("the same seed gives another report")
	}
	veredus(t, "simulate", file, "--export", filepath.Join(folder, "run")).want(t, exitOK)
	for _, name := range []string{"node.yaml", "world.yaml", "mx.yaml", "recipients.csv"} {
		if _, err := os.Stat(filepath.Join(folder, "run", name)); err != nil {
			t.Error(err)
		}
	}
}

func TestSimulateSaysWhatIsWrong(t *testing.T) {
	veredus(t, "simulate").want(t, exitUsage, "the scenario file is missing")
	veredus(t, "simulate", filepath.Join(t.TempDir(), "none.yaml")).want(t, exitUsage, "none.yaml", "no such file")
	veredus(t, "simulate", write(t, "bad.yaml", smallScenario+"speed: 3\n")).want(t, exitUsage, "unknown key speed")
}
