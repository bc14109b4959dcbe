package protect

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/veredus/veredus/server/campaign"
)

// Cause is why a delivery harms its sender.
type Cause string

// The causes, the one that time heals least first.
const (
	// Authentication: SPF, DKIM or DMARC fail.
	Authentication Cause = "authentication"
	// SameRejection: unrelated domains say so in the same words.
	SameRejection Cause = "same_rejection"
	// Content: filters refuse what is in the mail.
	Content Cause = "content"
	// Reaction: a reaction of the MX rules wants it held.
	Reaction Cause = "reaction"
	// UnknownUsers: the list has too many addresses that do not exist.
	UnknownUsers Cause = "unknown_users"
	// Complaints: people call it spam.
	Complaints Cause = "complaints"
)

// Counts are what a delivery is judged by.
type Counts struct {
	// From is the domain of the From address; empty when messages have different ones.
	From string
	// By has the figures by destination since the start, or since the last resume
	// behind a pause of the protection. It may be a part of the destinations.
	By map[string]campaign.Figures
	// Whole: By has all destinations, so that complaints can be judged together.
	Whole bool
	// Reports names destinations that are known to report complaints; those that
	// reported one of this delivery do so anyway.
	Reports map[string]bool
	// Alike has, for each wording of a rejection for failed authentication, its
	// unrelated givers.
	Alike map[string][]string
	// Said is how a destination rejected, such as "550 5.7.515"; may be missing.
	Said map[string]string
	// Others are the figures of other deliveries at the same destinations, where content
	// was refused there: who else is refused for its content tells that it is not this one's.
	Others map[string]campaign.Figures
	// Refused is how a destination refused content, as a wording; may be missing.
	Refused map[string]string
}

// Finding is a threshold that is reached, or half reached.
type Finding struct {
	Cause       Cause
	Destination string // empty: all together
	// Pause: it is reached; else half of it.
	Pause bool
	// Part of Whole is what was counted: of attempts, of mail delivered, or of the
	// domains it takes.
	Part, Whole int64
	// Text says what was counted, why that is bad and what to do.
	Text string
}

// String is the text as it stands in an event.
func (f Finding) String() string {
	if f.Pause {
		return "paused: " + f.Text
	}
	return "warning: " + f.Text
}

// Warning is the finding as a warning.
func (f Finding) Warning() campaign.Warning {
	f.Pause = false
	return campaign.Warning{Cause: string(f.Cause), Destination: f.Destination, Text: f.String()}
}

// Judge finds the thresholds that counts reach or half reach, those that pause first,
// then by cause and destination.
func Judge(c Counts, t Thresholds) []Finding {
	if !t.Enabled {
		return nil
	}
	var found []Finding
	half := t.half()
	for _, name := range slices.Sorted(maps.Keys(c.By)) {
		f := c.By[name]
		if half.auth(f) {
			found = append(found, t.authentication(&c, name, f))
		}
		if half.refusedContent(f) {
			found = append(found, t.content(&c, name, f))
		}
		if half.hard(f) {
			found = append(found, t.unknownUsers(name, f))
		}
		if half.complained(f) {
			found = append(found, t.complaints("at "+place(name), name, f))
		}
	}
	if all := c.reporting(); c.Whole && half.complained(all) {
		found = append(found, t.complaints("at the destinations that report complaints", "", all))
	}
	for _, wording := range slices.Sorted(maps.Keys(c.Alike)) {
		if len(c.Alike[wording]) >= half.AuthDomains {
			found = append(found, t.sameRejection(&c, wording))
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return a.rank() - b.rank() })
	return found
}

// rank orders findings: pauses first, then by cause.
func (f *Finding) rank() int {
	rank := slices.Index([]Cause{Authentication, SameRejection, Content, UnknownUsers, Complaints}, f.Cause)
	if !f.Pause {
		rank += 10
	}
	return rank
}

func (t Thresholds) auth(f campaign.Figures) bool {
	return f.AuthRejections > 0 && f.Attempts >= t.AuthAfter && share(f.AuthRejections, f.Attempts) >= t.AuthPercent
}

func (t Thresholds) refusedContent(f campaign.Figures) bool {
	return f.ContentRejections > 0 && f.Attempts >= t.ContentAfter && share(f.ContentRejections, f.Attempts) >= t.ContentPercent
}

func (t Thresholds) hard(f campaign.Figures) bool {
	return f.Attempts >= t.HardAfter && share(f.Hard, f.Attempts) > t.HardPercent
}

func (t Thresholds) complained(f campaign.Figures) bool {
	return f.Complaints >= t.ComplaintLeast && share(f.Complaints, f.Sent) > t.ComplaintPercent
}

// reporting sums up the destinations that report complaints.
func (c *Counts) reporting() campaign.Figures {
	var all campaign.Figures
	for name, f := range c.By {
		if f.Complaints > 0 || c.Reports[name] {
			all.Sent += f.Sent
			all.Complaints += f.Complaints
		}
	}
	return all
}

