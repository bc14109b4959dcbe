package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/learning"
)

// maxReply bounds a reply to qualify, in bytes; the rules read the first 4096.
const maxReply = 16 << 10

// QualifyReply implements the call.
func (s *relayService) QualifyReply(_ context.Context, req *veredusv1.QualifyReplyRequest) (*veredusv1.QualifyReplyResponse, error) {
	text, table := strings.TrimSpace(req.GetReply()), s.settings().bounces
	if text == "" {
		return nil, invalid("reply", "", "is empty", `give what the server said, for example "550 5.1.1 user unknown"`)
	}
	if len(text) > maxReply {
		return nil, invalid("reply", text, fmt.Sprintf("has %d bytes", len(text)), "give at most 16384")
	}
	if p := req.GetProvider(); p != "" && !slices.Contains(table.Providers(), p) {
		return nil, invalid("provider", p, "is unknown", "use one of "+strings.Join(table.Providers(), ", ")+", or leave it empty")
	}
	reply := bounce.ParseReply(text)
	reply.Phase = smtpc.PhaseRCPT
	if req.GetPhase() != "" {
		phase, ok := smtpc.ParsePhase(req.GetPhase())
		if !ok {
			return nil, invalid("phase", req.GetPhase(), "is unknown", "use connect, greeting, ehlo, tls, mail, rcpt, data or end_of_data")
		}
		reply.Phase = phase
	}
	e := table.Explain(bounce.Input{Reply: reply, Provider: req.GetProvider(), Domain: req.GetDomain()})
	return learning.Qualification(&e), nil
}
