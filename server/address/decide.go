package address

import (
	"strings"
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// standing is what an entry says of a mail, the strongest first.
type standing uint8

const (
	listDenied   standing = iota // denylisted for exactly this list
	listAllowed                  // allowlisted for exactly this list: they came back to it
	unsubscribed                 // from all the tenant's mail
	allowed
	denied
	quarantined
	silent
)

// Decide says whether mail would be excluded by the entries, which may be all entries of
// the address in any order. Of those that match the query the strongest decides:
//
//  1. denylisted for exactly the mail's list, by an unsubscribe for example: excluded
//  2. allowlisted for exactly that list: goes
//  3. an unsubscribe from all lists: excluded; a person's own wish is no error to be ignored
//  4. allowlisted: goes
//  5. denylisted: excluded
//  6. quarantined, unless provisional and past Policy.ProvisionalHold: excluded
//
// An entry matches by address, by tenant (its own or all), by class (Marketing
// entries do not concern transactional mail) and by list (its own or all).
func Decide(entries []Entry, q Query, p Policy, now time.Time) Exclusion {
	by, strongest, excluded := (*Entry)(nil), silent, false
	for i := range entries {
		e := &entries[i]
		if !e.matches(q) {
			continue
		}
		s := e.standing(p, now)
		excluded = excluded || s.excludes()
		if s < strongest || s == strongest && by != nil && less(&e.Scope, &by.Scope) {
			by, strongest = e, s
		}
	}
	if by == nil {
		return Exclusion{}
	}
	return Exclusion{Reason: strongest.reason(excluded), By: by.Key}
}

// matches reports whether the entry concerns the mail.
func (e *Entry) matches(q Query) bool {
	return e.Folded == q.Folded &&
		(e.Scope.Tenant == "" || e.Scope.Tenant == q.Tenant) &&
		(e.Scope.Class != Marketing || q.Class == Marketing) &&
		(e.Scope.List == "" || e.Scope.List == q.List)
}

func (e *Entry) standing(p Policy, now time.Time) standing {
	switch exact := e.Scope.List != ""; {
	case e.Status == Denylisted && exact:
		return listDenied
	case e.Status == Allowlisted && exact:
		return listAllowed
	case e.Status == Denylisted && e.Origin == FromUnsubscribe:
		return unsubscribed
	case e.Status == Allowlisted:
		return allowed
	case e.Status == Denylisted:
		return denied
	case e.Status == Quarantined && !e.onProbation(p, now):
		return quarantined
	}
	return silent
}

func (s standing) excludes() bool {
	return s == listDenied || s == unsubscribed || s == denied || s == quarantined
}

// reason is the Exclusion's; excluded: some entry excludes.
func (s standing) reason(excluded bool) bounce.Reason {
	switch {
	case s == quarantined:
		return bounce.ReasonInQuarantine
	case s.excludes():
		return bounce.ReasonDenylisted
	case excluded:
		return bounce.ReasonErrorIgnored
	}
	return bounce.ReasonNotDefined
}

// less puts scopes in order, so that the answer does not depend on that of the entries.
func less(a, b *Scope) bool {
	if a.Tenant != b.Tenant {
		return a.Tenant > b.Tenant // a tenant's own entry is named rather than one of all
	}
	if a.Class != b.Class {
		return a.Class < b.Class
	}
	return strings.Compare(a.List, b.List) < 0
}
