package bounce

import (
	"errors"
	"fmt"
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
//
// Pieces match whole words, except where a tilde opens an edge and in scripts
// that are written without spaces.

const (
	// nearGap is the reach of "*": about eight words.
	nearGap = 48
	// anyGap is the reach of "...".
	anyGap = maxText * 4
	// maxVariants bounds what one phrase's alternatives may expand to.
	maxVariants = 1024
)

// piece is a literal of a phrase, with the gap allowed before it.
type piece struct {
	text      string
	openLeft  bool
	openRight bool
	gap       int
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

// expand multiplies out the alternatives in braces.
func expand(phrase string) ([]string, error) {
	open := strings.IndexByte(phrase, '{')
	if open < 0 {
		if strings.IndexByte(phrase, '}') >= 0 {
			return nil, errors.New("'}' without '{'; write {a|b}")
		}
		return []string{phrase}, nil
	}
	size := strings.IndexByte(phrase[open:], '}')
	if size < 0 {
		return nil, errors.New("'{' without '}'; write {a|b}")
	}
	inner := phrase[open+1 : open+size]
	if strings.IndexByte(inner, '{') >= 0 {
		return nil, errors.New("braces inside braces; write the alternatives out")
	}
	tails, err := expand(phrase[open+size+1:])
	if err != nil {
		return nil, err
	}
	var all []string
	for alt := range strings.SplitSeq(inner, "|") {
		for _, tail := range tails {
			all = append(all, phrase[:open]+alt+tail)
		}
	}
	if len(all) > maxVariants {
		return nil, fmt.Errorf("expands to more than %d variants; split it", maxVariants)
	}
	return all, nil
}

// parseVariant cuts a flat phrase at its gaps.
func parseVariant(flat string) ([]piece, error) {
	var pieces []piece
	gap, from := 0, 0
	words := strings.Fields(flat)
	for i := 0; i <= len(words); i++ {
		if i < len(words) && words[i] != "*" && words[i] != "..." {
			continue
		}
		p, err := newPiece(strings.Join(words[from:i], " "))
		if err != nil {
			return nil, err
		}
		p.gap = gap
		pieces = append(pieces, p)
		if i < len(words) {
			gap = nearGap
			if words[i] == "..." {
				gap = anyGap
			}
		}
		from = i + 1
	}
	return pieces, nil
}

// newPiece normalises one literal.
func newPiece(text string) (piece, error) {
	var p piece
	if t, ok := strings.CutPrefix(text, "~"); ok {
		p.openLeft, text = true, t
	}
	if t, ok := strings.CutSuffix(text, "~"); ok {
		p.openRight, text = true, t
	}
	if strings.IndexByte(text, '~') >= 0 {
		return p, errors.New("'~' may only stand at the start or end of a literal; use a gap '*'")
	}
	p.text = Normalise(text)
	if p.text == "" {
		return p, errors.New("an empty literal matches everything; give it a word")
	}
	return p, nil
}
