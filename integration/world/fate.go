package world

import (
	"hash/fnv"
	"slices"
	"strings"
)

// Fate is what happens to mail for one mailbox. A local part that is a fate's
// name, with or without a +label, has that fate at every receiver; any other
// local part gets one by the receiver's shares.
type Fate string

// The fates.
const (
	// FateNone is an ordinary mailbox: greylisting and hidden limits apply.
	FateNone Fate = ""
	// FateOK is always accepted: neither greylisting nor a hidden message limit
	// at RCPT or at the end of data touches it.
	FateOK Fate = "ok"
	// FateUnknown does not exist (5.1.1).
	FateUnknown Fate = "unknown"
	// FateFull is over quota (4.2.2 or 5.2.2, by dialect).
	FateFull Fate = "full"
	// FateDisabled exists and takes no mail (5.2.1).
	FateDisabled Fate = "disabled"
	// FateGreylist is refused at RCPT until the greylist delay has passed since
	// the first attempt from the same network with the same return path.
	FateGreylist Fate = "greylist"
	// FateRateLimit answers RCPT with the dialect's rate-limit reply
	// [Magic.RateLimitCount] times for each (return path, recipient), then accepts.
	FateRateLimit Fate = "ratelimit"
	// FateBlock answers RCPT with a block of the source's address (5.7.1).
	FateBlock Fate = "block"
	// FateSpam refuses the content at the end of data (5.7.1).
	FateSpam Fate = "spam"
	// FateSlow answers RCPT and the final dot late, and accepts.
	FateSlow Fate = "slow"
	// FateDrop takes the content and closes the line without its 250, once for
	// each (return path, recipient); afterwards it accepts.
	FateDrop Fate = "drop"

	// The fates below are accepted as FateOK is; afterwards something comes back,
	// as [Return] describes it.

	// FateOOBUnknown is reported by mail as not existing (5.1.1).
	FateOOBUnknown Fate = "oob-unknown"
	// FateOOBFull is reported by mail as over quota (5.2.2).
	FateOOBFull Fate = "oob-full"
	// FateComplaint calls the mail unwanted: a feedback report follows.
	FateComplaint Fate = "complaint"
	// FateUnsubscribe takes itself off the list, as List-Unsubscribe says how.
	FateUnsubscribe Fate = "unsubscribe"
	// FateAutoReply answers that it is out of office.
	FateAutoReply Fate = "autoreply"
)

var fates = []Fate{
	FateOK, FateUnknown, FateFull, FateDisabled, FateGreylist, FateRateLimit, FateBlock, FateSpam, FateSlow, FateDrop,
	FateOOBUnknown, FateOOBFull, FateComplaint, FateUnsubscribe, FateAutoReply,
}

// Returns reports whether a mailbox of this fate accepts the mail and sends
// something back later.
func (f Fate) Returns() bool {
	switch f {
	case FateOOBUnknown, FateOOBFull, FateComplaint, FateUnsubscribe, FateAutoReply:
		return true
	}
	return false
}

// exempt reports whether hidden limits on messages leave the fate alone at RCPT
// and at the end of data.
func (f Fate) exempt() bool { return f == FateOK || f.Returns() }

// FateNames returns the magic local parts, in the order of their declaration.
func FateNames() []string {
	names := make([]string, len(fates))
	for i, f := range fates {
		names[i] = string(f)
	}
	return names
}

func (f Fate) known() bool { return f == FateNone || slices.Contains(fates, f) }

// MagicFate returns the fate that a local part names, FateNone if it names none.
// Letter case and a +label do not matter.
func MagicFate(local string) Fate {
	local, _, _ = strings.Cut(local, "+")
	f := Fate(strings.ToLower(local))
	if f != FateNone && f.known() {
		return f
	}
	return FateNone
}

// fateOf decides by magic name, then by the receiver's shares: the local part
// hashes to one of a thousand places, which the fates share out in their order
// of declaration.
func (r *Receiver) fateOf(seed uint64, local string) Fate {
	if f := MagicFate(local); f != FateNone {
		return f
	}
	if len(r.Mailboxes) == 0 {
		return FateNone
	}
	place := int(hashOf(seed, r.Name, strings.ToLower(local)) % 1000)
	for _, f := range fates {
		if place -= r.Mailboxes[f]; place < 0 {
			return f
		}
	}
	return FateNone
}

// hashOf mixes a seed and strings into 64 evenly spread bits. It is FNV-1a with
// a finaliser (splitmix64), stable between processes and versions.
func hashOf(seed uint64, parts ...string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	for i := range b {
		b[i] = byte(seed >> (8 * i))
	}
	_, _ = h.Write(b[:])
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return mix(h.Sum64())
}

func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
