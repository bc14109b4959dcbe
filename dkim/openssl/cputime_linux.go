//go:build (amd64 || arm64) && !nolibcrypto

package openssl

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuOfThread returns the CPU time of the calling thread, user and system, which the
// goroutine must be locked to. getrusage has the same figure, to the tick only.
func cpuOfThread() (d time.Duration, ok bool) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}
