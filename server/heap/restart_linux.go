package heap

import (
	"os"
	"syscall"
)

// oneArena is what glibc reads when a process begins (mallopt(3)). With cgo the store's cache
// and memory tables are C memory, allocated by whatever thread is at hand. By default
// glibc keeps a heap for each thread, up to eight for each processor, and each heap keeps what it
// had at most: resident memory grows for hours, with nothing leaking. So there is one
// heap, and what is large (128 KiB) is given back when it is freed.
var oneArena = []string{"MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=131072"}

// OneArena begins the process anew, with the same arguments and process id, so that its C
// library keeps one heap; it returns if that is so already, or if it cannot. Threads have
// heaps before any code of ours runs: later is too late. Whoever sets MALLOC_ARENA_MAX decides otherwise.
func OneArena() {
	if _, set := os.LookupEnv("MALLOC_ARENA_MAX"); set {
		return
	}
	if self, err := os.Executable(); err == nil {
		_ = syscall.Exec(self, os.Args, append(os.Environ(), oneArena...))
	}
}
