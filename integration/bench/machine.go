//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/dkim/openssl"
)

// signing is how fast one core of this machine makes RSA-2048 signatures. It is
// counted in CPU time, so that other work on the machine changes it little.
type signing struct {
	By        string  `json:"by"`
	PerSecond float64 `json:"signatures_per_cpu_second"`
}

// speedTime is how long it is measured.
const speedTime = 3 * time.Second

// cpu is the CPU time of one signature.
func (s signing) cpu() time.Duration { return time.Duration(float64(time.Second) / s.PerSecond) }

// signingRate asks OpenSSL's own command; where it is not installed, libcrypto signs here.
func signingRate(ctx context.Context) (signing, error) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		_, cpu, err := openssl.SigningRate(speedTime)
		if err != nil {
			return signing{}, fmt.Errorf("the yardstick of this benchmark is OpenSSL: apt-get install openssl: %w", err)
		}
		return signing{By: "libcrypto", PerSecond: 1 / cpu.Seconds()}, nil
	}
	out, err := exec.CommandContext(ctx, path, "speed", "-seconds", strconv.Itoa(int(speedTime.Seconds())), "rsa2048").Output()
	if err != nil {
		return signing{}, fmt.Errorf("openssl speed: %w", err)
	}
	rate, ok := parseSpeed(string(out))
	if !ok {
		return signing{}, fmt.Errorf("openssl speed printed no line for rsa 2048 bits:\n%s", out)
	}
	version, _ := exec.CommandContext(ctx, path, "version").Output()
	return signing{By: strings.Join(strings.Fields(string(version))[:2], " "), PerSecond: rate}, nil
}

var speedLine = regexp.MustCompile(`(?m)^rsa\s+2048 bits(.*)$`)

// parseSpeed finds signatures per second in the line "rsa 2048 bits 0.000224s 0.000013s
// 4466.5 74520.2": the first figure that is not a time. Later versions of OpenSSL have
// more columns of both kinds, with signing first in each.
func parseSpeed(out string) (float64, bool) {
	m := speedLine.FindStringSubmatch(out)
	if m == nil {
		return 0, false
	}
	for _, field := range strings.Fields(m[1]) {
		if strings.HasSuffix(field, "s") {
			continue
		}
		rate, err := strconv.ParseFloat(field, 64)
		return rate, err == nil && rate > 0
	}
	return 0, false
}

// busy is the CPU time that all processes of this machine have used since it started.
func busy() time.Duration {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var sum int
	for i, field := range strings.Fields(line) {
		n, _ := strconv.Atoi(field)
		if i >= 1 && i <= 8 && i != 4 && i != 5 { // user to steal, without idle and iowait
			sum += n
		}
	}
	return time.Duration(sum) * tick
}

// machine is what the table's caption says.
func machine() string {
	name := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*:\s*(.+)`).FindStringSubmatch(string(data)); m != nil {
			name = m[1]
		}
	}
	return fmt.Sprintf("%d x %s, %s", runtime.NumCPU(), name, runtime.Version())
}
