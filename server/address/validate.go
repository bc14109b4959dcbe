package address

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Limits of what requests hold, in octets where nothing else is said.
const (
	maxTenant     = 63
	maxListID     = 255
	maxRequestID  = 128
	maxText       = 256 // of a filter
	maxPage       = 1000
	defaultPage   = 100
	maxShownValue = 100
	anyTenants    = "*" // in filters and files: entries of all tenants
	defaultTenant = "default"
)

// violations gathers what is wrong with a request.
type violations struct {
	list []FieldViolation
}

func (v *violations) add(field, value, problem, remedy string) {
	v.list = append(v.list, FieldViolation{Field: field, Value: printable(value), Problem: problem, Remedy: remedy})
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

// printable cuts a value for an error.
func printable(s string) string {
	if len(s) <= maxShownValue {
		return strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	return clip(s, maxShownValue-len("...")) + "..."
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

// address reads an address.
func (v *violations) address(field, value string) address.Address {
	a, err := address.Parse(value)
	var bad *address.Error
	if errors.As(err, &bad) {
		v.add(field, bad.Value, bad.Problem, bad.Remedy)
	}
	return a
}

// slug reports whether s is 1 to 63 of [a-z0-9-].
func slug(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxTenant
}

// tenant checks a tenant's name, which may be empty.
func (v *violations) tenant(field, name string) {
	if name != "" && !slug(name) {
		v.add(field, name, "is no tenant", "use 1 to 63 of a-z, 0-9 and hyphen")
	}
}

// listID checks a List-Id, which may be empty, and answers it as it is compared.
func (v *violations) listID(field, list string) string {
	v.text(field, list, maxListID)
	list = strings.ToLower(list)
	if len(list) > maxListID && len(v.list) == 0 { // folding can lengthen
		v.add(field, list, "is too long in lower case", fmt.Sprintf("shorten it to %d octets", maxListID))
	}
	return list
}

// scope reads a scope; unset is all tenants, everything.
func (v *violations) scope(field string, s *veredusv1.AddressScope) Scope {
	v.tenant(field+".tenant", s.GetTenant())
	got := Scope{Tenant: s.GetTenant(), Class: Class(s.GetMailClass()), List: v.listID(field+".list_id", s.GetListId())}
	switch s.GetMailClass() {
	case veredusv1.MailClass_MAIL_CLASS_UNSPECIFIED:
		got.Class = Everything
	case veredusv1.MailClass_MAIL_CLASS_EVERYTHING, veredusv1.MailClass_MAIL_CLASS_MARKETING:
	default:
		v.add(field+".mail_class", fmt.Sprint(int32(s.GetMailClass())), "is no class of mail", "use MAIL_CLASS_EVERYTHING or MAIL_CLASS_MARKETING")
	}
	if got.List != "" && got.Tenant == "" {
		v.add(field+".list_id", got.List, "names a list but no tenant", "give scope.tenant too: lists belong to tenants")
	}
	return got
}

// reason checks a failure reason.
func (v *violations) reason(field string, r veredusv1.FailureReason) bounce.Reason {
	if _, known := veredusv1.FailureReason_name[int32(r)]; !known {
		v.add(field, fmt.Sprint(int32(r)), "is no failure reason", "use a value of FailureReason, such as FAILURE_REASON_USER_UNKNOWN")
		return 0
	}
	return bounce.Reason(r)
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

// filter reads a filter.
func (v *violations) filter(f *veredusv1.AddressFilter) Filter {
	got := Filter{
		Status: Status(f.GetStatus()), Origin: Origin(f.GetOrigin()), Provisional: f.GetProvisional(),
		Start: v.time("filter.start_time", f.GetStartTime()), End: v.time("filter.end_time", f.GetEndTime()),
		Reason: v.reason("filter.reason", f.GetReason()), List: v.listID("filter.list_id", f.GetListId()),
		Text: strings.ToLower(f.GetText()),
	}
	if _, known := veredusv1.AddressStatus_name[int32(f.GetStatus())]; !known {
		v.add("filter.status", fmt.Sprint(int32(f.GetStatus())), "is no status", "use a value of AddressStatus, such as ADDRESS_STATUS_QUARANTINED")
	}
	if _, known := veredusv1.AddressOrigin_name[int32(f.GetOrigin())]; !known {
		v.add("filter.origin", fmt.Sprint(int32(f.GetOrigin())), "is no origin", "use a value of AddressOrigin, such as ADDRESS_ORIGIN_BOUNCE")
	}
	switch tenant := f.GetTenant(); tenant {
	case "":
	case anyTenants:
		got.Tenant = new(string)
	default:
		v.tenant("filter.tenant", tenant)
		got.Tenant = &tenant
	}
	if !got.Start.IsZero() && !got.End.IsZero() && !got.Start.Before(got.End) {
		v.add("filter.end_time", got.End.Format(time.RFC3339), "is not after start_time", "give a later one: the window ends before it")
	}
	v.text("filter.text", f.GetText(), maxText)
	got.Domain = v.domain(f.GetDomain())
	return got
}

// domain reads a filter's domain, in U-labels or A-labels.
func (v *violations) domain(name string) string {
	if name == "" {
		return ""
	}
	ascii, err := address.ParseDomain(name)
	var bad *address.Error
	if errors.As(err, &bad) {
		v.add("filter.domain", bad.Value, bad.Problem, bad.Remedy)
	}
	return ascii
}
