//go:build (amd64 || arm64) && !nolibcrypto

package openssl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebitengine/purego"
)

// collect collects garbage until no more than want keys are held, or the time is up.
func collect(t *testing.T, l *libcrypto, want int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for l.held.Load() > want {
		if ctx.Err() != nil {
			t.Fatalf("the library holds %d keys, want %d", l.held.Load(), want)
		}
		runtime.GC()
		runtime.Gosched()
	}
}

// Many goroutines sign with keys that come and go, while garbage is collected all the
// time, stacks move and a profiler sends its signals: every signature is right, and
// what the library held is given back.
func TestSigningUnderStress(t *testing.T) {
	_, key := newSigner(t, 1024)
	l, _ := opened()
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	if pprof.StartCPUProfile(io.Discard) == nil {
		defer pprof.StopCPUProfile()
	}
	type pair struct{ digest, signature []byte }
	var known []pair
	for i := range 64 {
		digest := sha256.Sum256([]byte{byte(i)})
		known = append(known, pair{digest[:], sign(t, key, digest[:])})
	}
	var failures atomic.Uint64
	var workers sync.WaitGroup
	for w := range 64 {
		workers.Go(func() {
			for load := range 4 {
				s, err := New(key)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 40 {
					p := known[(w+load+i)%len(known)]
					if got := deeper(i%50, func() []byte { return sign(t, s, p.digest) }); !bytes.Equal(got, p.signature) {
						t.Errorf("digest %x: another signature", p.digest)
					}
				}
				failures.Add(s.Failures())
			}
		})
	}
	workers.Wait()
	if failures.Load() > 0 {
		t.Errorf("the library failed %d times", failures.Load())
	}
	collect(t, l, 0)
}

// deeper calls f on a stack that had to grow, so that it moves.
func deeper(depth int, f func() []byte) []byte {
	if depth == 0 {
		return f()
	}
	var room [1024]byte
	room[depth] = byte(depth)
	result := deeper(depth-1, f)
	runtime.KeepAlive(&room)
	return result
}

// A reload drops keys and loads others, for years.
func TestMemoryStaysFlat(t *testing.T) {
	_, key := newSigner(t, 1024)
	l, _ := opened()
	digest := sha256.Sum256(nil)
	reload := func(times int) {
		for i := range times {
			s, err := New(key)
			if err != nil {
				t.Fatal(err)
			}
			sign(t, s, digest[:])
			if i%100 == 99 {
				collect(t, l, 100)
			}
		}
		collect(t, l, 0)
	}
	reload(100)
	before := allocated(t)
	reload(1000)
	// A key or a context left behind each time would be 3 MB and more. What glibc keeps
	// at hand for each thread counts, too; it is some 500 KB, and nothing without it.
	if grown := allocated(t) - before; grown > 3<<19 {
		t.Errorf("1000 keys that came and went left %d KB", grown>>10)
	}
}

// allocated returns the octets that C code has allocated and not freed, as glibc
// counts them (mallinfo2(3)). The size of the process would say less: it depends on Go's heap, too.
func allocated(t *testing.T) int {
	t.Helper()
	libc, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW)
	if err != nil {
		t.Skip(err)
	}
	address, err := purego.Dlsym(libc, "mallinfo2")
	if err != nil {
		t.Skip(err)
	}
	type counts struct{ number [10]uintptr }
	var mallinfo2 func() counts
	purego.RegisterFunc(&mallinfo2, address)
	info := mallinfo2()
	return int(info.number[4] + info.number[7]) // hblkhd and uordblks
}

// When the library fails, its reason is known, Go signs, and nothing stays behind.
func TestGoSignsWhenTheLibraryFails(t *testing.T) {
	s, key := newSigner(t, 1024)
	n := s.native
	for i := range n.contexts {
		if n.contexts[i] != 0 {
			call(n.lib.ctxFree, n.contexts[i])
		}
		n.contexts[i] = call(n.lib.ctxNew, n.pkey, 0) // without EVP_PKEY_sign_init
	}
	digest := sha256.Sum256(nil)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := n.sign(digest[:]); err == nil || !strings.Contains(err.Error(), "operation not") {
		t.Errorf("error %v", err)
	}
	if code := call(n.lib.errGet); code != 0 {
		t.Errorf("the library's list of errors still has %x", code)
	}
	if got := sign(t, s, digest[:]); !bytes.Equal(got, sign(t, key, digest[:])) || s.Failures() != 1 {
		t.Errorf("another signature, or %d failures", s.Failures())
	}
}

// The library refuses what is no key, and says why.
func TestRubbishIsNoKey(t *testing.T) {
	newSigner(t, 1024)
	l, _ := opened()
	for _, der := range []string{"\x30\x00", "\x30\x84\xff\xff\xff\xff", "\x02\x01\x00", strings.Repeat("\x30\x80", 5000), "hello"} {
		if pkey, err := l.parse([]byte(der)); err == nil || pkey != 0 {
			t.Errorf("%.10q: a key", der)
		}
	}
}

// One processor that is busy signing still serves the others.
func TestSigningLetsOthersRun(t *testing.T) {
	s, _ := newSigner(t, 2048)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	digest := sha256.Sum256(nil)
	stop := make(chan struct{})
	var signing sync.WaitGroup
	for range 8 {
		signing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					sign(t, s, digest[:])
				}
			}
		})
	}
	ping, pong := make(chan int), make(chan int)
	go func() {
		for n := range ping {
			pong <- n
		}
	}()
	for n := range 100 {
		ping <- n
		<-pong
	}
	close(ping)
	close(stop)
	signing.Wait()
}
