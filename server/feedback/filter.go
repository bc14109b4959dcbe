package feedback

import (
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// filter is a FeedbackFilter made ready: fields are joined by AND, values of one
// field by OR, an empty field matches everything.
type filter struct {
	tenants, deliveries, destinations, recipientIDs map[string]bool
	types                                           map[veredusv1.FeedbackType]bool
}

func newFilter(f *veredusv1.FeedbackFilter) filter {
	return filter{
		tenants:      setOf(f.GetTenants()),
		deliveries:   setOf(f.GetDeliveries()),
		destinations: setOf(f.GetDestinations()),
		recipientIDs: setOf(f.GetRecipientIds()),
		types:        setOf(f.GetTypes()),
	}
}

func setOf[T comparable](values []T) map[T]bool {
	if len(values) == 0 {
		return nil
	}
	set := make(map[T]bool, len(values))
	for _, v := range values {
		set[v] = true
	}
	return set
}

// everything says that there is nothing that the filter does not match.
func (f filter) everything() bool {
	return f.types == nil && f.tenants == nil && f.deliveries == nil && f.destinations == nil && f.recipientIDs == nil
}

// matches is pure.
func (f filter) matches(r *Record) bool {
	return has(f.types, r.Type) && has(f.tenants, r.Tenant) && has(f.deliveries, r.Delivery) &&
		has(f.destinations, r.Destination) && has(f.recipientIDs, r.RecipientID)
}

func has[T comparable](set map[T]bool, v T) bool { return set == nil || set[v] }
