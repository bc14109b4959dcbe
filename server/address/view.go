package address

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// view is an entry as the API shows it.
func view(e *Entry) *veredusv1.AddressEntry {
	shown := &veredusv1.AddressEntry{
		Name: EntryName(e.Key), Address: e.spelling(), Scope: scopeView(e.Scope),
		Status: veredusv1.AddressStatus(e.Status), Provisional: e.Provisional, Origin: veredusv1.AddressOrigin(e.Origin),
		Reason: veredusv1.FailureReason(e.Reason), BounceCode: int32(e.Code), Tag: e.Tag, ErrorCount: int32(e.Errors),
		Comment: e.Comment, CreateTime: stamp(e.Created), UpdateTime: stamp(e.Updated), LastErrorTime: stamp(e.LastError),
	}
	for i := range e.Evidence[:min(len(e.Evidence), MaxEvidence)] {
		shown.Evidence = append(shown.Evidence, evidenceView(&e.Evidence[i]))
	}
	return shown
}

// spelling is the address as it was written first, where that is known.
func (e *Entry) spelling() string {
	if e.Address == "" {
		return e.Folded
	}
	return e.Address
}

func views(list []Entry) []*veredusv1.AddressEntry {
	shown := make([]*veredusv1.AddressEntry, len(list))
	for i := range list {
		shown[i] = view(&list[i])
	}
	return shown
}

func scopeView(s Scope) *veredusv1.AddressScope {
	return &veredusv1.AddressScope{Tenant: s.Tenant, MailClass: veredusv1.MailClass(s.Class), ListId: s.List}
}

func evidenceView(e *Evidence) *veredusv1.AddressEvidence {
	shown := &veredusv1.AddressEvidence{
		Time: stamp(e.Time), Change: string(e.Change), Event: e.Event, Message: e.Message,
		ReplyCode: int32(e.ReplyCode), EnhancedCode: e.Enhanced, Text: e.Text, Phase: e.Phase,
		BounceCode: int32(e.Code), Rule: e.Rule, Destination: e.Destination, Provider: e.Provider,
	}
	if e.Effect != bounce.AddressNone {
		shown.Effect = e.Effect.String()
	}
	return shown
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// String says in words which mail the scope is about.
func (s Scope) String() string {
	text := "all tenants"
	if s.Tenant != "" {
		text = "tenant " + s.Tenant
	}
	switch {
	case s.List != "":
		return text + ", list " + s.List
	case s.Class == Marketing:
		return text + ", marketing mail"
	}
	return text + ", all mail"
}

// because says in words which entry decides about a mail, and why.
func because(x Exclusion, entries []Entry, q Query, p Policy, now time.Time) string {
	for i := range entries {
		e := &entries[i]
		switch {
		case x.By == (Key{}):
			if e.matches(q) {
				return fmt.Sprintf("nothing excludes it: %s for %s", e.silence(p), e.Scope)
			}
		case x.By == e.Key && e.Status == Allowlisted:
			text := fmt.Sprintf("allowlisted for %s%s", e.Scope, e.remark())
			if x.Reason == bounce.ReasonErrorIgnored {
				text += "; another entry would exclude it"
			}
			return text
		case x.By == e.Key:
			return fmt.Sprintf("%s for %s since %s%s%s", e.Status.word(), e.Scope, e.Updated.UTC().Format(time.DateTime+" MST"), e.remark(), e.until(p))
		}
	}
	return "no entry is about it"
}

// silence says why an entry that matches does not decide.
func (e *Entry) silence(p Policy) string {
	if e.Status == Quarantined {
		return "a provisional quarantine is past its hold and the next mail puts it to the test,"
	}
	return fmt.Sprintf("%d of %d errors counted", e.Errors, p.Threshold)
}

// remark is the operator's comment, or else what the latest evidence says.
func (e *Entry) remark() string {
	switch {
	case e.Comment != "":
		return ": " + e.Comment
	case len(e.Evidence) > 0 && e.Evidence[0].Text != "":
		return ": " + e.Evidence[0].Text
	}
	return ""
}

// until says when a provisional entry ceases to exclude.
func (e *Entry) until(p Policy) string {
	if !e.Provisional {
		return ""
	}
	return fmt.Sprintf(" (provisional, until %s)", e.LastError.Add(p.ProvisionalHold).UTC().Format(time.DateTime+" MST"))
}
