package mxrules

// For is the reaction that a reply with an effect on its path meets: the first that
// fits it, whether its trigger is met or not.
func (r *Reactions) For(e Evidence) (Reaction, bool) {
	if r == nil {
		return Reaction{}, false
	}
	for i := range r.list {
		if r.list[i].fits(&e) {
			return r.list[i], true
		}
	}
	return Reaction{}, false
}

// Trigger is when the reaction follows, as a rule file writes it: "first" or "3 in 1m".
func (r *Reaction) Trigger() string { return r.trigger() }
