package address

import "strings"

// Keeps reports whether the filter keeps the entry: every field that is set holds.
func (f *Filter) Keeps(e *Entry) bool {
	switch {
	case f.Status != 0 && e.Status != f.Status,
		f.Tenant != nil && e.Scope.Tenant != *f.Tenant,
		f.List != "" && e.Scope.List != f.List,
		f.Domain != "" && e.Key.domain() != f.Domain,
		!f.Start.IsZero() && e.Updated.Before(f.Start),
		!f.End.IsZero() && !e.Updated.Before(f.End),
		f.Reason != 0 && e.Reason != f.Reason,
		f.Provisional && !e.Provisional,
		f.Origin != 0 && e.Origin != f.Origin:
		return false
	}
	return f.Text == "" || len(e.Evidence) > 0 && strings.Contains(strings.ToLower(e.Evidence[0].Text), f.Text)
}

// narrow reports whether the filter says more than a status and provisional.
func (f *Filter) narrow() bool {
	return f.Tenant != nil || f.List != "" || f.Domain != "" || !f.Start.IsZero() || !f.End.IsZero() ||
		f.Text != "" || f.Reason != 0 || f.Origin != 0
}

// domain is the part of the address behind its @.
func (k *Key) domain() string { return k.Folded[strings.LastIndexByte(k.Folded, '@')+1:] }
