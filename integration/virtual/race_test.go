//go:build race

package virtual

// raced says that the race detector watches: stories that measure, and are slow, are told without it.
const raced = true
