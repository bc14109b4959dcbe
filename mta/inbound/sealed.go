package inbound

import "strings"

// maxSealed bounds the texts of one mail that are tried as sealed tokens.
const maxSealed = 10

// The length of a sealed token in characters: the least is that of its fixed
// parts, the most the one of unsubscribe.MaxToken.
const (
	minSealedToken = 27
	maxSealedToken = 1200
)

// sealed is what in an unsubscribe request may be a sealed token: words of the
// subject, the subject with its blanks removed (some programs fold it wherever
// they like), and words of the text, where links stand.
func (s *study) sealed() []string {
	var all []string
	add := func(words []string) {
		for _, w := range words {
			if len(all) < maxSealed && !contains(all, w) {
				all = append(all, w)
			}
		}
	}
	add(sealedWords(s.subject))
	if strings.ContainsAny(s.subject, " \t") {
		add(sealedWords(strings.Join(strings.Fields(s.subject), "")))
	}
	add(sealedWords(clip(s.report+"\n"+s.copied, 16<<10)))
	return all
}

// sealedSubject reports whether the subject is a sealed token and nothing else, as a
// mailto link of ours asks for. A program that follows the link for its reader may call its mail
// automatic, or send it from nobody.
func (s *study) sealedSubject() bool {
	subject := strings.Join(strings.Fields(s.subject), "")
	words := sealedWords(subject)
	return len(words) == 1 && words[0] == subject
}

// sealedWords is the words of a text that have the letters and the length of a
// sealed token (base64url, RFC 4648 section 5).
func sealedWords(text string) []string {
	var words []string
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r >= 0x80 || !isAlnum(byte(r)) && r != '-' && r != '_' }) {
		if len(w) >= minSealedToken && len(w) <= maxSealedToken {
			words = append(words, w)
		}
	}
	return words
}
