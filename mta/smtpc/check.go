package smtpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// check completes env from the message and refuses what must not or cannot go over
// this session; nil means that it may.
func (s *Session) check(env *Envelope, message []byte) *Reply {
	if err := checkPath(env.From, true); err != nil {
		return ours(501, "5.1.7", "return path %q %v", env.From, err)
	}
	if err := checkPath(env.To, false); err != nil {
		return ours(501, "5.1.3", "recipient %q %v", env.To, err)
	}
	if err := checkLines(message); err != nil {
		return ours(554, "5.6.0", "%v", err)
	}
	env.Size = max(env.Size, int64(len(message)))
	env.EightBit = env.EightBit || !isSevenBit(message)
	env.UTF8 = env.UTF8 || !isSevenBit([]byte(env.From)) || !isSevenBit([]byte(env.To))
	switch {
	case s.ext.maxSize > 0 && env.Size > s.ext.maxSize: // RFC 1870 section 6.1
		return ours(552, "5.3.4", "message of %d octets, the server announced a limit of %d", env.Size, s.ext.maxSize)
	case env.UTF8 && !s.ext.utf8: // RFC 6531 section 3.5
		return ours(550, "5.6.7", "message needs SMTPUTF8, which the server does not offer")
	case env.EightBit && !s.ext.eightBit: // RFC 6152 section 3
		return ours(554, "5.6.3", "message needs 8BITMIME, which the server does not offer")
	}
	return nil
}

// ours is a refusal that no server said.
func ours(code int, enhanced, format string, args ...any) *Reply {
	text := "refused by the sender before MAIL: " + fmt.Sprintf(format, args...)
	return &Reply{Phase: PhaseMAIL, Code: code, Enhanced: enhanced, Text: text}
}

// maxPath is the longest address in octets: 256 with its brackets (RFC 5321 section 4.5.3.1.3).
const maxPath = 254

// checkPath refuses what could end a path or a command line early. The grammar is
// the caller's; this is the last door before the wire.
func checkPath(path string, mayBeEmpty bool) error {
	if path == "" && mayBeEmpty {
		return nil
	}
	at := strings.LastIndexByte(path, '@')
	switch {
	case len(path) > maxPath:
		return fmt.Errorf("is longer than %d octets", maxPath)
	case at <= 0 || at == len(path)-1 || path[0] == '@':
		return fmt.Errorf("is not of the form local@domain")
	case !utf8.ValidString(path):
		return fmt.Errorf("is not valid UTF-8")
	}
	for _, r := range path {
		if r == '<' || r == '>' || r == ' ' || !unicode.IsPrint(r) {
			return fmt.Errorf("holds the character %q, which no envelope address may", r)
		}
	}
	return nil
}

// checkLines refuses an empty message and any CR or LF outside a CRLF (RFC 5321
// section 2.3.8), which some server would take for a line end and some not.
func checkLines(message []byte) error {
	if len(message) == 0 {
		return fmt.Errorf("the message is empty")
	}
	for at := 0; ; {
		line := message[at:]
		lf := bytes.IndexByte(line, '\n')
		if lf >= 0 {
			line = line[:lf]
		}
		cr := bytes.IndexByte(line, '\r')
		switch {
		case cr >= 0 && (lf < 0 || cr != lf-1):
			return fmt.Errorf("bare CR at octet %d of the message: give CRLF line ends", at+cr)
		case lf >= 0 && cr < 0:
			return fmt.Errorf("bare LF at octet %d of the message: give CRLF line ends", at+lf)
		case lf < 0:
			return nil
		}
		at += lf + 1
	}
}

// isSevenBit reports that no octet has its high bit set.
func isSevenBit(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
