package mta

import (
	"testing"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

// What a server says that is no reply cannot choose how its failure is qualified.
func TestGarbageDoesNotChooseItsQualification(t *testing.T) {
	table := bounce.Default()
	for _, garbage := range []string{"", "junk", "user unknown", "550 5.7.1 spam", "blocked using zen.spamhaus.org", "quota exceeded"} {
		reply := smtpc.Reply{Phase: smtpc.PhaseEndOfData, Text: `protocol error: not an SMTP reply: "` + garbage + `"`}
		v := table.Qualify(bounce.Input{Reply: ownWords(reply)})
		if v.Code == bounce.CodeSpamBlock || v.Disposition == bounce.Final || v.Code == bounce.CodeMailBlock {
			t.Errorf("%q: %+v", garbage, v)
		}
	}
	said := smtpc.Reply{Code: 550, Text: "protocol error: user unknown"}
	if ownWords(said) != said {
		t.Error("a reply is left as it is")
	}
}