func (t Thresholds) authentication(c *Counts, name string, f campaign.Figures) Finding {
	said := ""
	if code := c.Said[name]; code != "" {
		said = " with " + code
	}
	return Finding{Cause: Authentication, Destination: name, Pause: t.auth(f), Part: f.AuthRejections, Whole: f.Attempts, Text: fmt.Sprintf(
		"%d of %d attempts at %s (%s) were refused%s: %s (limit: %s of at least %d attempts)",
		f.AuthRejections, f.Attempts, place(name), percent(f.AuthRejections, f.Attempts), said, c.unauthenticated(), figure(t.AuthPercent), t.AuthAfter)}
}

// maxNamed is how many domains a text names.
const maxNamed = 5

func (t Thresholds) sameRejection(c *Counts, wording string) Finding {
	givers := c.Alike[wording]
	var names []string
	for _, giver := range givers[:min(len(givers), maxNamed)] {
		destination, _, _ := strings.Cut(giver, " ")
		names = append(names, destination)
	}
	return Finding{Cause: SameRejection, Pause: len(givers) >= t.AuthDomains, Part: int64(len(givers)), Whole: int64(t.AuthDomains), Text: fmt.Sprintf(
		"%d unrelated destinations (%s) refuse in the same words, %q: %s (limit: %d)",
		len(givers), strings.Join(names, ", "), wording, c.unauthenticated(), t.AuthDomains)}
}

// unauthenticated says what failed authentication means and what mends it.
func (c *Counts) unauthenticated() string {
	if c.From == "" {
		return "the From domain fails SPF, DKIM or DMARC, and retrying cannot help; publish the DNS records that `veredus doctor` shows"
	}
	return fmt.Sprintf("the From domain %[1]s fails SPF, DKIM or DMARC, and retrying cannot help; publish SPF for its bounce domain, "+
		"its DKIM records and _dmarc.%[1]s (`veredus doctor` shows the exact records), then resume", c.From)
}

// content finds who is to blame, too: where much other mail is refused for its content as
// well, it is the sender whom the receiver does not trust, and pausing one delivery mends nothing.
func (t Thresholds) content(c *Counts, name string, f campaign.Figures) Finding {
	said := ""
	if wording := c.Refused[name]; wording != "" {
		said = fmt.Sprintf(" (%q)", wording)
	}
	shared := name != campaign.OtherDestination && t.half().refusedContent(c.Others[name])
	blame := "other deliveries are not, so it is this one's content: look at its links, attachments and wording, then resume"
	if shared {
		o := c.Others[name]
		blame = fmt.Sprintf("so are %d of %d attempts of other deliveries, so it is the sender rather than this content: look at its reputation there", o.ContentRejections, o.Attempts)
	}
	return Finding{Cause: Content, Destination: name, Pause: t.refusedContent(f) && !shared, Part: f.ContentRejections, Whole: f.Attempts, Text: fmt.Sprintf(
		"%d of %d attempts at %s (%s) were refused for their content%s; %s (limit: %s of at least %d attempts)",
		f.ContentRejections, f.Attempts, place(name), percent(f.ContentRejections, f.Attempts), said, blame, figure(t.ContentPercent), t.ContentAfter)}
}

func (t Thresholds) unknownUsers(name string, f campaign.Figures) Finding {
	return Finding{Cause: UnknownUsers, Destination: name, Pause: t.hard(f), Part: f.Hard, Whole: f.Attempts, Text: fmt.Sprintf(
		"%d of %d attempts at %s (%s) found no such user: receivers block senders of old or bought lists; "+
			"remove addresses that never confirmed or were silent for long, then resume (limit: more than %s after %d attempts)",
		f.Hard, f.Attempts, place(name), percent(f.Hard, f.Attempts), figure(t.HardPercent), t.HardAfter)}
}

func (t Thresholds) complaints(where, name string, f campaign.Figures) Finding {
	return Finding{Cause: Complaints, Destination: name, Pause: t.complained(f), Part: f.Complaints, Whole: f.Sent, Text: fmt.Sprintf(
		"%d of %d messages delivered %s (%s) were reported as spam: from 0.3 %% on receivers filter all of a sender's mail; "+
			"mail only who asked for it, show the unsubscribe link at the top, then resume (limit: more than %s and at least %d)",
		f.Complaints, f.Sent, where, percent(f.Complaints, f.Sent), figure(t.ComplaintPercent), t.ComplaintLeast)}
}

// place is a destination in words.
func place(name string) string {
	if name == campaign.OtherDestination {
		return "all other destinations together"
	}
	return name
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "all"
	}
	s := share(part, whole)
	if s < 1 {
		return fmt.Sprintf("%.2f %%", s)
	}
	return fmt.Sprintf("%.1f %%", math.Floor(s*10)/10)
}

// figure writes a limit in percent without needless digits.
func figure(v float64) string { return fmt.Sprintf("%g %%", v) }
