package bounce

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A phrase is how rules name text. It is written like the text itself and
// brought into the same normal form; besides, it knows
//
//	{full|over quota|}   alternatives, one of which may be empty
//	mailbox * full       up to 48 bytes of anything between
//	blocked ... spamhaus anything between
//	block~  ~spam        a word that goes on: "blocked", "antispam"
//	<addr> <ip> <host>   the masks of the normal form
//	^ rejected $         the text's start and end
//
// Literals match whole words, except where a tilde opens an edge and in scripts
// that are written without spaces.

const (
	// wordGap is the reach from an open word to the next: the rest of the word.
	wordGap = 20
	// nearGap is the reach of "*": about eight words.
	nearGap = 48
	// anyGap is the reach of "...".
	anyGap = maxText * 4
	// textStart and textEnd stand for the ends of the text.
	textStart, textEnd = "^", "$"
	// maxVariants bounds what one phrase may expand to. Plain alternatives do
	// not expand; empty ones, ones with gaps and ones glued to a word do.
	maxVariants = 512
)

// piece is one step of a phrase: any of its literals, at most gap bytes behind
// the step before.
type piece struct {
	literals []edged
	gap      int
}

// edged is a literal in normal form with its edges.
type edged struct {
	text                string
	openLeft, openRight bool
}

// parsePhrase returns the variants of a phrase, each a sequence of pieces.
func parsePhrase(phrase string) ([][]piece, error) {
	flat, err := expand(phrase)
	if err != nil {
		return nil, fmt.Errorf("phrase %q: %w", phrase, err)
	}
	variants := make([][]piece, 0, len(flat))
	for _, f := range flat {
		v, err := parseVariant(f)
		if err != nil {
			return nil, fmt.Errorf("phrase %q: %w", phrase, err)
		}
		variants = append(variants, v)
	}
	return variants, nil
}

// expand multiplies out the alternatives that one piece cannot hold; the plain
// ones stay in braces.
func expand(phrase string) ([]string, error) {
	done, todo := []string(nil), []string{phrase}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		more, err := expandOne(p)
		if err != nil {
			return nil, err
		}
		if more == nil {
			done = append(done, p)
		}
		todo = append(todo, more...)
		if len(done)+len(todo) > maxVariants {
			return nil, fmt.Errorf("expands to more than %d variants; split it", maxVariants)
		}
	}
	slices.Reverse(done)
	return done, nil
}

// expandOne splits the phrase at its first brace that is not plain; nil when
// there is none.
func expandOne(p string) ([]string, error) {
	for i := 0; ; {
		open := strings.IndexByte(p[i:], '{')
		if open < 0 {
			if strings.IndexByte(p[i:], '}') >= 0 {
				return nil, errors.New("'}' without '{'; write {a|b}")
			}
			return nil, nil
		}
		open += i
		size := strings.IndexByte(p[open:], '}')
		if size < 0 {
			return nil, errors.New("'{' without '}'; write {a|b}")
		}
		end := open + size
		inner := p[open+1 : end]
		if strings.IndexByte(inner, '{') >= 0 {
			return nil, errors.New("braces inside braces; write the alternatives out")
		}
		glued := open > 0 && p[open-1] != ' ' || end+1 < len(p) && p[end+1] != ' '
		plain, special := splitAlternatives(inner, glued)
		if len(special) > 0 {
			return rebuild(p[:open], p[end+1:], plain, special), nil
		}
		i = end + 1
	}
}

// splitAlternatives parts plain alternatives from those that must be expanded.
func splitAlternatives(inner string, glued bool) (plain, special []string) {
	for alt := range strings.SplitSeq(inner, "|") {
		trimmed := strings.TrimSpace(alt)
		words := strings.Fields(trimmed)
		if glued || trimmed == "" || isSplitPhrase(words) {
			special = append(special, alt)
			continue
		}
		plain = append(plain, trimmed)
	}
	return plain, special
}

// isSplitPhrase reports gaps and open words inside.
func isSplitPhrase(words []string) bool {
	for i, w := range words {
		if w == "*" || w == "..." || w == textStart || w == textEnd || i < len(words)-1 && strings.HasSuffix(w, "~") || i > 0 && strings.HasPrefix(w, "~") {
			return true
		}
	}
	return false
}

func rebuild(head, tail string, plain, special []string) []string {
	var all []string
	for _, s := range special {
		all = append(all, head+s+tail)
	}
	if len(plain) > 0 {
		all = append(all, head+"{"+strings.Join(plain, "|")+"}"+tail)
	}
	return all
}

// parseVariant cuts an expanded phrase into pieces: braces, and runs of words
// between them.
func parseVariant(flat string) ([]piece, error) {
	var pieces []piece
	gap := 0
	add := func(alternatives []string) error {
		p, open, err := newPiece(alternatives)
		if err != nil {
			return err
		}
		p.gap = gap
		pieces = append(pieces, p)
		gap = 1
		if open {
			gap = wordGap
		}
		return nil
	}
	for _, item := range items(flat) {
		var err error
		switch {
		case item == "*":
			gap = nearGap
		case item == "...":
			gap = anyGap
		case item[0] == '{':
			err = add(strings.Split(item[1:len(item)-1], "|"))
		default:
			err = add([]string{item})
		}
		if err != nil {
			return nil, err
		}
	}
	if len(pieces) == 0 {
		return nil, errors.New("it is empty; give it a word")
	}
	return pieces, nil
}

// items cuts at braces, gaps and open words; words between stay together.
func items(flat string) []string {
	var all, run []string
	flush := func() {
		if len(run) > 0 {
			all = append(all, strings.Join(run, " "))
			run = nil
		}
	}
	for rest := strings.TrimSpace(flat); rest != ""; rest = strings.TrimSpace(rest) {
		var item string
		if rest[0] == '{' {
			end := strings.IndexByte(rest, '}')
			flush()
			all = append(all, rest[:end+1])
			rest = rest[end+1:]
			continue
		}
		item, rest, _ = strings.Cut(rest, " ")
		if item == "*" || item == "..." || item == textStart || item == textEnd {
			flush()
			all = append(all, item)
			continue
		}
		if strings.HasPrefix(item, "~") {
			flush()
		}
		run = append(run, item)
		if strings.HasSuffix(item, "~") {
			flush()
		}
	}
	flush()
	return all
}

// newPiece normalises literals; open tells that one of them has an open end.
func newPiece(alternatives []string) (p piece, open bool, err error) {
	for _, text := range alternatives {
		var l edged
		if t, ok := strings.CutPrefix(text, "~"); ok {
			l.openLeft, text = true, t
		}
		if t, ok := strings.CutSuffix(text, "~"); ok {
			l.openRight, text = true, t
			open = true
		}
		if strings.IndexByte(text, '~') >= 0 {
			return p, open, errors.New("'~' may only stand at the start or end of a word")
		}
		if l.text = Normalise(text); text == textStart || text == textEnd {
			l.text = text
		}
		if strings.Contains(l.text, "<id>") && !strings.Contains(text, "<id>") {
			return p, open, fmt.Errorf("%q is masked as <id> in replies and can never occur", text)
		}
		if l.text == "" {
			return p, open, errors.New("an empty literal matches everything; give it a word")
		}
		p.literals = append(p.literals, l)
	}
	return p, open, nil
}

// ExactPhrase is the phrase for a rule that matches one text: the one of this
// normal form (see Normalise), or, unless whole, all that begin with it.
func ExactPhrase(normal string, whole bool) string {
	phrase := textStart + " " + normal
	if whole {
		phrase += " " + textEnd
	}
	return phrase
}
