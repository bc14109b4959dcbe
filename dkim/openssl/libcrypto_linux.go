//go:build (amd64 || arm64) && !nolibcrypto

package openssl

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ebitengine/purego"
)

const (
	soname = "libcrypto.so.3"
	// maxSignature is the octets of the largest signature: libcrypto works with
	// keys of up to 16384 bits (OPENSSL_RSA_MAX_MODULUS_BITS).
	maxSignature = 16384 / 8

	// From openssl/crypto.h and openssl/rsa.h.
	initNoLoadConfig = 0x80    // OPENSSL_INIT_NO_LOAD_CONFIG
	initNoAtexit     = 0x80000 // OPENSSL_INIT_NO_ATEXIT
	paddingPKCS1     = 1       // RSA_PKCS1_PADDING
)

// libcrypto is the opened library. It stays open.
type libcrypto struct {
	version string
	sha256  uintptr // EVP_MD of SHA-256, a constant of the library

	d2iAutoPrivateKey, pkeyFree     uintptr
	ctxNew, ctxFree                 uintptr
	signInit, setPadding, setMD     uintptr
	sign                            uintptr
	errGet, errString, errClear     uintptr
	initCrypto, major, text, evp256 uintptr

	seats []seat
	next  atomic.Uint32
	held  atomic.Int64 // keys that were loaded and not freed
}

// seat is the right to be inside the library. There are as many as processors:
// more calls at once would only be more threads that compete for them.
//
// It is a mutex rather than a channel, for a waiting goroutine may belong to a bubble
// of testing/synctest while the one that makes room does not.
type seat struct {
	mu sync.Mutex
	io exchange
}

// exchange is the memory that a call reads and writes. It is part of the library's
// one allocation, so it never moves, and it holds no Go pointer.
type exchange struct {
	digest    [sha256.Size]byte
	size      uintptr // size_t
	signature [maxSignature]byte
}

var opened = sync.OnceValues(open)

func version() (string, error) {
	l, err := opened()
	if err != nil {
		return "", err
	}
	return l.version, nil
}

