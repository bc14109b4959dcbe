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
	var sealed []linked
	for _, at := range s.places(original, env) {
		parse := c.keys.ParseAny
		if at.place == PlaceReturnPath {
			parse = c.keys.Parse
		}
		refs, forged := tokens(at.texts, parse)
		if at.place == PlaceListUnsubscribe {
			for _, l := range c.sealedTargets(original) {
				if !hasRef(refs, l.ref) {
					refs = append(refs, l.ref)
				}
				sealed = append(sealed, l)
			}
		}
		a.Forged += forged
		switch {
		case a.Place != PlaceNone:
			a.Conflict = a.Conflict || len(refs) > 1 || len(refs) == 1 && refs[0] != a.Ref
		case stopped:
		case forged > 0 || len(refs) > 1:
			stopped, a.Conflict = true, len(refs) > 1
		case len(refs) == 1:
			a.Place, a.Ref, a.Confirm = at.place, refs[0], at.place != PlaceReturnPath
		}
	}
	for _, l := range sealed {
		if a.Place != PlaceNone && l.ref == a.Ref {
			a.Link = l.token
		}
	}
	return a
}

// linked is a sealed token and the message that it names.
type linked struct {
	ref   returnpath.Ref
	token string
}

// placed is texts of one place that may be tokens.
type placed struct {
	place Place
	texts []string
}

// places are the places of tokens, the most trusted first. What this mail answers
// counts after the mail that it returns.
func (s *study) places(original Header, env Envelope) []placed {
	return []placed{
		{PlaceReturnPath, s.arrivedAt(env)},
		{PlaceMessageID, identifiers(s.about(original))},
		{PlaceMessageID, identifiers([]string{s.answers()})},
		{PlaceListUnsubscribe, unsubscribeTargets(original)},
	}
}

// tokens returns the different messages that the texts name with our signature,
// and how many texts only look as if.
func tokens(texts []string, parse func(string) (returnpath.Ref, error)) (refs []returnpath.Ref, forged int) {
	if len(texts) > maxTokens {
		texts = texts[:maxTokens]
	}
	for _, t := range texts {
		ref, err := parse(t)
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

// about is the fields that name the mail returned or complained about.
func (s *study) about(original Header) []string {
	values := append(original.All("Message-ID"), original.All("Return-Path")...)
	if s.feedback != nil {
		for _, name := range []string{"Message-ID", "Original-Message-ID", "Original-Mail-From"} {
			values = append(values, s.feedback.All(name)...)
		}
	}
	return values
}

// answers is the identifier of the mail that this one answers (RFC 5322 section
// 3.6.4): In-Reply-To, or the last of References.
func (s *study) answers() string {
	if v := s.header.Get("In-Reply-To"); v != "" {
		return v
	}
	v := s.header.Get("References")
	return v[strings.LastIndexByte(v, '<')+1:]
}

// identifiers is the left sides of identifiers and addresses.
func identifiers(values []string) []string {
	var left []string
	for _, v := range values {
		for _, span := range findAddresses(v, maxTokens) {
			left = append(left, localPart(span.address))
		}
	}
	return left
}

// unsubscribeTargets is what in List-Unsubscribe may be a token of the return path:
// a word, or a piece of one. Sealed tokens are longer, and pieces of them are none.
func unsubscribeTargets(original Header) []string {
	var targets []string
	for _, v := range original.All("List-Unsubscribe") {
		for _, word := range sealedWords(clip(v, 8<<10)) {
			if len(word) <= returnpath.MaxLength+10 {
				targets = append(targets, segments(word)...)
			}
		}
	}
	return targets
}

// sealedTargets is the messages that sealed tokens in List-Unsubscribe name.
func (c *Classifier) sealedTargets(original Header) (found []linked) {
	if c.links == nil {
		return nil
	}
	tried := 0
	for _, v := range original.All("List-Unsubscribe") {
		for _, word := range sealedWords(clip(v, 8<<10)) {
			if tried++; tried > maxTokens {
				return found
			}
			if ref, ok := c.links(word); ok {
				found = append(found, linked{ref, word})
			}
		}
	}
	return found
}

// minToken is shorter than every token: version, key, five numbers of one octet
// and a code of ten make 28 characters.
const minToken = 27
