package bounce

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds the bytes of a reply that are looked at. RFC 5321 section
// 4.5.3.1.5 allows 512 per line; the meaning stands in the first few lines.
const maxText = 4096

// maxWord is the length above which letters are no word but an id.
const maxWord = 30

// maxURLWords bounds the words kept of a known help page's address.
const maxURLWords = 8

// Normalise brings a reply's text into the form that rules see: lower case,
// accents folded, punctuation dropped, words separated by one space, and what
// varies from mail to mail replaced by a mask: <addr>, <ip>, <host>, <url>,
// <time>, <n> and <id>. Enhanced status codes, receivers' own error codes
// ("s3140", "ofr_506") and the names of well-known block lists and providers
// stay. At most the first 4096 bytes are considered. It never fails.
func Normalise(text string) string {
	return string(appendNormal(make([]byte, 0, len(text)+16), text))
}

// appendNormal appends the normal form of text to dst.
func appendNormal(dst []byte, text string) []byte {
	if len(text) > maxText {
		text = text[:maxText]
	}
	start := len(dst)
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '<':
			if m := maskAt(text[i:]); m != "" {
				dst = appendWord(dst, start, m)
				i += len(m)
				continue
			}
			i++
		case isRunByte(c):
			end := runEnd(text, i)
			dst = appendRun(dst, start, text[i:end])
			i = end
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := decode(text[i:])
			if !isWordRune(r) {
				i += size
				continue
			}
			end := runEnd(text, i)
			dst = appendRun(dst, start, text[i:end])
			i = end
		}
	}
	if n := len(dst); n > start && dst[n-1] == ' ' {
		dst = dst[:n-1]
	}
	return dst
}

var masks = [...]string{"<addr>", "<ip>", "<host>", "<url>", "<time>", "<n>", "<id>"}

// maskAt returns the mask that s begins with, so that a normal form is its own
// normal form and phrases of rules may name masks.
func maskAt(s string) string {
	for _, m := range masks {
		if strings.HasPrefix(s, m) {
			return m
		}
	}
	return ""
}

const (
	classLetter = 1 << iota
	classDigit
	classJoiner // may stand inside a run: addresses, URLs, hosts, ids
)

var byteClass = func() (t [256]uint8) {
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-32] = classLetter, classLetter
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = classDigit
	}
	for _, c := range []byte(".-_@:/=#+%&?'") {
		t[c] = classJoiner
	}
	return t
}()

func isAlnum(c byte) bool   { return byteClass[c]&(classLetter|classDigit) != 0 }
func isDigit(c byte) bool   { return byteClass[c]&classDigit != 0 }
func isLetter(c byte) bool  { return byteClass[c]&classLetter != 0 }
func isRunByte(c byte) bool { return byteClass[c] != 0 }

// isWordRune reports a rune above ASCII that belongs to a word.
func isWordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsMark(r) || r == '’'
}

// decode returns the first rune of s; a byte that is not UTF-8 is read as Latin-1,
// which old servers still send.
func decode(s string) (rune, int) {
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 {
		return rune(s[0]), 1
	}
	return r, size
}

// runEnd returns the end of the run that starts at i.
func runEnd(text string, i int) int {
	for i < len(text) {
		if text[i] < utf8.RuneSelf {
			if !isRunByte(text[i]) {
				return i
			}
			i++
			continue
		}
		r, size := decode(text[i:])
		if !isWordRune(r) {
			return i
		}
		i += size
	}
	return i
}

// appendRun appends one run of word bytes and joiners, masked as a whole when
// it is an address, a URL, a time or a host, and word by word otherwise.
func appendRun(dst []byte, start int, run string) []byte {
	run = trimJoiners(run)
	if run == "" {
		return dst
	}
	if len(run) <= maxWord && isLetters(run) {
		return appendLower(dst, start, run)
	}
	has := marksOf(run)
	if has.slash || has.dot {
		if dst, ok := appendURL(dst, start, run); ok {
			return dst
		}
	}
	switch {
	case has.at:
		return appendAddress(dst, start, run)
	case has.colon && has.digit && isIPv6(run):
		return appendWord(dst, start, "<ip>")
	case has.digit && isTime(run):
		return appendWord(dst, start, "<time>")
	}
	if has.dot && !has.slash {
		if host := cutPort(run); isHost(host) {
			return appendHost(dst, start, host)
		}
	}
	return appendAtoms(dst, start, run)
}

