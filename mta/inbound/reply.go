package inbound

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/veredus/veredus/mta/smtpc"
)

var (
	// statusPattern is an enhanced status code (RFC 3463) standing alone.
	statusPattern = regexp.MustCompile(`(?:^|[^0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|\.?$|\.\s)`)
	// replyPattern is a reply code (RFC 5321 section 4.2) followed by an enhanced
	// code or by words; a bare number in a sentence is not.
	replyPattern = regexp.MustCompile(`(?:^|[\s:;"'(\[<#,])([45][0-5][0-9])(?:[ \t-]+#?[245]\.[0-9]{1,3}\.[0-9]{1,3}|[ \t]*:|[ -][ \t]*[\pL<\[("'#*-]|\s*$)`)
	// saidPattern introduces what a server said.
	saidPattern = regexp.MustCompile(`(?i)(?:\bsaid:|<<<|\bserver returned (?:was|is):|error message:|\bresponse(?: was)?:|responded with(?: failure)?:|failed with:|\breason:|server message)`)
	// continuedPattern is the code that begins each line of a long reply.
	continuedPattern = regexp.MustCompile(`(?m)^[ \t]*[245][0-5][0-9]-(?:[245]\.[0-9]{1,3}\.[0-9]{1,3}[ \t]?)?`)
)

// readReply reads a diagnostic text as a reply: its codes, and the text as the
// bounce rules should see it.
func readReply(text string) smtpc.Reply {
	r := smtpc.Reply{Text: strings.TrimSpace(continuedPattern.ReplaceAllString(text, " ")), Phase: phaseOf(text)}
	if at := replyAt(text); at >= 0 {
		r.Code, _ = strconv.Atoi(text[at : at+3])
		r.Enhanced = findStatus(text[at+3:])
	}
	if r.Enhanced == "" {
		r.Enhanced = findStatus(text)
	}
	return r
}

// replyAt returns where in a text the reply of a server begins: at the first
// code behind words that introduce one, else at the first code; -1 if there is none.
func replyAt(text string) int {
	from := 0
	if said := saidPattern.FindStringIndex(text); said != nil {
		from = said[1]
	}
	for ; ; from = 0 {
		if m := replyPattern.FindStringSubmatchIndex(text[from:]); m != nil {
			return from + m[2]
		}
		if from == 0 {
			return -1
		}
	}
}

// reading is a text read as a reply: all of it, and what it quotes of a server
// alone (empty if nothing).
type reading struct{ quoted, whole smtpc.Reply }

// readings reads a text; an empty one gives none.
func readings(text string) []reading {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	r := reading{whole: readReply(text)}
	if at := replyAt(text); at > 0 {
		r.quoted = readReply(text[at:quoteEnd(text, at)])
		r.quoted.Phase = r.whole.Phase
		if r.quoted.Enhanced == "" {
			r.quoted.Enhanced = r.whole.Enhanced
		}
	}
	return []reading{r}
}

// quoteEnd returns where a quotation that begins at i ends: at the bracket that
// closes it, else at a blank line.
func quoteEnd(text string, i int) int {
	end := len(text)
	if blank := strings.Index(text[i:], "\n\n"); blank > 0 {
		end = i + blank
	}
	if text[i-1] == '[' {
		if bracket := strings.LastIndexByte(text[i:end], ']'); bracket > 0 {
			end = i + bracket
		}
	}
	return end
}

// findStatus returns the first enhanced status code in a text.
func findStatus(text string) string {
	if m := statusPattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// vague reports whether an enhanced status code says nothing but its class.
func vague(status string) bool {
	return status == "" || strings.HasSuffix(status, ".0.0")
}

// phaseWords tell the phase from how mail systems name the command that was answered.
var phaseWords = []struct {
	phase smtpc.Phase
	words []string
}{
	{smtpc.PhaseGreeting, []string{"initial connection", "after connect", "initial greeting", "initial protocol greeting"}},
	{smtpc.PhaseEHLO, []string{"reply to ehlo", "reply to helo", "response to ehlo", "response to helo", "after ehlo", "after helo", "for ehlo", "our ehlo", "[ehlo]", "[helo]"}},
	{smtpc.PhaseMAIL, []string{
		"reply to mail from", "response to mail", "reply to mail command", "after mail from", "after mail command", "for mail command", "for mail from",
		" our mail from", ">>> mail", "(mail from", "[mail_from]", "[mailfrom]", "sender was rejected",
	}},
	{smtpc.PhaseRCPT, []string{
		"reply to rcpt", "response to rcpt", "after rcpt", "for rcpt", " our rcpt", ">>> rcpt", "(rcpt to", "[rcpt_to]", "[rcptto]", "smtp:rcpt", "does not like recipient",
	}},
	{smtpc.PhaseEndOfData, []string{
		"reply to end of data", "response to end of data", "after end of data", "reply to data", "response to data", "after data", "for data command", "for end of data",
		" our data", " our final data", ">>> data", "[body]", "after i sent the message", "for text command", ">>> .",
	}},
}

// maxPhaseText is how much of a text is searched for its phase, in bytes.
const maxPhaseText = 4 << 10

// phaseOf tells the phase a text speaks of. The last mention wins: transcripts
// end with what failed.
func phaseOf(text string) smtpc.Phase {
	text = strings.ToLower(strings.Join(strings.Fields(clip(text, maxPhaseText)), " "))
	best, at := smtpc.PhaseNone, -1
	for _, p := range phaseWords {
		for _, w := range p.words {
			if i := lastIndex(text, w, at+1); i > at {
				best, at = p.phase, i
			}
		}
	}
	return best
}

// lastIndex is the last place of sub in s from position from on, -1 if there is
// none. It searches forwards, which costs far less than strings.LastIndex.
func lastIndex(s, sub string, from int) int {
	at := -1
	for from < len(s) {
		i := strings.Index(s[from:], sub)
		if i < 0 {
			break
		}
		at = from + i
		from = at + 1
	}
	return at
}
