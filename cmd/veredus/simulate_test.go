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
	bad := func(from, to string) string {
		return write(t, "bad.yaml", strings.Replace(smallScenario, from, to, 1))
	}
	veredus(t, "simulate", bad("5/s burst 10", "5 per second")).want(t, exitUsage, "bad.yaml:8:", `"5 per second"`, "100/s")
	veredus(t, "simulate", bad("end_of_data: 50ms", "end_of_data: soon")).want(t, exitUsage, "bad.yaml:9:", `"soon"`)
	const most = "9223372036854775807"
	veredus(t, "simulate", bad("    latency", "    mailboxes: {unknown: "+most+", full: 1}\n    latency")).want(t, exitUsage, most, "use 0 to 1000")
	veredus(t, "simulate", bad("name: small.example", "share: "+most+", name: small.example")).want(t, exitUsage, most, "share of 0 to 1000000")
	veredus(t, "simulate", write(t, "small.yaml", smallScenario), "--plot", "small.png").want(t, exitUsage, "small.png", ".svg")
}
