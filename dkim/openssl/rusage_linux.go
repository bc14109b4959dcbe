//go:build (amd64 || arm64) && !nolibcrypto

package openssl

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuOfThread returns the CPU time of the calling thread, which the goroutine must be
// locked to.
func cpuOfThread() (d time.Duration, ok bool) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
