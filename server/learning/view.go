package learning

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
)

// pathWords are the words of path_effect.
var pathWords = map[bounce.PathEffect]string{
	bounce.PathNone: "none", bounce.PathSlow: "slow", bounce.PathFewerConnections: "fewer connections",
	bounce.PathFewerMessages: "fewer messages per connection", bounce.PathRest: "rest",
}

// textView is a text as the API shows it, qualified by the rules of today.
func textView(t *Text, rules *bounce.Table) *veredusv1.ReplyText {
	e := rules.Explain(t.input())
	names := t.providers()
	return &veredusv1.ReplyText{
		Name: textsPrefix + t.ID.String(), NormalisedText: t.Normalised, FirstReply: t.First.String(),
		Count: t.Count, Providers: names[:min(len(names), maxProviders)],
		FirstTime: timestamppb.New(t.FirstTime), LastTime: timestamppb.New(t.LastTime),
		Status: veredusv1.ReplyTextStatus(t.statusBy(e.Verdict)), Qualification: Qualification(&e), Phase: t.First.Phase.String(),
	}
}

// Qualification is an explanation as the API says it.
func Qualification(e *bounce.Explanation) *veredusv1.QualifyReplyResponse {
	v := e.Verdict
	resp := &veredusv1.QualifyReplyResponse{
		BounceCode: int32(v.Code), Name: v.Name, Category: v.Category, Tag: v.Tag,
		Reason: veredusv1.FailureReason(v.Reason), FailureType: veredusv1.FailureType(v.Type),
		Disposition:   veredusv1.Disposition(v.Disposition) + veredusv1.Disposition_DISPOSITION_DELIVERED,
		AddressEffect: v.Address.String(), PathEffect: pathWords[v.Path], Hold: v.Hold.String(),
		Rule: v.Rule, NormalisedText: e.Normalised, MaxAttempts: int32(v.MaxAttempts),
	}
	for _, step := range e.Steps {
		verdict := "passed over"
		if step.Matched {
			verdict = "matched"
		}
		resp.Considered = append(resp.Considered, fmt.Sprintf("%s: %s, %s", step.Rule, verdict, step.Why))
	}
	return resp
}

func evidenceView(e *address.Evidence) *veredusv1.AddressEvidence {
	return &veredusv1.AddressEvidence{
		Time: timestamppb.New(e.Time), Change: string(e.Change), Event: e.Event, Message: e.Message,
		ReplyCode: int32(e.ReplyCode), EnhancedCode: e.Enhanced, Text: e.Text, Phase: e.Phase,
		BounceCode: int32(e.Code), Rule: e.Rule, Destination: e.Destination, Provider: e.Provider, Effect: e.Effect.String(),
	}
}