// open finds and starts the library. The system's openssl.cnf is not read: which
// providers and engines it loads into other programs must not decide what our
// process does.
func open() (l *libcrypto, err error) {
	defer func() {
		if r := recover(); r != nil {
			l, err = nil, fmt.Errorf("%w: opening it panicked: %v", ErrUnavailable, r)
		}
	}()
	handle, err := purego.Dlopen(soname, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	l = &libcrypto{seats: make([]seat, runtime.GOMAXPROCS(0))}
	if err := l.bind(handle); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if major := int32(call(l.major)); major != 3 {
		return nil, fmt.Errorf("%w: %s is version %d", ErrUnavailable, soname, major)
	}
	if int32(call(l.initCrypto, initNoLoadConfig|initNoAtexit, 0)) != 1 {
		return nil, fmt.Errorf("%w: OPENSSL_init_crypto failed", ErrUnavailable)
	}
	var text func(int32) string
	purego.RegisterFunc(&text, l.text)
	l.version = text(0)
	if l.sha256 = call(l.evp256); l.sha256 == 0 {
		return nil, fmt.Errorf("%w: it has no SHA-256", ErrUnavailable)
	}
	return l, nil
}

// bind looks up the functions.
func (l *libcrypto) bind(handle uintptr) error {
	for name, fn := range map[string]*uintptr{
		"OPENSSL_init_crypto":           &l.initCrypto,
		"OPENSSL_version_major":         &l.major,
		"OpenSSL_version":               &l.text,
		"EVP_sha256":                    &l.evp256,
		"d2i_AutoPrivateKey":            &l.d2iAutoPrivateKey,
		"EVP_PKEY_free":                 &l.pkeyFree,
		"EVP_PKEY_CTX_new":              &l.ctxNew,
		"EVP_PKEY_CTX_free":             &l.ctxFree,
		"EVP_PKEY_sign_init":            &l.signInit,
		"EVP_PKEY_CTX_set_rsa_padding":  &l.setPadding,
		"EVP_PKEY_CTX_set_signature_md": &l.setMD,
		"EVP_PKEY_sign":                 &l.sign,
		"ERR_get_error":                 &l.errGet,
		"ERR_error_string_n":            &l.errString,
		"ERR_clear_error":               &l.errClear,
	} {
		address, err := purego.Dlsym(handle, name)
		if err != nil || address == 0 {
			return fmt.Errorf("%s has no %s: %w", soname, name, err)
		}
		*fn = address
	}
	return nil
}

// call is for arguments that are no Go memory. Those that are go into purego.SyscallN
// itself, which keeps them where they are for the time of the call.
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// failure tells what the library says about a call that failed, and empties its list
// of errors. That list belongs to the thread, so the goroutine must have been locked
// to it since before the call.
func (l *libcrypto) failure(function string) error {
	code := call(l.errGet)
	if code == 0 {
		return fmt.Errorf("openssl: %s failed", function)
	}
	text := make([]byte, 256)
	purego.SyscallN(l.errString, code, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
	call(l.errClear)
	text, _, _ = bytes.Cut(text, []byte{0})
	return fmt.Errorf("openssl: %s: %s", function, text)
}

// native is a key inside the library, with one context for each seat. A context is
// made when its seat first signs and used only by who holds the seat; the key is
// shared, which the library allows (openssl-threads(7)).
type native struct {
	lib      *libcrypto
	pkey     uintptr
	contexts []uintptr
}

// load gives a key to the library. It does so in a form that Go wrote: the library
// never sees what a file says.
func load(key *rsa.PrivateKey) (*native, error) {
	l, err := opened()
	if err != nil {
		return nil, err
	}
	if bits := key.N.BitLen(); bits > maxSignature*8 {
		return nil, fmt.Errorf("openssl: libcrypto takes no key of %d bits", bits)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("openssl: marshal the key: %w", err)
	}
	defer clear(der)
	pkey, err := l.parse(der)
	if err != nil {
		return nil, err
	}
	l.held.Add(1)
	return &native{lib: l, pkey: pkey, contexts: make([]uintptr, len(l.seats))}, nil
}

func (l *libcrypto) parse(der []byte) (uintptr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var pin runtime.Pinner
	pin.Pin(&der[0])
	defer pin.Unpin()
	// The library moves the place on, to behind the key: for the garbage collector
	// it must be a number.
	place := new(uintptr)
	*place = uintptr(unsafe.Pointer(&der[0]))
	pkey, _, _ := purego.SyscallN(l.d2iAutoPrivateKey, 0, uintptr(unsafe.Pointer(place)), uintptr(len(der)))
	if pkey == 0 {
		return 0, l.failure("d2i_AutoPrivateKey")
	}
	return pkey, nil
}

// sign signs a SHA-256 digest.
func (n *native) sign(digest []byte) ([]byte, error) {
	i := n.lib.sit()
	seat := &n.lib.seats[i]
	defer seat.mu.Unlock()
	runtime.LockOSThread() // errors belong to the thread; who waits for a seat needs none
	defer runtime.UnlockOSThread()
	ctx, err := n.context(i)
	if err != nil {
		return nil, err
	}
	io := &seat.io
	copy(io.digest[:], digest)
	io.size = uintptr(len(io.signature))
	ok, _, _ := purego.SyscallN(n.lib.sign, ctx,
		uintptr(unsafe.Pointer(&io.signature[0])), uintptr(unsafe.Pointer(&io.size)),
		uintptr(unsafe.Pointer(&io.digest[0])), uintptr(len(io.digest)))
	if int32(ok) != 1 {
		return nil, n.lib.failure("EVP_PKEY_sign")
	}
	if io.size > uintptr(len(io.signature)) {
		return nil, errors.New("openssl: EVP_PKEY_sign wrote too much")
	}
	return bytes.Clone(io.signature[:io.size]), nil
}

// sit takes a seat and returns which.
func (l *libcrypto) sit() int {
	first := int(l.next.Add(1)) % len(l.seats)
	for i := range l.seats {
		if j := (first + i) % len(l.seats); l.seats[j].mu.TryLock() {
			return j
		}
	}
	l.seats[first].mu.Lock()
	return first
}

// context returns the context of a seat, which the caller holds.
func (n *native) context(seat int) (uintptr, error) {
	if n.contexts[seat] != 0 {
		return n.contexts[seat], nil
	}
	l := n.lib
	ctx := call(l.ctxNew, n.pkey, 0)
	if ctx == 0 {
		return 0, l.failure("EVP_PKEY_CTX_new")
	}
	for _, step := range []struct {
		function string
		result   func() uintptr
	}{
		{"EVP_PKEY_sign_init", func() uintptr { return call(l.signInit, ctx) }},
		{"EVP_PKEY_CTX_set_rsa_padding", func() uintptr { return call(l.setPadding, ctx, paddingPKCS1) }},
		{"EVP_PKEY_CTX_set_signature_md", func() uintptr { return call(l.setMD, ctx, l.sha256) }},
	} {
		if int32(step.result()) != 1 {
			err := l.failure(step.function)
			call(l.ctxFree, ctx)
			return 0, err
		}
	}
	n.contexts[seat] = ctx
	return ctx, nil
}

// free gives back what the library holds. Nobody may use n any more.
func (n *native) free() {
	for _, ctx := range n.contexts {
		if ctx != 0 {
			call(n.lib.ctxFree, ctx)
		}
	}
	call(n.lib.pkeyFree, n.pkey)
	n.lib.held.Add(-1)
}
