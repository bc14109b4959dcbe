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

// phases tells the phase from how mail systems name the command that was
// answered. The last match in the text wins: transcripts end with what failed.
var phases = []struct {
	pattern *regexp.Regexp
	phase   smtpc.Phase
}{
	{regexp.MustCompile(`(?i)after (?:initial connection|connect)|initial connection|while (?:performing the )?initial (?:protocol )?(?:greeting|connection)`), smtpc.PhaseGreeting},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|\bour) (?:ehlo|helo)\b|\[(?:EHLO|HELO)\]`), smtpc.PhaseEHLO},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|\bour|>>>) mail[ _]?(?:from)?\b|\(mail from\b|\[MAIL_?FROM\]|sender was rejected`), smtpc.PhaseMAIL},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|\bour|>>>) rcpt[ _]?(?:to)?\b|\(rcpt to\b|\[RCPT_?TO\]|smtp:rcpt|does not like recipient`), smtpc.PhaseRCPT},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|\bour|>>>) (?:end of )?data\b|final data|(?:after|to|for) (?:the )?end of data|\[BODY\]|after i sent the message|for text command|>>> \.`), smtpc.PhaseEndOfData},
}

func phaseOf(text string) smtpc.Phase {
	best, at := smtpc.PhaseNone, -1
	for _, p := range phases {
		all := p.pattern.FindAllStringIndex(text, 20)
		if len(all) == 0 {
			continue
		}
		if last := all[len(all)-1][0]; last > at || last == at && p.phase == smtpc.PhaseEndOfData {
			best, at = p.phase, last
		}
	}
	return best
}
