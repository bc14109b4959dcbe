//go:build race

package dkim

// raced says that the race detector watches, which allocates beside the code.
const raced = true
