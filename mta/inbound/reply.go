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
	from := 0
	if said := saidPattern.FindStringIndex(text); said != nil {
		from = said[1]
	}
	m := replyPattern.FindStringSubmatchIndex(text[from:])
	if m == nil && from > 0 {
		from = 0
		m = replyPattern.FindStringSubmatchIndex(text)
	}
	if m != nil {
		r.Code, _ = strconv.Atoi(text[from+m[2] : from+m[3]])
		if s := statusPattern.FindStringSubmatchIndex(text[from+m[2]:]); s != nil {
			r.Enhanced = text[from+m[2]+s[2] : from+m[2]+s[3]]
		}
	}
	if r.Enhanced == "" {
		r.Enhanced = findStatus(text)
	}
	return r
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
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|our) (?:ehlo|helo)\b|\[(?:EHLO|HELO)\]`), smtpc.PhaseEHLO},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|our|>>>) mail[ _]?(?:from)?\b|\(mail from\b|\[MAIL_?FROM\]|sender was rejected`), smtpc.PhaseMAIL},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|our|>>>) rcpt[ _]?(?:to)?\b|\(rcpt to\b|\[RCPT_?TO\]|smtp:rcpt|does not like recipient`), smtpc.PhaseRCPT},
	{regexp.MustCompile(`(?i)(?:(?:reply|response) to|after|for|our|>>>) (?:end of )?data\b|final data|(?:after|to|for) (?:the )?end of data|\[BODY\]|after i sent the message|for text command|>>> \.`), smtpc.PhaseEndOfData},
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
