package inbound

import (
	"errors"
	"strings"

	"github.com/veredus/veredus/mta/returnpath"
)

// maxTokens bounds the texts of one place that are tried as tokens: each costs
// a keyed hash.
const maxTokens = 50

// attribute ties a mail to a message by the token of the most trusted place that
// has one. A forged token ends the search: whoever wrote it may have written the
// rest.
func (c *Classifier) attribute(s *study, original Header, env Envelope) Attribution {
	var a Attribution
	if c.keys == nil {
		return a
	}
	stopped := false
	for _, p := range []struct {
		place Place
		texts []string
	}{
		{PlaceReturnPath, s.arrivedAt(env)},
		{PlaceMessageID, s.messageIDs(original)},
		{PlaceListUnsubscribe, unsubscribeTargets(original)},
	} {
		refs, forged := c.tokens(p.texts)
		a.Forged += forged
		switch {
		case len(refs) == 0 || stopped && a.Place == PlaceNone:
		case a.Place != PlaceNone:
			a.Conflict = a.Conflict || len(refs) > 1 || refs[0] != a.Ref
		case len(refs) > 1:
			a.Conflict, stopped = true, true
		case forged == 0:
			a.Place, a.Ref, a.Confirm = p.place, refs[0], p.place != PlaceReturnPath
		}
		stopped = stopped || forged > 0
	}
	return a
}

// tokens returns the different messages that the texts name with our signature,
// and how many texts only look as if.
func (c *Classifier) tokens(texts []string) (refs []returnpath.Ref, forged int) {
	if len(texts) > maxTokens {
		texts = texts[:maxTokens]
	}
	for _, t := range texts {
		ref, err := c.keys.Parse(t)
		switch {
		case errors.Is(err, returnpath.ErrForged):
			forged++
		case err == nil && !hasRef(refs, ref):
			refs = append(refs, ref)
		}
	}
	return refs, forged
}

func hasRef(refs []returnpath.Ref, ref returnpath.Ref) bool {
	for _, r := range refs {
		if r == ref {
			return true
		}
	}
	return false
}

// arrivedAt is the local parts of the addresses that the mail came to.
func (s *study) arrivedAt(env Envelope) []string {
	all := []string{env.Recipient}
	if env.Recipient == "" {
		all = nil
		for _, name := range []string{"Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "X-Forwarded-To", "To"} {
			all = append(all, addresses(s.header.All(name), 10)...)
		}
	}
	var texts []string
	for _, a := range all {
		texts = append(texts, segments(localPart(a))...)
	}
	return texts
}

// segments is a local part and, of one like "unsubscribe+<token>", its pieces
// that are long enough.
func segments(local string) []string {
	all := []string{local}
	for _, piece := range strings.FieldsFunc(local, func(r rune) bool { return strings.ContainsRune("+-=._", r) }) {
		if piece != local && len(piece) >= minToken {
			all = append(all, piece)
		}
	}
	return all
}

// messageIDs is the left sides of the identifiers of the mail returned, and of
// those that this mail answers.
func (s *study) messageIDs(original Header) []string {
	values := append(original.All("Message-ID"), s.header.All("In-Reply-To")...)
	values = append(values, s.header.All("References")...)
	if s.feedback != nil {
		values = append(values, s.feedback.All("Message-ID")...)
		values = append(values, s.feedback.All("Original-Message-ID")...)
		values = append(values, s.feedback.All("Original-Mail-From")...)
	}
	values = append(values, original.All("Return-Path")...)
	var left []string
	for _, v := range values {
		for _, span := range findAddresses(v, maxTokens) {
			left = append(left, localPart(span.address))
		}
	}
	return left
}

// unsubscribeTargets is what in List-Unsubscribe may be a token: each run of the
// token's letters that is long enough.
func unsubscribeTargets(original Header) []string {
	var runs []string
	for _, v := range original.All("List-Unsubscribe") {
		for _, run := range strings.FieldsFunc(clip(v, 8<<10), func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '2' || r > '7')
		}) {
			if len(run) >= minToken && len(run) <= returnpath.MaxLength {
				runs = append(runs, run)
			}
		}
	}
	return runs
}

// minToken is shorter than every token: version, key, five numbers of one octet
// and a code of ten make 28 characters.
const minToken = 27
