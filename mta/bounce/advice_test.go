package bounce

import "testing"

// What stands around a refusal in logs and bounces, advice and the command it
// answers, does not make another mailbox of it: an unknown user stays one.
func TestAdviceChangesNothing(t *testing.T) {
	table := Default()
	var unknown []string
	for _, s := range loadSamples(t) {
		if v := table.Qualify(Input{Reply: ParseReply(s.reply)}); v.Code == CodeInvalidRecipient {
			unknown = append(unknown, s.reply)
		}
	}
	for _, advice := range []string{
		" (in reply to RCPT TO command)",
		" (in reply to end of DATA command)",
		" - for more information see https://postmaster.example.com/errors?c=5",
		" [mx3.example.com]",
		" (state 14).",
		" Please contact the administrator.",
		" Please try a different address or contact your system administrator.",
		" Please contact your mail server administrator or your service provider.",
		" Please check your address book and try again.",
		" Giving up on 192.0.2.1.",
	} {
		changed := 0
		for _, reply := range unknown {
			if v := table.Qualify(Input{Reply: ParseReply(reply + advice)}); v.Code != CodeInvalidRecipient {
				changed++
				t.Logf("code %d by %s: %s", v.Code, v.Rule, reply+advice)
			}
		}
		if percent(changed, len(unknown)) > 3 {
			t.Errorf("%d of %d change with %q", changed, len(unknown), advice)
		}
	}
}
