package mxrules

import (
	"encoding/binary"
	"errors"
	"math"
)

// WarmUpStatus is whether a warm-up goes on.
type WarmUpStatus uint8

const (
	// WarmUpRunning: being warmed up.
	WarmUpRunning WarmUpStatus = iota
	// WarmUpDone: finished; nothing is limited.
	WarmUpDone
	// WarmUpOff: ended before its last stage; nothing is limited.
	WarmUpOff
)

// WarmUpState is the durable form of a source's warm-up.
type WarmUpState struct {
	// Address is the source's, as text: another one has a reputation of its own.
	Address string
	// Stage is from 1; one behind the plan's last is finished.
	Stage  int
	Status WarmUpStatus
	// Day is the UTC day, in days since 1970, that the counts are of; 0 before the first.
	Day int64
	// Sent are messages charged that day, Pending those of them whose attempt has not
	// ended: they may be sent, whatever the day.
	Sent, Pending int64
	// Delivered and the others are how the day's attempts ended, Complaints the
	// complaints that came; Before is what was delivered the day before.
	Delivered, Deferred, Bounced, Blocked, Complaints, Before int64
	// Stalled are days in a row that brought too little mail to get on.
	Stalled int
	// Since is when the stage began, in Unix nanoseconds.
	Since int64
	// LastSent is the last day with mail, Idle how many stages its silence has cost.
	LastSent, Idle int64
	// SteppedBack and HeldToday say what has happened that day.
	SteppedBack, HeldToday bool
	// Providers are the same counts by provider.
	Providers []ProviderSent
	// Cause is the last change in words.
	Cause string
}

// ProviderSent is a provider's part of a day.
type ProviderSent struct {
	Provider      string
	Sent, Pending int64
}

func (s *WarmUpState) provider(name string) int {
	for i := range s.Providers {
		if s.Providers[i].Provider == name {
			return i
		}
	}
	return -1
}

// warmUpVersion is the first byte of the binary form.
const warmUpVersion = 1

// ErrWarmUpState is wrapped by the errors of UnmarshalBinary.
var ErrWarmUpState = errors.New("mxrules: stored warm-up is malformed")

// AppendBinary appends the binary form, which begins with its version; it never fails.
func (s WarmUpState) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, warmUpVersion)
	b = appendText(b, s.Address)
	b = binary.AppendUvarint(b, uint64(s.Status))
	for _, n := range s.numbers() {
		b = binary.AppendVarint(b, *n)
	}
	b = binary.AppendVarint(b, int64(s.Stage))
	b = binary.AppendVarint(b, int64(s.Stalled))
	flags := uint64(0)
	if s.SteppedBack {
		flags |= 1
	}
	if s.HeldToday {
		flags |= 2
	}
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, uint64(len(s.Providers)))
	for _, p := range s.Providers {
		b = appendText(b, p.Provider)
		b = binary.AppendVarint(binary.AppendVarint(b, p.Sent), p.Pending)
	}
	return appendText(b, s.Cause), nil
}

// MarshalBinary is AppendBinary to nothing.
func (s WarmUpState) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

func (s *WarmUpState) numbers() []*int64 {
	return []*int64{
		&s.Day, &s.Sent, &s.Pending, &s.Delivered, &s.Deferred, &s.Bounced, &s.Blocked, &s.Complaints, &s.Before,
		&s.Since, &s.LastSent, &s.Idle,
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// UnmarshalBinary reads what AppendBinary wrote. Errors wrap ErrWarmUpState.
func (s *WarmUpState) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != warmUpVersion {
		return ErrWarmUpState
	}
	r := scanner{rest: b[1:]}
	n := WarmUpState{Address: r.text(), Status: WarmUpStatus(min(r.uint(), math.MaxUint8))}
	for _, to := range n.numbers() {
		*to = r.int()
	}
	n.Stage, n.Stalled = int(r.int()), int(r.int())
	flags := r.uint()
	n.SteppedBack, n.HeldToday = flags&1 != 0, flags&2 != 0
	count := r.uint()
	if count > MaxWarmUpProviders {
		return ErrWarmUpState
	}
	for range count {
		n.Providers = append(n.Providers, ProviderSent{Provider: r.text(), Sent: r.int(), Pending: r.int()})
	}
	n.Cause = r.text()
	if r.bad || len(r.rest) > 0 || !n.sound() {
		return ErrWarmUpState
	}
	*s = n
	return nil
}

// sound reports whether the numbers are such as a warm-up has.
func (s *WarmUpState) sound() bool {
	const most = int64(1) << 60
	for _, n := range s.numbers() {
		if n != &s.Since && (*n < 0 || *n > most) {
			return false
		}
	}
	for _, p := range s.Providers {
		if p.Sent < 0 || p.Sent > most || p.Pending < 0 || p.Pending > most {
			return false
		}
	}
	return s.Status <= WarmUpOff && s.Stage >= 1 && s.Stage <= MaxWarmUpStages+1 && s.Stalled >= 0 && s.Day <= math.MaxInt64/day-2
}

// scanner reads numbers and texts, and remembers that something was wrong.
type scanner struct {
	rest []byte
	bad  bool
}

func (r *scanner) uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	return skipTo(r, n, size)
}

func (r *scanner) int() int64 {
	n, size := binary.Varint(r.rest)
	return skipTo(r, n, size)
}

func skipTo[N int64 | uint64](r *scanner, n N, size int) N {
	if size <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *scanner) text() string {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}
