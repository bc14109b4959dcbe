package campaign

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Figures are a delivery's counts at one destination, as its protection sees them.
type Figures struct {
	Attempts       int64
	Sent           int64
	Hard           int64 // failed as User unknown, in the dialogue or later by mail
	AuthRejections int64
	// ContentRejections are attempts that were refused for what is in the message.
	ContentRejections int64
	Complaints        int64
}

// Figures are the destination's as they stand.
func (d *DestinationCounters) Figures() Figures {
	return Figures{
		Attempts: d.Attempts, Sent: d.Sent, Hard: d.FailedBy[int32(bounce.ReasonUserUnknown)],
		AuthRejections: d.AuthRejections, ContentRejections: d.ContentRejections, Complaints: d.Complaints,
	}
}

// Since is what was counted since an earlier state. What moved back (a sent message
// that bounced late) is not negative. Sent is all of it: complaints come late, and may be about
// what was delivered before.
func (f Figures) Since(before Figures) Figures {
	return Figures{
		Attempts: max(0, f.Attempts-before.Attempts), Sent: f.Sent, Hard: max(0, f.Hard-before.Hard),
		AuthRejections: max(0, f.AuthRejections-before.AuthRejections), ContentRejections: max(0, f.ContentRejections-before.ContentRejections),
		Complaints: max(0, f.Complaints-before.Complaints),
	}
}

// Plus is the sum of both.
func (f Figures) Plus(o Figures) Figures {
	return Figures{
		Attempts: f.Attempts + o.Attempts, Sent: f.Sent + o.Sent, Hard: f.Hard + o.Hard,
		AuthRejections: f.AuthRejections + o.AuthRejections, ContentRejections: f.ContentRejections + o.ContentRejections,
		Complaints: f.Complaints + o.Complaints,
	}
}

// Bounds of what a Protection remembers.
const (
	maxRejections = 8
	maxRejecters  = 1000 // the most that auth_domains of the configuration takes
	maxPauseText  = 1000 // octets
	// WarnAgain is how long a warning about a transactional delivery, which never
	// ends, stands for all others of its kind; that about a bulk delivery stands for ever.
	WarnAgain = 24 * time.Hour
)

// Protection is what the protection of a delivery remembers over restarts. Its methods
// return a changed copy: the maps are shared.
type Protection struct {
	// Held is why the protection paused the delivery; empty when it did not, or since it was resumed.
	Held string
	// Excused are the figures by destination at the last resume from Held: what
	// lay before is excused, and counting begins behind it.
	Excused map[string]Figures
	// Warned says when a warning was given, by Warning.key; at most one for each
	// destination and cause.
	Warned map[string]time.Time
	// Alike has, for each wording of a rejection for failed authentication, who gave it: "destination
	// organisation", unrelated to each other. At most 8 wordings.
	Alike map[string][]string
}

// Warning is a threshold that is half reached.
type Warning struct {
	Cause       string // a word
	Destination string // empty: all together
	Text        string
}

func (w Warning) key() string { return w.Cause + " " + w.Destination }

// Given reports whether the warning was given before and stands. A bulk delivery is
// warned once of each cause at each destination.
func (p Protection) Given(w Warning, transactional bool, now time.Time) bool {
	at, given := p.Warned[w.key()]
	return given && (!transactional || now.Sub(at) < WarnAgain)
}

func (p Protection) warned(w Warning, now time.Time) Protection {
	p.Warned = maps.Clone(p.Warned)
	if p.Warned == nil {
		p.Warned = map[string]time.Time{}
	}
	p.Warned[w.key()] = now
	return p
}

// resumed excuses what was counted when the protection had paused the delivery: the
// operator has seen it. A pause of the operator's own excuses nothing.
func (p Protection) resumed(c *Counters) Protection {
	if p.Held == "" {
		return p
	}
	p.Held, p.Alike, p.Excused = "", nil, make(map[string]Figures, len(c.By))
	for name, d := range c.By {
		p.Excused[name] = d.Figures()
	}
	return p
}

