package campaign

import (
	"context"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Remaining is how long the relay will still try the delivery's messages at now; of one
// that has not started, its validity period. timeScale divides that, as in Options.
func (d *Delivery) Remaining(now time.Time, timeScale float64) time.Duration {
	if !d.Expires.IsZero() {
		return d.Expires.Sub(now)
	}
	return lifetime(d.validity(), timeScale)
}

// outlook is how the delivery would go, as findings; none when nobody can tell, or
// nothing is to be sent.
func (s *Service) outlook(ctx context.Context, d *Delivery) []*veredusv1.Finding {
	if s.o.Forecast == nil || d.Counters.ToDeliver() == 0 {
		return nil
	}
	return s.o.Forecast(ctx, d)
}

// Outlook is the finding that a forecast makes: a warning if messages will be late.
func Outlook(text string, late int64) []*veredusv1.Finding {
	if late > 0 {
		f := warning("forecast.late", "validity_period", text)
		f.Count = late
		return []*veredusv1.Finding{f}
	}
	return []*veredusv1.Finding{info("forecast", "", text, 0)}
}
