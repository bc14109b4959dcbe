package address

import (
	"fmt"
	"strings"
)

// FieldViolation is one thing wrong with a request.
type FieldViolation struct {
	Field   string // path in the request: entry.scope.tenant
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

// NotFoundError names an entry that does not exist; it is an ErrNotFound.
type NotFoundError struct {
	Resource string // addressEntries/E
}

// Error names the resource.
func (e *NotFoundError) Error() string { return e.Resource + " does not exist" }

// Is reports that it is an ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }
