package campaign

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Limits of what requests hold, in octets where nothing else is said.
const (
	maxID            = 63 // of a tenant, delivery or pool
	maxRequestID     = 128
	maxLabel         = 256
	maxDisplayName   = 256
	maxReason        = 256 // of a pause or cancel
	maxMetadataKeys  = 64
	maxMetadata      = 8 << 10
	maxContent       = 1 << 20
	maxListID        = 255
	maxURL           = 2 << 10
	maxMailto        = 1 << 10
	maxPage          = 1000
	defaultPage      = 100
	minValidity      = time.Minute
	maxValidity      = 30 * 24 * time.Hour
	defaultValidity  = 5 * 24 * time.Hour
	minWatch         = 100 * time.Millisecond
	maxWatch         = time.Minute
	defaultWatch     = time.Second
	maxShownValue    = 100
	deliveriesPrefix = "deliveries/"
	messagesPart     = "/messages/"
)

// violations gathers what is wrong with a request.
type violations struct {
	list []FieldViolation
}

func (v *violations) add(field, value, problem, remedy string) {
	v.list = append(v.list, FieldViolation{Field: field, Value: printable(value, maxShownValue), Problem: problem, Remedy: remedy})
}

// err is an *InvalidError, or nil when nothing is wrong.
func (v *violations) err() error {
	if len(v.list) == 0 {
		return nil
	}
	return &InvalidError{Violations: v.list}
}

// invalid is an *InvalidError about one field.
func invalid(field, value, problem, remedy string) error {
	v := violations{}
	v.add(field, value, problem, remedy)
	return v.err()
}

// printable cuts a value to at most keep octets of UTF-8 for an error or a report.
func printable(s string, keep int) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= keep {
		return s
	}
	keep -= len("...")
	for keep > 0 && !utf8.RuneStart(s[keep]) {
		keep--
	}
	return s[:keep] + "..."
}

// text checks a text's length, and that it is UTF-8 on one line.
func (v *violations) text(field, value string, most int) {
	switch {
	case len(value) > most:
		v.add(field, value, fmt.Sprintf("is %d octets long", len(value)), fmt.Sprintf("shorten it to %d", most))
	case !utf8.ValidString(value):
		v.add(field, value, "is not valid UTF-8", "send it in UTF-8")
	case strings.ContainsFunc(value, unicode.IsControl):
		v.add(field, value, "holds a control character", "remove line breaks and other control characters")
	}
}

// requestID checks the id that makes a call idempotent.
func (v *violations) requestID(id string) { v.text("request_id", id, maxRequestID) }

// slug reports whether s is 1 to 63 of [a-z0-9-].
func slug(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxID
}

// deliveryID reports whether s can be the id of a delivery.
func deliveryID(s string) bool { return slug(s) && s[0] >= 'a' && s[0] <= 'z' }

// delivery reads `deliveries/{delivery}` and answers its id.
func (v *violations) delivery(field, name string) string {
	id, found := strings.CutPrefix(name, deliveriesPrefix)
	switch {
	case name == "":
		v.add(field, "", "is missing", "give the delivery's name: deliveries/{delivery}")
	case !found || !deliveryID(id):
		v.add(field, name, "is no delivery's name", "write deliveries/{delivery}, the id being 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter")
	}
	return id
}

// message reads `deliveries/{delivery}/messages/{message}`.
func (v *violations) message(field, name string) (delivery string, id mta.MessageID) {
	rest, found := strings.CutPrefix(name, deliveriesPrefix)
	delivery, word, parted := strings.Cut(rest, messagesPart)
	const remedy = "write deliveries/{delivery}/messages/{message} as ListMessages or an event gave it"
	if !found || !parted || !deliveryID(delivery) {
		v.add(field, name, "is no message's name", remedy)
		return "", id
	}
	id, err := mta.ParseMessageID(word)
	if err != nil {
		v.add(field, name, "is no message's name", remedy)
	}
	return delivery, id
}

