package inbound

import (
	"encoding/json"
	"strings"
)

// notification is a delivery event that Amazon SES sends as JSON by mail, as its
// developer guide describes it ("Amazon SNS notification examples").
type notification struct {
	NotificationType string `json:"notificationType"`
	EventType        string `json:"eventType"`
	Mail             struct {
		MessageID   string   `json:"messageId"`
		Destination []string `json:"destination"`
	} `json:"mail"`
	Bounce struct {
		BounceType        string `json:"bounceType"`
		BounceSubType     string `json:"bounceSubType"`
		BouncedRecipients []struct {
			EmailAddress   string `json:"emailAddress"`
			Action         string `json:"action"`
			Status         string `json:"status"`
			DiagnosticCode string `json:"diagnosticCode"`
		} `json:"bouncedRecipients"`
	} `json:"bounce"`
	Complaint struct {
		ComplaintFeedbackType string `json:"complaintFeedbackType"`
		ComplainedRecipients  []struct {
			EmailAddress string `json:"emailAddress"`
		} `json:"complainedRecipients"`
	} `json:"complaint"`
	Delivery struct {
		Recipients   []string `json:"recipients"`
		SMTPResponse string   `json:"smtpResponse"`
	} `json:"delivery"`
}

// readNotification reads the JSON at the beginning of a text.
func readNotification(text string) (n notification, ok bool) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") || !strings.Contains(text, `otificationType"`) && !strings.Contains(text, `eventType"`) {
		return n, false
	}
	if json.NewDecoder(strings.NewReader(text)).Decode(&n) != nil && json.NewDecoder(strings.NewReader(joined(text))).Decode(&n) != nil {
		return n, false
	}
	if n.NotificationType == "" {
		n.NotificationType = n.EventType
	}
	switch n.NotificationType {
	case "Bounce", "Complaint", "Delivery":
		return n, true
	}
	return n, false
}

// joined undoes the line breaks that mail put into a long JSON line.
func joined(text string) string {
	text, _, _ = strings.Cut(text, "\n\n--")
	return strings.NewReplacer("\n ", " ", "\n", "").Replace(text)
}

func (c *Classifier) notification(n notification, r *Report) {
	r.Kind, r.Form = KindBounce, "ses"
	if r.Original.MessageID == "" {
		r.Original.MessageID = clip(n.Mail.MessageID, 998)
	}
	switch n.NotificationType {
	case "Complaint":
		r.Kind, r.FeedbackType = KindComplaint, "abuse"
		if kind := n.Complaint.ComplaintFeedbackType; kind != "" {
			r.FeedbackType = strings.ToLower(clip(kind, 40))
		}
		r.Verdict = feedbackVerdict(r.FeedbackType)
		for _, a := range n.Complaint.ComplainedRecipients {
			r.add(Recipient{Address: firstAddress(a.EmailAddress), Verdict: r.Verdict})
		}
	case "Delivery":
		for _, a := range n.Delivery.Recipients {
			d := Recipient{Address: firstAddress(a), Action: ActionDelivered, Diagnostic: readReply(clip(n.Delivery.SMTPResponse, maxDiagnostic))}
			d.Status = findStatus(n.Delivery.SMTPResponse)
			r.add(d)
		}
	default:
		for _, b := range n.Bounce.BouncedRecipients {
			d := Recipient{Address: firstAddress(b.EmailAddress), Action: parseAction(b.Action), Status: findStatus(b.Status)}
			if d.Action == ActionNone {
				d.Action = ActionFailed
			}
			_, diagnostic := typed(clip(b.DiagnosticCode, maxDiagnostic))
			c.qualify(&study{}, &d, diagnostic, n.Bounce.BounceType+" "+n.Bounce.BounceSubType)
			r.add(d)
		}
	}
	if len(r.Recipients) > 0 {
		first := &r.Recipients[0]
		r.Verdict, r.Action, r.Diagnostic = first.Verdict, first.Action, first.Diagnostic
	}
}

// add appends a recipient that has an address, up to the limit.
func (r *Report) add(one Recipient) {
	if one.Address != "" && len(r.Recipients) < maxRecipients {
		r.Recipients = append(r.Recipients, one)
	}
}
