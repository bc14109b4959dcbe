//go:build (amd64 || arm64) && !nolibcrypto

package heap

import (
	"os"

	"github.com/ebitengine/purego"
)

// From glibc's malloc.h (mallopt(3)).
const (
	mmapThreshold = -3 // M_MMAP_THRESHOLD
	arenaMax      = -8 // M_ARENA_MAX
)

// With cgo the store's cache and memory tables are C memory, allocated by whatever thread is
// at hand. By default glibc keeps eight heaps for each processor, and each of them keeps what
// it had at most: resident memory grows for an hour, with nothing leaking. So there are no
// more than there are threads so early, two at least, and what is large is given back when
// it is freed.
const (
	cHeaps  = 2
	largeIn = 128 << 10 // glibc's own threshold, which would otherwise rise to what was freed, up to 32 MiB
)

// fewHeaps sets the C library's memory up, where it is glibc. It answers whether it did. Whoever sets
// MALLOC_ARENA_MAX decides otherwise.
func fewHeaps() (done bool) {
	if os.Getenv("MALLOC_ARENA_MAX") != "" {
		return false
	}
	defer func() { _ = recover() }() // a system on which libraries cannot be opened goes without
	libc, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return false
	}
	mallopt, err := purego.Dlsym(libc, "mallopt")
	if err != nil || mallopt == 0 {
		return false
	}
	for _, option := range [][2]int{{arenaMax, cHeaps}, {mmapThreshold, largeIn}} {
		if ok, _, _ := purego.SyscallN(mallopt, uintptr(option[0]), uintptr(option[1])); int32(ok) != 1 {
			return false
		}
	}
	return true
}
