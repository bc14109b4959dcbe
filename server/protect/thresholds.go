// Package protect pauses deliveries that harm their sender: lists of dead addresses,
// mail that people complain about, domains that fail authentication, content that is refused.
//
// Judge is the decision: pure, from counts and thresholds. Monitor hears what the relay
// settled and what came back, judges the deliveries concerned by their durable counts, and
// has them warned of or paused. It keeps no counts of its own, so a restart loses none.
package protect

import (
	"math"

	"github.com/veredus/veredus/server/config"
)

// Thresholds say when a delivery is paused. At half of each, counts and shares alike, it is warned of.
type Thresholds struct {
	// Enabled false judges nothing.
	Enabled bool
	// HardPercent: more of the attempts at a destination found no such user, once there
	// were HardAfter of them.
	HardPercent float64
	HardAfter   int64
	// ComplaintPercent: more of the mail delivered to destinations that report complaints was
	// complained about, and at least ComplaintLeast times.
	ComplaintPercent float64
	ComplaintLeast   int64
	// AuthPercent: at least so much of at least AuthAfter attempts at a destination was refused
	// because SPF, DKIM or DMARC failed; or AuthDomains unrelated domains said so in the same words.
	AuthPercent float64
	AuthAfter   int64
	AuthDomains int
	// ContentPercent: at least so much of at least ContentAfter attempts at a destination was
	// refused for what is in the mail, and other deliveries there fare better than that.
	ContentPercent float64
	ContentAfter   int64
}

// FromConfig are the thresholds of the configuration's section protection.
func FromConfig(c config.Protection) Thresholds {
	return Thresholds{
		Enabled:     c.Enabled,
		HardPercent: c.HardPercent, HardAfter: int64(c.HardAfter),
		ComplaintPercent: c.ComplaintPercent, ComplaintLeast: int64(c.ComplaintLeast),
		AuthPercent: c.AuthPercent, AuthAfter: int64(c.AuthAfter), AuthDomains: c.AuthDomains,
		ContentPercent: c.ContentPercent, ContentAfter: int64(c.ContentAfter),
	}
}

// half are the thresholds of warnings; counts are rounded up.
func (t Thresholds) half() Thresholds {
	t.HardPercent, t.HardAfter = t.HardPercent/2, (t.HardAfter+1)/2
	t.ComplaintPercent, t.ComplaintLeast = t.ComplaintPercent/2, (t.ComplaintLeast+1)/2
	t.AuthPercent, t.AuthAfter, t.AuthDomains = t.AuthPercent/2, (t.AuthAfter+1)/2, (t.AuthDomains+1)/2
	t.ContentPercent, t.ContentAfter = t.ContentPercent/2, (t.ContentAfter+1)/2
	return t
}

// share is part of whole in percent; everything of nothing.
func share(part, whole int64) float64 {
	switch {
	case part <= 0:
		return 0
	case whole <= 0:
		return math.Inf(1)
	}
	return 100 * float64(part) / float64(whole)
}
