package rulefile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mxrules"
)

const boundsKeys = "start, low, high"

// bounded reads "{start: ..., low: ..., high: ...}" of a field that is learned.
func (p *parser) bounded(r *mxrules.Rule, f mxrules.Field, node *yaml.Node) {
	before := p.errs.count()
	given := map[string]bool{}
	ok := p.mapping(node, f.String(), func(key string, value *yaml.Node) bool {
		if key != "start" && key != "low" && key != "high" {
			return false
		}
		given[key] = true
		s, ok := p.text(value, key)
		if !ok {
			return true
		}
		if s == "unlimited" && key != "high" {
			p.addf(value, "%s: %s cannot be unlimited; leave it out", f, key)
		} else if err := setBound(&r.Limits, f, key, s); err != nil {
			p.addf(value, "%s: %s: %v", f, key, err)
		}
		return true
	}, boundsKeys)
	if !ok || p.errs.count() > before {
		return
	}
	if !given["high"] {
		p.addf(node, "%s: high is missing; give the hard limit, or unlimited", f)
		return
	}
	p.finish(r, f, node)
}

// finish checks a field that was read, and marks it as set.
func (p *parser) finish(r *mxrules.Rule, f mxrules.Field, node *yaml.Node) {
	if err := r.Limits.Check(f); err != nil {
		p.addf(node, "%s: %v", f, err)
		return
	}
	r.Set = r.Set.With(f)
	r.Pos[f] = p.position(node)
}

// setBound gives one bound of a learned field the value that s means.
func setBound(l *mxrules.Limits, f mxrules.Field, key, s string) (err error) {
	if key == "high" {
		return set(l, f, s)
	}
	switch b := &l.Bounds; f {
	case mxrules.FieldConnections:
		err = setCount(key, s, &b.ConnectionsStart, &b.ConnectionsLow)
	case mxrules.FieldMessagesPerConnection:
		err = setCount(key, s, &b.MessagesPerConnectionStart, &b.MessagesPerConnectionLow)
	case mxrules.FieldConnectionRate:
		err = setRate(key, s, &b.ConnectionRateStart, &b.ConnectionRateLow)
	case mxrules.FieldMessageRate:
		err = setRate(key, s, &b.MessageRateStart, &b.MessageRateLow)
	}
	return err
}

func setCount(key, s string, start, low *int) (err error) {
	to := start
	if key == "low" {
		to = low
	}
	*to, err = count(s)
	return err
}

func setRate(key, s string, start, low *mxrules.Rate) (err error) {
	to := start
	if key == "low" {
		to = low
	}
	*to, err = mxrules.ParseRate(s)
	return err
}

// learned reports whether a field may have bounds.
func learned(f mxrules.Field) bool {
	switch f {
	case mxrules.FieldConnections, mxrules.FieldMessagesPerConnection, mxrules.FieldConnectionRate, mxrules.FieldMessageRate:
		return true
	}
	return false
}

const reactionKeys = "tag, text, trigger, do, for"

// reactions reads the list of a rule's reactions.
func (p *parser) reactions(r *mxrules.Rule, node *yaml.Node) {
	before := p.errs.count()
	var list []mxrules.Reaction
	for _, item := range p.list(node, "reactions") {
		reaction, ok := p.reaction(item)
		if !ok {
			continue
		}
		if err := reaction.Check(); err != nil {
			p.addf(item, "reactions: %v", err)
		}
		list = append(list, reaction)
	}
	if p.errs.count() > before {
		return
	}
	set, err := mxrules.NewReactions(list)
	if err != nil {
		p.addf(node, "%v", err)
		return
	}
	r.Limits.Reactions = set
	p.finish(r, mxrules.FieldReactions, node)
}

func (p *parser) reaction(node *yaml.Node) (r mxrules.Reaction, ok bool) {
	done := false
	ok = p.mapping(node, "reaction", func(key string, value *yaml.Node) bool {
		s, read := "", false
		switch key {
		case "tag", "text", "trigger", "do", "for":
			s, read = p.text(value, key)
		default:
			return false
		}
		if !read {
			return true
		}
		var err error
		switch key {
		case "tag":
			r.Tag = s
		case "text":
			r.Text = s
		case "trigger":
			r.Count, r.Within, err = trigger(s)
		case "do":
			done = true
			r.Do, err = mxrules.ParseDo(s)
		case "for":
			r.For, err = timeout(s)
		}
		if err != nil {
			p.addf(value, "%s: %v", key, err)
			ok = false
		}
		return true
	}, reactionKeys)
	if ok && !done {
		p.addf(node, "a reaction without do; give nothing, slow, fewer_connections, fewer_messages, rest, step_back, hold_delivery or retry_soon")
		return r, false
	}
	return r, ok
}

// trigger reads "first" or "COUNT in DURATION".
func trigger(s string) (count int, within time.Duration, err error) {
	if s == "first" {
		return 0, 0, nil
	}
	n, d, found := strings.Cut(s, " in ")
	if found {
		count, err = strconv.Atoi(strings.TrimSpace(n))
		if err == nil {
			within, err = time.ParseDuration(strings.TrimSpace(d))
		}
	}
	if !found || err != nil || count < 1 {
		return 0, 0, fmt.Errorf(`%.40q is not a trigger; write first, or "5 in 60s"`, s)
	}
	return count, within, nil
}
