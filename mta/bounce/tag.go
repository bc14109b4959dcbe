package bounce

// preset is what a tag means unless a rule says otherwise.
type preset struct {
	tag     string
	code    int
	address AddressEffect // for a 5xx; a 4xx counts at most
	path    PathEffect
	hold    Hold
	reason  Reason
	// final5xx ends the message at a 5xx although its code would be retried.
	final5xx bool
	// retry5xx keeps the message at a 5xx although its code would be final.
	retry5xx bool
	soon     bool
	// own marks a reason that differs from the code's.
	own bool
}

// presets gives every tag its bounce code and effects. Three blocks: the
// mailbox, the sender's standing, the way there.
var presets = []preset{
	{tag: "user_unknown", code: 10, address: AddressSuppress},
	{tag: "moved", code: 10, address: AddressSuppress},
	{tag: "access_denied", code: 10, address: AddressSuppress},
	{tag: "null_mx", code: 10, address: AddressSuppress},
	{tag: "mailbox_disabled", code: 10, address: AddressSuppress, own: true, reason: ReasonAccountDisabled},
	{tag: "mailbox_locked", code: 20, address: AddressCount, own: true, reason: ReasonAccountDisabled},
	{tag: "mailbox_full", code: 22, address: AddressCount},
	{tag: "domain_unknown", code: 21, address: AddressCount},
	{tag: "dns", code: 21},
	{tag: "rcpt_rate", code: 70},
	{tag: "recipient_refused", code: 50},
	{tag: "unsubscribe", code: 90},

	{tag: "ip_block", code: 51, path: PathRest},
	{tag: "domain_block", code: 51, path: PathRest},
	{tag: "reputation", code: 51, path: PathRest},
	{tag: "policy", code: 50, path: PathRest},
	{tag: "auth", code: 50, hold: HoldAuthentication, final5xx: true},
	{tag: "ptr", code: 50, path: PathRest},
	{tag: "sender_invalid", code: 50},
	{tag: "sender_refused", code: 50},
	{tag: "spam_content", code: 52, hold: HoldContent},
	{tag: "spam", code: 52, hold: HoldContent},
	{tag: "virus", code: 52, hold: HoldContent},
	{tag: "attachment", code: 53, hold: HoldContent},
	{tag: "rfc", code: 50, hold: HoldContent, final5xx: true},
	{tag: "too_large", code: 23},
	{tag: "relay_denied", code: 54},
	{tag: "login_required", code: 50, final5xx: true},
	{tag: "suppressed", code: 25},

	{tag: "rate_limit", code: 70, path: PathSlow},
	{tag: "connection_limit", code: 70, path: PathFewerConnections},
	{tag: "session_limit", code: 70, path: PathFewerMessages},
	{tag: "throttled", code: 70, path: PathRest},
	{tag: "greylist", code: 70, soon: true},
	{tag: "temp", code: 70},
	{tag: "network", code: 70},
	{tag: "timeout", code: 24},
	{tag: "system_error", code: 40},
	{tag: "loop", code: 40},
	{tag: "protocol", code: 40},
	{tag: "tls", code: 40, retry5xx: true, path: PathRest},
	{tag: "soft", code: 20},
	{tag: "auto_reply", code: 60},
	{tag: "challenge", code: 100},
	{tag: "no_rcpt", code: 30},
	{tag: "undetermined", code: 1, own: true, reason: ReasonUnreachable},
}

// lookupTag returns the preset of a tag.
func lookupTag(tag string) (preset, bool) {
	for _, p := range presets {
		if p.tag == tag {
			return p, true
		}
	}
	return preset{}, false
}

// presetForCode returns the plainest preset of a bounce code, for rules that
// give a code and no tag.
func presetForCode(code int) preset {
	plain := map[int]string{
		10: "user_unknown", 21: "domain_unknown", 22: "mailbox_full", 50: "policy", 51: "reputation",
		52: "spam_content", 40: "system_error", 54: "relay_denied", 70: "temp",
	}
	if p, ok := lookupTag(plain[code]); ok {
		return p
	}
	for _, p := range presets {
		if p.code == code {
			return p
		}
	}
	return preset{code: code}
}

// Tags are the tags that rules may use without naming a code, in the order of the documentation.
func Tags() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.tag
	}
	return names
}

// Gives reports whether the table's rules, or the codes below them, give a tag at all,
// and whether they ever take a reply with it for trouble of the path.
func (t *Table) Gives(tag string) (given, pathTrouble bool) {
	look := func(verdicts [3]Verdict) {
		for _, v := range verdicts {
			if v.Tag == tag {
				given, pathTrouble = true, pathTrouble || v.Path != PathNone
			}
		}
	}
	for i := range t.rules {
		look(t.rules[i].verdicts)
	}
	for _, verdicts := range t.statuses {
		look(verdicts)
	}
	look(t.fallback)
	return given, pathTrouble
}