// marks are the bytes that tell what a run may be.
type marks struct{ at, slash, colon, dot, digit bool }

func marksOf(run string) (m marks) {
	for i := 0; i < len(run); i++ {
		switch c := run[i]; {
		case c == '@':
			m.at = true
		case c == '/':
			m.slash = true
		case c == ':':
			m.colon = true
		case c == '.':
			m.dot = true
		case isDigit(c):
			m.digit = true
		}
	}
	return m
}

// cutPort returns the host of "host:25".
func cutPort(run string) string {
	if i := strings.IndexByte(run, ':'); i > 0 && isDigits(run[i+1:]) {
		return run[:i]
	}
	return run
}

// trimJoiners cuts joiners from both ends.
func trimJoiners(run string) string {
	for run != "" && byteClass[run[0]] == classJoiner {
		run = run[1:]
	}
	for run != "" && byteClass[run[len(run)-1]] == classJoiner {
		run = run[:len(run)-1]
	}
	return run
}

// appendAddress masks the address in run and keeps what colons part from it
// ("to:user@...", "user@...:blocked").
func appendAddress(dst []byte, start int, run string) []byte {
	at := strings.IndexByte(run, '@')
	if i := strings.LastIndexByte(run[:at], ':'); i > 0 {
		dst = appendAtoms(dst, start, run[:i])
	}
	dst = appendWord(dst, start, "<addr>")
	if i := strings.IndexByte(run[at:], ':'); i > 0 {
		dst = appendAtoms(dst, start, run[at+i:])
	}
	return dst
}

// appendURL masks a URL. Of a well-known help page the site's name and the
// plain words of the path stay: they are the receiver's own error names.
func appendURL(dst []byte, start int, run string) ([]byte, bool) {
	i := strings.Index(run, "://")
	rest := ""
	switch {
	case i >= 0:
		if i > 5 {
			dst = appendAtoms(dst, start, run[:i-5])
		}
		rest = run[i+3:]
	case len(run) > 4 && strings.EqualFold(run[:4], "www."):
		rest = run
	default:
		j := strings.IndexByte(run, '/')
		if j < 0 || !isHost(run[:j]) {
			return dst, false
		}
		rest = run
	}
	dst = appendWord(dst, start, "<url>")
	end := strings.IndexAny(rest, "/:?#")
	if end < 0 {
		end = len(rest)
	}
	name := knownSite(rest[:end])
	if name == "" {
		return dst, true
	}
	dst = appendWord(dst, start, name)
	return appendURLWords(dst, start, rest[end:]), true
}

// appendURLWords appends the words and error codes of a known site's path.
func appendURLWords(dst []byte, start int, path string) []byte {
	words := 0
	for i := 0; i < len(path) && words < maxURLWords; {
		j := i
		for j < len(path) && isAlnum(path[j]) {
			j++
		}
		if atom := path[i:j]; len(atom) >= 3 && len(atom) <= 32 && (isLetters(atom) || isErrorCode(atom)) {
			dst = appendLower(dst, start, atom)
			words++
		}
		i = j + 1
	}
	return dst
}

// appendHost masks a host name, or keeps the registrable name of a known site.
func appendHost(dst []byte, start int, host string) []byte {
	if name := knownSite(host); name != "" {
		return appendWord(dst, start, name)
	}
	return appendWord(dst, start, "<host>")
}

// appendAtoms appends the words of a run that is no address, URL or host.
// Error codes keep their joiner: "ofr_506", "aup#1310", "rp-001".
func appendAtoms(dst []byte, start int, run string) []byte {
	prev := "" // letters directly before a joiner
	for i := 0; i < len(run); {
		if isSplit(run[i]) {
			if run[i] != '_' && run[i] != '-' && run[i] != '#' || i > 0 && isSplit(run[i-1]) {
				prev = ""
			}
			i++
			continue
		}
		j := i
		for j < len(run) && !isSplit(run[j]) {
			j++
		}
		atom := trimDots(run[i:j])
		switch {
		case prev != "" && isDigits(atom) && len(atom) <= 4:
			dst = append(dst, run[i-1])
			dst = append(dst, atom...)
			prev = ""
		case atom != "":
			dst = appendAtom(dst, start, atom)
			prev = ""
			if len(atom) <= 6 && isLetters(atom) || isErrorCode(atom) {
				prev = atom
			}
		}
		i = j
	}
	return dst
}

