//go:build race

package forecast

// raced says that the race detector watches: a tenth of the steps will do.
const raced = true
