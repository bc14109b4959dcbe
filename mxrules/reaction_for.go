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

// OfMessage is the reaction about its message, or its delivery, that a reply meets: the
// first that fits the reply, of those about the path only if it has an effect there.
func (r *Reactions) OfMessage(e Evidence) (Reaction, bool) {
	if r == nil || e.ReplyCode() < 400 {
		return Reaction{}, false
	}
	for i := range r.list {
		if one := &r.list[i]; one.fits(&e) && (one.Do.OfMessage() || e.Effect != EffectNone) {
			return *one, one.Do.OfMessage()
		}
	}
	return Reaction{}, false
}

// Covers reports whether every reply that o fits is fitted by r, too, so that o behind r
// never follows.
func (r *Reaction) Covers(o Reaction) bool {
	if o.Do.OfMessage() && !r.Do.OfMessage() {
		return false // o follows replies that say nothing about the path, too
	}
	return (r.Tag == "" || r.Tag == o.Tag) && (r.Text == "" || contains(o.Text, r.Text))
}

// Trigger is when the reaction follows, as a rule file writes it: "first" or "3 in 1m".
func (r *Reaction) Trigger() string { return r.trigger() }