func trimDots(s string) string {
	for s != "" && s[0] == '.' {
		s = s[1:]
	}
	for s != "" && s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	return s
}

// isSplit reports a joiner that separates words; a dot and an apostrophe are
// looked at later.
func isSplit(c byte) bool {
	return c != '.' && c != '\'' && byteClass[c]&classJoiner != 0
}

// appendAtom appends one atom: a status code, an IP, a host, or words.
func appendAtom(dst []byte, start int, atom string) []byte {
	if strings.IndexByte(atom, '.') >= 0 {
		switch {
		case isStatus(atom):
			return appendWord(dst, start, atom)
		case isIPv4(atom):
			return appendWord(dst, start, "<ip>")
		case isHost(atom):
			return appendHost(dst, start, atom)
		}
		for part := range strings.SplitSeq(atom, ".") {
			dst = appendPlain(dst, start, part)
		}
		return dst
	}
	return appendPlain(dst, start, atom)
}

// appendPlain appends a word without joiners, or its mask.
func appendPlain(dst []byte, start int, word string) []byte {
	if word == "" {
		return dst
	}
	letters, digits, high := 0, 0, 0
	for i := 0; i < len(word); i++ {
		switch c := word[i]; {
		case isDigit(c):
			digits++
		case isLetter(c):
			letters++
		case c >= utf8.RuneSelf:
			high++
		}
	}
	switch {
	case high > 0:
		return appendFolded(dst, start, word)
	case digits == 0 && letters > maxWord:
		return appendWord(dst, start, "<id>")
	case digits == 0:
		return appendQuoted(dst, start, word)
	case letters == 0 || isQuantity(word):
		return appendWord(dst, start, "<n>")
	case isErrorCode(word) || isBits(word):
		return appendLower(dst, start, word)
	}
	return appendWord(dst, start, "<id>")
}

// appendQuoted appends a word that may hold apostrophes: "doesn't" becomes
// "doesnt", "l'adresse" two words.
func appendQuoted(dst []byte, start int, word string) []byte {
	q := strings.IndexByte(word, '\'')
	if q < 0 {
		return appendLower(dst, start, word)
	}
	head, tail := word[:q], word[q+1:]
	if head == "" {
		return appendQuoted(dst, start, tail)
	}
	dst = appendLower(dst, start, head)
	if tail == "" {
		return dst
	}
	if isContraction(tail) {
		return appendRaw(dst, tail)
	}
	return appendQuoted(dst, start, tail)
}

// isContraction reports the English endings that are written together.
func isContraction(s string) bool {
	return len(s) == 1 && (s[0]|0x20 == 't' || s[0]|0x20 == 's') || strings.EqualFold(s, "re") || strings.EqualFold(s, "ve")
}

// firstIdeograph begins the scripts that are written without spaces: radicals,
// kana, Han and Hangul follow it.
const firstIdeograph = 0x2E80

// appendFolded appends a word with letters above ASCII: lower case, Latin
// accents folded. Words of scripts without spaces stay as they are, parted from
// Latin ones and from numbers.
func appendFolded(dst []byte, start int, word string) []byte {
	dst = appendSpace(dst, start)
	mark, last := len(dst), kindWord
	for i := 0; i < len(word); {
		r, size := decode(word[i:])
		kind := kindOf(r)
		if i > 0 && (kind != last || kind == kindQuote) {
			dst = finishFolded(dst, start, mark)
			dst = appendSpace(dst, start)
			mark = len(dst)
		}
		last = kind
		i += size
		switch {
		case kind == kindQuote || unicode.Is(unicode.Mn, r):
		case r < utf8.RuneSelf:
			dst = append(dst, lowerByte(byte(r)))
		case r < 0x180:
			dst = append(dst, latinFold[r]...)
		case r == 'ё' || r == 'Ё':
			dst = append(dst, "е"...)
		default:
			dst = utf8.AppendRune(dst, unicode.ToLower(r))
		}
	}
	return finishFolded(dst, start, mark)
}