// page checks a page size and answers the one to use.
func (v *violations) page(size int32) int {
	switch {
	case size == 0:
		return defaultPage
	case size < 0 || size > maxPage:
		v.add("page_size", fmt.Sprint(size), "is out of range", fmt.Sprintf("use 1 to %d, or 0 for %d", maxPage, defaultPage))
	}
	return int(size)
}

// duration checks a duration and answers it; unset is what unset says.
func (v *violations) duration(field string, d *durationpb.Duration, least, most, unset time.Duration) time.Duration {
	if d == nil {
		return unset
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < least || d.AsDuration() > most {
		v.add(field, durationText(d), "is out of range", fmt.Sprintf("use %v to %v, or leave it unset for %v", least, most, unset))
	}
	return d.AsDuration()
}

func durationText(d *durationpb.Duration) string {
	if d.CheckValid() != nil {
		return fmt.Sprintf("%d s %d ns", d.GetSeconds(), d.GetNanos())
	}
	return d.AsDuration().String()
}

// time checks a time; zero when unset.
func (v *violations) time(field string, t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	if err := t.CheckValid(); err != nil {
		v.add(field, fmt.Sprintf("%d s %d ns", t.GetSeconds(), t.GetNanos()), "is no time", "use a time between the years 1 and 9999")
	}
	return t.AsTime()
}

// tenant checks a tenant's name.
func (v *violations) tenant(field, name string) {
	if name != "" && !slug(name) {
		v.add(field, name, "is no tenant", "use 1 to 63 of a-z, 0-9 and hyphen")
	}
}

// pool checks a source pool's name.
func (v *violations) pool(field, name string, known func(string) bool) {
	v.text(field, name, maxID)
	if name != "" && known != nil && !known(name) {
		v.add(field, name, "is not configured", "use a pool of relay.pools, or leave it empty for "+DefaultPool)
	}
}

// address checks an address that may be empty.
func (v *violations) address(field, value string) {
	if value == "" {
		return
	}
	_, err := address.Parse(value)
	var bad *address.Error
	if errors.As(err, &bad) {
		v.add(field, bad.Value, bad.Problem, bad.Remedy)
	}
}

// spec checks everything that a client can say of a delivery, each field for itself.
func (v *violations) spec(field string, d *veredusv1.Delivery, hasPool func(string) bool) {
	v.tenant(field+"tenant", d.GetTenant())
	v.sender(field+"sender", d.GetSender())
	v.content(field+"content", d.GetContent())
	v.text(field+"label", d.GetLabel(), maxLabel)
	v.metadata(field+"metadata", d.GetMetadata(), maxMetadataKeys, maxMetadata)
	v.duration(field+"validity_period", d.GetValidityPeriod(), minValidity, maxValidity, defaultValidity)
	if _, known := veredusv1.FeedbackMode_name[int32(d.GetFeedbackMode())]; !known {
		v.add(field+"feedback_mode", fmt.Sprint(int32(d.GetFeedbackMode())), "is no feedback mode", "use FEEDBACK_MODE_EFS or FEEDBACK_MODE_NO_EFS")
	}
	v.pool(field+"pool", d.GetPool(), hasPool)
	v.text(field+"list_id", d.GetListId(), maxListID)
	v.unsubscribe(field+"unsubscribe", d.GetUnsubscribe())
	if p := d.GetPriority(); p < 0 || p > 100 {
		v.add(field+"priority", fmt.Sprint(p), "is out of range", fmt.Sprintf("use 1 to 100, or 0 for %d", DefaultPriority))
	}
}

func (v *violations) sender(field string, s *veredusv1.Sender) {
	v.address(field+".from", s.GetFrom())
	v.text(field+".display_name", s.GetDisplayName(), maxDisplayName)
	v.address(field+".reply_to", s.GetReplyTo())
}

// content checks the names of headers; whole checks its size. What templates say is
// checked when the delivery is prepared: a draft may be unfinished.
func (v *violations) content(field string, c *veredusv1.Content) {
	if contentSize(c) > maxContent {
		return
	}
	names := compose.Source{}
	for _, h := range c.GetHeaders() {
		names.Headers = append(names.Headers, compose.Header{Name: h.GetName()})
	}
	_, err := compose.Compile(names)
	for _, bad := range fieldErrors(err) {
		if strings.HasPrefix(bad.Field, "headers") {
			v.add(field+"."+bad.Field, bad.Value, bad.Problem, bad.Remedy)
		}
	}
}

func contentSize(c *veredusv1.Content) int {
	size := len(c.GetSubject()) + len(c.GetText()) + len(c.GetHtml()) + len(c.GetRfc5322())
	for _, h := range c.GetHeaders() {
		size += len(h.GetName()) + len(h.GetValue())
	}
	return size
}

// fieldErrors lists what compose.Compile joined.
func fieldErrors(err error) []*compose.FieldError {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return nil
	}
	var list []*compose.FieldError
	for _, e := range joined.Unwrap() {
		var bad *compose.FieldError
		if errors.As(e, &bad) {
			list = append(list, bad)
		}
	}
	return list
}

