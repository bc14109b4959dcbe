package retention

import "time"

const (
	// maxDrift is how far the clock may go from the time that really passed between two
	// rounds before it counts as set.
	maxDrift = 10 * time.Minute
	// distrust is how long nothing goes by age behind a clock that was set: somebody may
	// set it back. A wrong year would otherwise empty the store in one round.
	distrust = 24 * time.Hour
)

// clock tells whether ages may be judged. It compares the clock with the time that
// really passed, which nobody sets.
type clock struct {
	wall, elapsed time.Time // of the last look
	until         time.Time // elapsed time until which the clock is not trusted
}

// look takes the clock's time and a time with a monotonic reading. It answers whether the
// clock is trusted, and by how much it was set since the last look, 0 for not.
func (c *clock) look(wall, elapsed time.Time) (trusted bool, jump time.Duration) {
	wall = wall.Round(0) // without its monotonic reading
	if !c.wall.IsZero() {
		jump = wall.Sub(c.wall) - elapsed.Sub(c.elapsed)
	}
	if jump.Abs() <= maxDrift {
		jump = 0
	}
	c.wall, c.elapsed = wall, elapsed
	if jump != 0 {
		c.until = elapsed.Add(distrust)
	}
	return !elapsed.Before(c.until), jump
}
