package dispatch

import (
	"maps"
	"slices"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Remember gives the paths to a destination, by their keys, what was kept of them, as
// RestoreUsage does. A destination that is there already knows better.
func (c *Core) Remember(now time.Time, destination string, kept map[string]mxrules.Usage) {
	if c.destinations[destination] != nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(kept)) {
		c.RestoreUsage(now, key, kept[key])
	}
}
