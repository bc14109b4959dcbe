package mxrules

import "time"

// Worth is what a figure of a Usage is worth at an instant: itself for six hours after it
// was confirmed, then doubled with each day, so that it goes toward the rule's limit; 0
// when it is too old to be worth anything.
func (l Learned) Worth(now time.Time) float64 {
	return l.now(time.Duration(now.UnixNano()))
}

// Confirmed is when a figure of a Usage was last found to hold, and Forgotten when it is
// dropped unless it is confirmed before.
func (l Learned) Confirmed() time.Time { return time.Unix(0, l.At) }

// Forgotten is when a figure of a Usage is dropped; see Confirmed.
func (l Learned) Forgotten() time.Time { return l.Confirmed().Add(staleFrom) }
