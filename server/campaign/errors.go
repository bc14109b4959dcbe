package campaign

import (
	"errors"
	"fmt"
	"strings"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// The errors of the service, and of the stores beneath it. One file maps them to
// what clients see; anything else that a call returns is our fault.
//
//	*InvalidError       fields of the request are malformed
//	*IndexGapError      an index of AddRecipients does not follow (ErrIndexGap)
//	*NotFoundError      no such resource (ErrNotFound)
//	*ExistsError        the id is taken (ErrExists)
//	ErrRequestIDReused  the request_id was used for another request
//	*StateError         the call does not fit the delivery's state
//	*NotPreparedError   the analysis finds errors, so it cannot start
//	ErrSuperseded       another stream of recipients took over
//	*OverloadedError    too much at once; come back later
//	ErrStopping         the service is stopping
//
// Drivers of the stores wrap the sentinels; compare with errors.Is.
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
	// ErrSuperseded ends a stream of recipients when another begins on its delivery.
	ErrSuperseded = errors.New("campaign: another stream of recipients began on this delivery")
	// ErrStopping ends streams, and refuses new ones, while the service stops.
	ErrStopping = errors.New("campaign: the service is stopping: connect again")
)

// NotFoundError names what does not exist; it is an ErrNotFound.
type NotFoundError struct {
	Resource string // deliveries/D or deliveries/D/messages/M
}

// Error names the resource.
func (e *NotFoundError) Error() string { return e.Resource + " does not exist" }

// Is reports that it is an ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// ExistsError names what exists already; it is an ErrExists.
type ExistsError struct {
	Resource string // deliveries/D
}

// Error names the resource and the remedy.
func (e *ExistsError) Error() string { return e.Resource + " exists already: choose another id" }

// Is reports that it is an ErrExists.
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

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

// FieldViolation is one thing wrong with a request.
type FieldViolation struct {
	Field   string // path in the request: delivery.sender.from
	Value   string // the refused value, cut to a printable length; empty when it says nothing
	Problem string // what is wrong with it
	Remedy  string // what to do about it
}

// Description is the violation without its field.
func (v FieldViolation) Description() string {
	if v.Value == "" {
		return v.Problem + "; " + v.Remedy
	}
	return fmt.Sprintf("%q %s; %s", v.Value, v.Problem, v.Remedy)
}

// InvalidError says everything that is wrong with a request.
type InvalidError struct {
	Violations []FieldViolation // at least one
}

// Error names each field, value, problem and remedy.
func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		texts[i] = v.Field + ": " + v.Description()
	}
	return strings.Join(texts, "\n")
}

// NotPreparedError is returned when the content of a delivery cannot be used as it
// is. Findings holds the errors of the analysis.
type NotPreparedError struct {
	Delivery string // D of deliveries/D
	State    State
	Findings []*veredusv1.Finding // at least one, all errors
}

// Error names the delivery, its state and what was found.
func (e *NotPreparedError) Error() string {
	texts := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		texts[i] = f.GetField() + ": " + f.GetDescription()
	}
	return fmt.Sprintf("delivery %q is %s and has errors: %s", e.Delivery, e.State, strings.Join(texts, "\n"))
}

// OverloadedError is returned when the service has too much to do. What was taken
// before stays.
type OverloadedError struct {
	What       string        // what there is too much of: "streams of recipients"
	Limit      string        // how much is allowed: "1000"; empty when that is not a figure
	Field      string        // of the configuration, which sets the limit; empty for none
	Remedy     string        // what else helps than coming back; may be empty
	RetryAfter time.Duration // when to come back
}

// Error says what there is too much of, the limit and its field, what helps, and when to come back.
func (e *OverloadedError) Error() string {
	text := "too many " + e.What
	if e.Limit != "" {
		text += ": at most " + e.Limit + " at a time"
	}
	if e.Field != "" {
		text += " (" + e.Field + ")"
	}
	text += fmt.Sprintf(": try again in %v", e.RetryAfter)
	if e.Remedy != "" {
		text += ", " + e.Remedy
	}
	return text
}

// named makes a store's error say which resource it is about.
func named(err error, resource string) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return &NotFoundError{Resource: resource}
	case errors.Is(err, ErrExists):
		return &ExistsError{Resource: resource}
	}
	return err
}
