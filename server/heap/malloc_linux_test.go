//go:build (amd64 || arm64) && !nolibcrypto

package heap

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFewHeaps(t *testing.T) {
	t.Setenv("MALLOC_ARENA_MAX", "")
	found, _ := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if len(found) == 0 {
		t.Skip("this system has no glibc in /lib/*-linux-gnu")
	}
	if !fewHeaps() {
		t.Error("glibc's heaps are not set up")
	}
	if err := os.Setenv("MALLOC_ARENA_MAX", "4"); err != nil {
		t.Fatal(err)
	}
	if fewHeaps() {
		t.Error("the operator's own choice is overruled")
	}
}
