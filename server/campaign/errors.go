package campaign

import (
	"errors"
	"fmt"
)

// Errors of the stores. Drivers wrap them; compare with errors.Is.
var (
	// ErrNotFound: no such delivery, message or request.
	ErrNotFound = errors.New("campaign: not found")
	// ErrExists: a delivery with this id exists already.
	ErrExists = errors.New("campaign: the id is taken")
	// ErrRequestIDReused: the request_id was used before with another call or body.
	ErrRequestIDReused = errors.New("campaign: the request_id was used for another request")
	// ErrIndexGap: a recipient's index does not follow the one before. The error
	// in the chain is an *IndexGapError.
	ErrIndexGap = errors.New("campaign: gap in the recipients' indexes")
	// ErrBadCursor: a page cursor that this store did not give.
	ErrBadCursor = errors.New("campaign: malformed cursor")
)

// IndexGapError says which index was expected; it is an ErrIndexGap.
type IndexGapError struct {
	Expected, Got int64
}

// Error names both indexes.
func (e *IndexGapError) Error() string {
	return fmt.Sprintf("recipient index %d does not follow: send index %d next", e.Got, e.Expected)
}

// Is reports that it is an ErrIndexGap.
func (e *IndexGapError) Is(target error) bool { return target == ErrIndexGap }

// StateError is returned when a call does not fit the delivery's state.
type StateError struct {
	Delivery string // D of deliveries/D
	State    State
	Call     string // what was asked for, in words: "add recipients"
}

// Error names the delivery, its state and the call.
func (e *StateError) Error() string {
	return fmt.Sprintf("delivery %q is %s: cannot %s", e.Delivery, e.State, e.Call)
}

var stateNames = [...]string{"", "draft", "prepared", "running", "paused", "finished", "cancelled"}

// String is the state's name in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) && s > 0 {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}