// metadata checks a client's own data.
func (v *violations) metadata(field string, m map[string]string, keys, most int) {
	if problem, remedy := metadataProblem(m, keys, most); problem != "" {
		v.add(field, "", problem, remedy)
	}
}

// metadataProblem says what is wrong with a client's own data; empty when nothing is.
func metadataProblem(m map[string]string, keys, most int) (problem, remedy string) {
	if len(m) > keys {
		return fmt.Sprintf("has %d keys", len(m)), fmt.Sprintf("keep at most %d", keys)
	}
	size := 0
	for k, value := range m {
		if k == "" {
			return "has an empty key", "name every value"
		}
		if !utf8.ValidString(k) || !utf8.ValidString(value) {
			return "is not valid UTF-8", "send it in UTF-8"
		}
		size += len(k) + len(value)
	}
	if size > most {
		return fmt.Sprintf("is %d octets together", size), fmt.Sprintf("shorten it to %d", most)
	}
	return "", ""
}

func (v *violations) unsubscribe(field string, u *veredusv1.Unsubscribe) {
	if _, known := veredusv1.UnsubscribeMode_name[int32(u.GetMode())]; !known {
		v.add(field+".mode", fmt.Sprint(int32(u.GetMode())), "is no unsubscribe mode", "use UNSUBSCRIBE_MODE_NONE, UNSUBSCRIBE_MODE_OWN_URL or UNSUBSCRIBE_MODE_HOSTED")
	}
	v.text(field+".url", u.GetUrl(), maxURL)
	v.text(field+".mailto", u.GetMailto(), maxMailto)
}

// whole checks what fields say together. It is quick.
func (v *violations) whole(field string, d *veredusv1.Delivery) {
	v.leaving(field+"unsubscribe", d.GetUnsubscribe())
	if size := contentSize(d.GetContent()); size > maxContent {
		v.add(field+"content", "", fmt.Sprintf("is %d octets together", size), fmt.Sprintf("shorten it to %d", maxContent))
	}
}

// leaving checks that mode, URL and mailto of an unsubscribe go together.
func (v *violations) leaving(field string, u *veredusv1.Unsubscribe) {
	switch mode, url, mailto := u.GetMode(), u.GetUrl(), u.GetMailto(); {
	case mode == veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED:
		const problem, remedy = "is given though the mode is HOSTED, which has its own", "clear it, or set UNSUBSCRIBE_MODE_OWN_URL"
		if url != "" {
			v.add(field+".url", url, problem, remedy)
		}
		if mailto != "" {
			v.add(field+".mailto", mailto, problem, remedy)
		}
	case mode == veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL && url == "":
		v.add(field+".url", "", "is missing", "give an https URL that takes the one-click POST of RFC 8058")
	case mode != veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL && url != "":
		v.add(field+".mode", "", "is not OWN_URL though a URL is given", "set UNSUBSCRIBE_MODE_OWN_URL, or clear unsubscribe.url")
	}
}