// The kinds of runes that words are parted at.
const (
	kindWord  = iota // of scripts with spaces, with digits
	kindWide         // of scripts without
	kindQuote        // an apostrophe
)

func kindOf(r rune) int {
	switch {
	case r >= firstIdeograph:
		return kindWide
	case r == '\'' || r == '’' || r == 'ʼ':
		return kindQuote
	}
	return kindWord
}

// finishFolded masks the word that stands behind mark where folding made it one that
// is masked.
func finishFolded(dst []byte, start, mark int) []byte {
	word := dst[mark:]
	ascii, digits := true, false
	for _, c := range word {
		ascii = ascii && c < utf8.RuneSelf
		digits = digits || isDigit(c)
	}
	switch {
	case !digits && (!ascii || len(word) <= maxWord):
		return dst
	case ascii:
		return appendPlain(dst[:mark], start, string(word))
	}
	return partDigits(dst, start, mark)
}

// partDigits masks the numbers in a word with letters above ASCII: "5мин" becomes "<n> мин".
func partDigits(dst []byte, start, mark int) []byte {
	word := string(dst[mark:])
	dst = dst[:mark]
	for i := 0; i < len(word); {
		j := i
		for j < len(word) && isDigit(word[j]) == isDigit(word[i]) {
			j++
		}
		if part := word[i:j]; isDigit(part[0]) {
			dst = appendWord(dst, start, "<n>")
		} else {
			dst = append(appendSpace(dst, start), part...)
		}
		i = j
	}
	return dst
}

// latinFold maps Latin-1 and Latin Extended-A letters to ASCII.
var latinFold = func() (t [0x180]string) {
	for base, runes := range map[string]string{
		"a": "ÀÁÂÃÄÅàáâãäåĀāĂăĄąª", "ae": "Ææ", "c": "ÇçĆćĈĉĊċČč", "d": "ÐðĎďĐđ", "e": "ÈÉÊËèéêëĒēĔĕĖėĘęĚě",
		"g": "ĜĝĞğĠġĢģ", "h": "ĤĥĦħ", "i": "ÌÍÎÏìíîïĨĩĪīĬĭĮįİı", "j": "Ĵĵ", "k": "Ķķĸ", "l": "ĹĺĻļĽľĿŀŁł",
		"n": "ÑñŃńŅņŇňŊŋ", "o": "ÒÓÔÕÖØòóôõöøŌōŎŏŐőº", "oe": "Œœ", "r": "ŔŕŖŗŘř", "s": "ŚśŜŝŞşŠšſ", "ss": "ß",
		"t": "ŢţŤťŦŧ", "th": "Þþ", "u": "ÙÚÛÜùúûüŨũŪūŬŭŮůŰűŲųµ", "w": "Ŵŵ", "y": "ÝýÿŶŷŸ", "z": "ŹźŻżŽž",
	} {
		for _, r := range runes {
			t[r] = base
		}
	}
	return t
}()

// appendWord appends a word that is already normal.
func appendWord(dst []byte, start int, word string) []byte {
	return append(appendSpace(dst, start), word...)
}

// appendLower appends an ASCII word in lower case. "e-mail" and "e mail" become "email".
func appendLower(dst []byte, start int, word string) []byte {
	if n := len(dst); n > start && dst[n-1] == 'e' && (n == start+1 || dst[n-2] == ' ') && len(word) >= 4 && strings.EqualFold(word[:4], "mail") {
		return appendRaw(dst, word)
	}
	return appendRaw(appendSpace(dst, start), word)
}

func appendRaw(dst []byte, word string) []byte {
	for i := 0; i < len(word); i++ {
		dst = append(dst, lowerByte(word[i]))
	}
	return dst
}

// appendSpace separates the next word from the last.
func appendSpace(dst []byte, start int) []byte {
	if len(dst) > start && dst[len(dst)-1] != ' ' {
		dst = append(dst, ' ')
	}
	return dst
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