// Related reports whether one of those who gave this rejection shares its destination
// or organisation with the one named, or is the same; or whether there is no room for it.
func (p Protection) Related(wording, destination, organisation string) bool {
	givers, known := p.Alike[wording]
	if !known && len(p.Alike) >= maxRejections || len(givers) >= maxRejecters {
		return true
	}
	return slices.ContainsFunc(givers, func(giver string) bool {
		return giverOf(giver, destination, organisation)
	})
}

func (p Protection) alike(wording, destination, organisation string) Protection {
	givers := append(slices.Clone(p.Alike[wording]), destination+" "+organisation)
	p.Alike = maps.Clone(p.Alike)
	if p.Alike == nil {
		p.Alike = map[string][]string{}
	}
	p.Alike[wording] = givers
	return p
}

// giverOf reports whether a giver has this destination or this organisation.
func giverOf(giver, destination, organisation string) bool {
	n := len(giver)
	return n > len(destination) && giver[:len(destination)] == destination && giver[len(destination)] == ' ' ||
		n > len(organisation) && giver[n-len(organisation):] == organisation && giver[n-len(organisation)-1] == ' '
}

// Watched is a delivery as its protection sees it.
type Watched struct {
	State         State
	Transactional bool
	From          string // domain of the From address; empty when each message has its own
	Protection    Protection
	By            map[string]Figures // by destination, as counted since the start
}

// Watch is the delivery as its protection sees it, with its figures at the destinations
// named; nil are all. What gathers the destinations beyond MaxDestinations always comes along.
func (d *Delivery) Watch(destinations []string) Watched {
	w := Watched{State: d.State, Transactional: d.Transactional, Protection: d.Protection, By: map[string]Figures{}}
	if !d.Transactional {
		w.From = senderDomain(d.Spec.GetSender().GetFrom())
	}
	if destinations == nil {
		for name, c := range d.Counters.By {
			w.By[name] = c.Figures()
		}
		return w
	}
	for _, name := range append(destinations[:len(destinations):len(destinations)], OtherDestination) {
		if c := d.Counters.By[name]; c != nil {
			w.By[name] = c.Figures()
		}
	}
	return w
}

// PauseFor pauses a running bulk delivery as PauseDelivery does, and remembers that its
// protection did: when it is resumed, counting begins anew. The text stands in
// the event. In any other state, and for transactional mail, nothing happens. It returns
// once the pause is durable and the relay makes no new attempts. ErrNotFound.
func (s *Service) PauseFor(ctx context.Context, id, text string) error {
	now := s.now()
	text = printable(text, maxPauseText)
	_, err := s.change(ctx, id, Request{}, now, func(d *Delivery) ([]Event, error) {
		if d.State != Running || d.Transactional {
			return nil, nil
		}
		d.State, d.Updated, d.Protection.Held = Paused, now, text
		return []Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PAUSED, Text: text}}, nil
	}, s.tell)
	return err
}

// Warn stores a warning event, unless the warning was given before. Nothing else
// changes, whatever the delivery's state. ErrNotFound.
func (s *Service) Warn(ctx context.Context, id string, w Warning) error {
	now := s.now()
	w.Text = printable(w.Text, maxPauseText)
	return s.remark(ctx, id, func(d *Delivery) []Event {
		if d.Protection.Given(w, d.Transactional, now) {
			return nil
		}
		d.Protection = d.Protection.warned(w, now)
		return []Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_WARNING, Text: w.Text}}
	})
}

// Alike remembers who gave a rejection for failed authentication in this wording, unless
// a related one did (see Protection.Related). ErrNotFound.
func (s *Service) Alike(ctx context.Context, id, wording, destination, organisation string) error {
	return s.remark(ctx, id, func(d *Delivery) []Event {
		if !d.Protection.Related(wording, destination, organisation) {
			d.Protection = d.Protection.alike(wording, destination, organisation)
		}
		return nil
	})
}

// remark changes what is said about a delivery, and nothing that the relay knows.
func (s *Service) remark(ctx context.Context, id string, change func(*Delivery) []Event) error {
	_, err := s.o.Deliveries.Change(ctx, id, Request{}, func(d *Delivery) ([]Event, error) {
		return change(d), nil
	})
	return named(err, deliveryName(id))
}
