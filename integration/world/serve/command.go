package serve

import (
	"errors"
	"strconv"
	"strings"
)

// command is one SMTP command line, split at its verb.
type command struct {
	verb string // upper case
	arg  string
}

// parseCommand splits a line without its line end (RFC 5321 section 4.1.1).
func parseCommand(line string) (command, error) {
	verb, arg, _ := strings.Cut(line, " ")
	if len(verb) < 4 || len(verb) > 8 {
		return command{}, errors.New("no command")
	}
	for i := range len(verb) {
		if c := verb[i] | 0x20; c < 'a' || c > 'z' {
			return command{}, errors.New("no command")
		}
	}
	return command{verb: strings.ToUpper(verb), arg: strings.Trim(arg, " ")}, nil
}

// envelope is the argument of MAIL or RCPT.
type envelope struct {
	address string
	size    int64
	eight   bool // BODY=8BITMIME
	utf8    bool // SMTPUTF8
}

// pathError is a refusal of an argument, with the codes to answer.
type pathError struct {
	code           int
	enhanced, text string
}

func (e *pathError) Error() string { return e.text }

var errSyntax = &pathError{501, "5.5.4", "Syntax error in parameters or arguments"}

// parseEnvelope reads "FROM:<path> params" or "TO:<path> params". Nothing may
// stand between the colon and the path (RFC 5321 section 3.3).
func parseEnvelope(arg, keyword string) (envelope, error) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return envelope{}, errSyntax
	}
	address, rest, ok := cutPath(arg[len(keyword):])
	if !ok {
		return envelope{}, errSyntax
	}
	e := envelope{address: address}
	for _, param := range strings.Fields(rest) {
		if err := e.set(param); err != nil {
			return envelope{}, err
		}
	}
	if !e.utf8 && !isASCII(address) && keyword == "FROM:" {
		return envelope{}, &pathError{550, "5.6.7", "Non-ASCII address without SMTPUTF8"}
	}
	return e, nil
}

// cutPath takes "<address>" off the front of s. A quoted local part may hold any
// printable character.
func cutPath(s string) (address, rest string, ok bool) {
	if s == "" || s[0] != '<' {
		return "", "", false
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return "", "", false
		case quoted && c == '\\' && i+1 < len(s):
			i++
			if s[i] < ' ' || s[i] == 0x7f {
				return "", "", false
			}
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ' ' || c == '<':
			return "", "", false
		case c == '>':
			rest = s[i+1:]
			return s[1:i], rest, i <= maxPath && (rest == "" || rest[0] == ' ')
		}
	}
	return "", "", false
}

// maxPath is RFC 5321 section 4.5.3.1's 64 + 1 + 255 octets.
const maxPath = 320

// set applies one MAIL or RCPT parameter.
func (e *envelope) set(param string) error {
	key, value, _ := strings.Cut(param, "=")
	switch strings.ToUpper(key) {
	case "SIZE": // RFC 1870
		n, err := strconv.ParseUint(value, 10, 62)
		if err != nil {
			return errSyntax
		}
		e.size = int64(n)
	case "BODY": // RFC 6152
		switch strings.ToUpper(value) {
		case "8BITMIME":
			e.eight = true
		case "7BIT":
		default:
			return errSyntax
		}
	case "SMTPUTF8": // RFC 6531
		e.utf8 = true
	default:
		return &pathError{555, "5.5.4", "Unsupported option: " + printable(key)}
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// printable keeps a client's words from breaking a reply line.
func printable(s string) string {
	if len(s) > 60 {
		s = s[:60]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
