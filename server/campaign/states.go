package campaign

import (
	"fmt"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Call is what a client can ask of a delivery, as far as its state decides.
type Call uint8

// The calls.
const (
	// CallEdit changes what the mail says, or to whom.
	CallEdit Call = iota + 1
	// CallDescribe changes what is neither content nor sending: metadata, feedback mode.
	CallDescribe
	// CallTune changes pool, priority and validity period.
	CallTune
	// CallPrepare, and the calls of the same names.
	CallPrepare
	CallStart
	CallPause
	CallResume
	CallCancel
	CallDelete
)

var callNames = [...]string{"", "change content or recipients", "change settings", "change pool, priority or validity", "prepare", "start", "pause", "resume", "cancel", "delete"}

// String says the call in words.
func (c Call) String() string {
	if int(c) < len(callNames) {
		return callNames[c]
	}
	return fmt.Sprintf("call(%d)", uint8(c))
}

// transitions says which state a call leads to. What is missing is refused; a call that is in
// effect already leads to where the delivery is.
//
//	Draft -> Prepared -> Running <-> Paused -> Finished; Cancelled from any but Finished
//
// Prepare leads to Prepared only if the analysis finds no error, else to Draft.
var transitions = map[State]map[Call]State{
	Draft: {
		CallEdit: Draft, CallDescribe: Draft, CallTune: Draft, CallPrepare: Prepared,
		CallCancel: Cancelled, CallDelete: Draft,
	},
	Prepared: {
		CallEdit: Draft, CallDescribe: Prepared, CallTune: Prepared, CallPrepare: Prepared, CallStart: Running,
		CallCancel: Cancelled, CallDelete: Prepared,
	},
	Running: {
		CallTune: Running, CallStart: Running, CallPause: Paused, CallResume: Running, CallCancel: Cancelled,
	},
	Paused: {
		CallTune: Paused, CallPause: Paused, CallResume: Running, CallCancel: Cancelled,
	},
	Finished:  {CallDelete: Finished},
	Cancelled: {CallCancel: Cancelled, CallDelete: Cancelled},
}

// After is the state that a call leads to. ok is false when the state refuses it.
func (s State) After(c Call) (next State, ok bool) {
	next, ok = transitions[s][c]
	return next, ok
}

// Final reports whether no call and no outcome changes the state any more.
func (s State) Final() bool { return s == Finished || s == Cancelled }

// after is State.After with the error that names the delivery.
func (d *Delivery) after(c Call) (State, error) {
	next, ok := d.State.After(c)
	if ok {
		return next, nil
	}
	call := c.String()
	if c == CallStart && d.State == Draft {
		call = "start before it is prepared"
	}
	return 0, &StateError{Delivery: d.ID, State: d.State, Call: call}
}

var stateNames = [...]string{"", "draft", "prepared", "running", "paused", "finished", "cancelled"}

// String is the state's name in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) && s > 0 {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// API is the state as the API names it.
func (s State) API() veredusv1.DeliveryState { return veredusv1.DeliveryState(s) }
