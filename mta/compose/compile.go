package compose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/veredus/veredus/mta/address"
)

// Template is a compiled Source. It is only read after Compile; any number of
// goroutines may render it.
type Template struct {
	from        address.Address
	fromName    *fragment
	replyTo     *fragment
	toName      *fragment
	subject     *fragment
	text        *fragment
	html        *fragment
	body        *body
	raw         *rawMessage
	headers     []header
	listID      string
	unsubscribe *fragment
	hosted      bool
	mailto      *fragment
	feedbackID  string
	size        int            // octets to make room for, a guess
	names       []string       // what the templates read, sorted
	places      map[string]int // of names
	scopes      int            // how many fragments need a scope
	idle        *sync.Pool     // of *message
}

type header struct {
	name  string
	value *fragment
	fixed []byte // the whole field, if the value has no Liquid
}

// compiler collects what is wrong with a Source.
type compiler struct {
	problems []error
}

func (c *compiler) refuse(field, value, problem, remedy string) {
	c.problems = append(c.problems, fieldError(field, value, problem, remedy))
}

// Compile reads what a delivery says. The error joins everything wrong with it,
// each as a *FieldError: errors.Join's Unwrap() []error lists them.
func Compile(src Source) (*Template, error) {
	c := &compiler{}
	t := &Template{
		fromName:   c.template("from.name", src.From.Name, MaxHeaderValue),
		toName:     c.template("to_name", src.ToName, MaxHeaderValue),
		replyTo:    c.replyTo(src.ReplyTo),
		headers:    c.headers(src.Headers),
		feedbackID: c.feedbackID(src.FeedbackID),
	}
	if len(src.Raw) > 0 {
		if t.raw, t.from = c.raw(src); t.raw != nil {
			t.body = fixedBody(t.raw.body)
		}
	} else {
		t.from = c.from(src.From.Address)
		c.content(t, src)
	}
	t.listID = c.listID(src.ListID, t.from.Domain)
	c.unsubscribe(t, src)
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	if t.raw == nil {
		t.body = newBody(t.text, t.html, src)
	}
	t.size = headerRoom + t.body.size()
	t.link()
	return t, nil
}

// headerRoom is more than most headers need, in octets.
const headerRoom = 1536

// link gives the names that the fragments read their places, and makes of the
// template what all its messages share.
func (t *Template) link() {
	for _, f := range t.fragments() {
		for _, read := range f.reads {
			t.names = append(t.names, read.name)
		}
	}
	slices.Sort(t.names)
	t.names = slices.Compact(t.names)
	t.places = make(map[string]int, len(t.names))
	for i, name := range t.names {
		t.places[name] = i
	}
	for _, f := range t.fragments() {
		f.link(t)
	}
	for i, h := range t.headers {
		if value := h.value.cleaned; value != "" && len(value) <= MaxHeaderValue {
			t.headers[i].fixed = appendField(nil, h.name, value)
		}
	}
	t.idle = &sync.Pool{New: func() any { return newMessage(t) }}
}

func (f *fragment) link(t *Template) {
	if !f.isLiteral() {
		t.scopes++
		f.scope = t.scopes
	}
	for i := range f.reads {
		f.reads[i].slot = t.places[f.reads[i].name]
	}
	for i := range f.pieces {
		p := &f.pieces[i]
		if p.path != nil && p.path[0] == "forloop" {
			p.path = nil // nobody is asked for it
		}
		if p.path != nil {
			p.slot = t.places[p.path[0]]
		}
	}
}

// From returns the sender's address, whose domain the mail is signed for.
func (t *Template) From() address.Address { return t.from }

// Size returns about how many octets of memory the template holds.
func (t *Template) Size() int {
	n := 1024 + len(t.body.start)
	for i := range t.body.steps {
		n += t.body.steps[i].passage.size() + 256
	}
	for _, f := range t.fragments() {
		n += len(f.literal) + 512*len(f.outputs)
		for _, texts := range [...][]string{f.literals, f.static} {
			for _, text := range texts {
				n += len(text) + 256
			}
		}
	}
	if t.raw != nil {
		for _, field := range t.raw.fields {
			n += len(field.text) + 64
		}
	}
	return n
}

// Hosted reports whether the mail is unsubscribed from by the links of its Job (UnsubscribeHosted).
func (t *Template) Hosted() bool { return t.hosted }

// ListID returns the list's identifier in lower case, as lists compare; empty when there is none.
func (t *Template) ListID() string { return strings.ToLower(t.listID) }

// ListID returns what Template.ListID answers for a Source.ListID in mail from a domain, without
// compiling. It checks nothing.
func ListID(value, fromDomain string) string {
	return strings.ToLower(qualifiedListID(value, fromDomain))
}

// Variables returns the variables that the templates read, sorted, each with the
// properties that follow it: first_name, order.total. Names that templates
// define themselves are left out; so is what only evaluation can tell, such as
// the properties of a loop's items.
func (t *Template) Variables() []string {
	var names []string
	for _, f := range t.fragments() {
		names = append(names, f.paths...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (t *Template) fragments() []*fragment {
	all := []*fragment{t.fromName, t.toName, t.replyTo, t.subject, t.text, t.html, t.unsubscribe, t.mailto}
	for _, h := range t.headers {
		all = append(all, h.value)
	}
	return slices.DeleteFunc(all, func(f *fragment) bool { return f == nil })
}

// template compiles one field of the header; nil stands for an empty one.
func (c *compiler) template(field, src string, limit int) *fragment {
	return c.fragment(field, src, limit, false, false)
}

func (c *compiler) fragment(field, src string, limit int, html, body bool) *fragment {
	switch {
	case src == "":
		return nil
	case len(src) > limit:
		c.refuse(field, src, fmt.Sprintf("is %d octets long", len(src)), fmt.Sprintf("shorten it to %d", limit))
		return nil
	}
	f, err := compileFragment(field, src, html, body)
	var syntax *syntaxError
	switch {
	case errors.As(err, &syntax):
		c.refuse(field, lineOf(src, syntax.line), fmt.Sprintf("does not parse: line %d: %s", syntax.line, syntax.problem), syntax.remedy)
		return nil
	case err != nil:
		c.refuse(field, "", err.Error(), "correct the template")
		return nil
	}
	return f
}

// lineOf returns the n-th line of src, from 1, for an error message.
func lineOf(src string, n int) string {
	for line := range strings.Lines(src) {
		if n--; n <= 0 {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (c *compiler) from(value string) address.Address {
	if value == "" {
		c.refuse("from.address", "", "is missing", "give the sender's address")
		return address.Address{}
	}
	a, err := address.Parse(value)
	c.badAddress("from.address", err)
	return a
}

func (c *compiler) badAddress(field string, err error) {
	var bad *address.Error
	if errors.As(err, &bad) {
		c.refuse(field, bad.Value, bad.Problem, bad.Remedy)
	}
}

func (c *compiler) content(t *Template, src Source) {
	if strings.TrimSpace(src.Subject) == "" {
		c.refuse("subject", "", "is missing", "give the delivery a subject")
	}
	if src.Text == "" && src.HTML == "" {
		c.refuse("text", "", "and html are both missing", "give the delivery a text or an html part, or both")
	}
	t.subject = c.template("subject", src.Subject, 2*MaxHeaderValue)
	t.text = c.fragment("text", src.Text, MaxTemplate, false, true)
	t.html = c.fragment("html", src.HTML, MaxTemplate, true, true)
}

func (c *compiler) replyTo(value string) *fragment {
	f := c.template("reply_to", value, MaxHeaderValue)
	if f != nil && f.isLiteral() {
		_, _, err := parseMailbox(value)
		c.badAddress("reply_to", err)
	}
	return f
}

// parseMailbox reads address or Name <address>. The error is an *address.Error.
func parseMailbox(s string) (name string, a address.Address, err error) {
	s = clean(s)
	if open := strings.LastIndexByte(s, '<'); open >= 0 && strings.HasSuffix(s, ">") {
		name, s = strings.TrimSpace(s[:open]), s[open+1:len(s)-1]
		if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
			name = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(name[1 : len(name)-1])
		}
	}
	a, err = address.Parse(s)
	return clean(name), a, err
}

func (c *compiler) feedbackID(value string) string {
	if len(value) > maxFeedbackID || strings.IndexFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
		c.refuse("feedback_id", value, "is no identifier", fmt.Sprintf("use at most %d printable ASCII characters without spaces", maxFeedbackID))
	}
	return value
}

// listID checks a list's identifier (RFC 2919 section 3).
func (c *compiler) listID(value, domain string) string {
	if value == "" {
		return ""
	}
	id := qualifiedListID(value, domain)
	bad := len(id) > 255 || strings.HasPrefix(id, ".") || strings.HasSuffix(id, ".") || strings.Contains(id, "..")
	for i := range len(id) {
		bad = bad || id[i] != '.' && !isAtext(id[i])
	}
	if bad {
		c.refuse("list_id", value, "is no list identifier", "use letters, digits and hyphens with dots between, such as news.example.com")
	}
	return id
}

// qualifiedListID adds the From domain to an identifier without a dot.
func qualifiedListID(value, domain string) string {
	id := strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">")
	if value != "" && !strings.Contains(id, ".") && domain != "" {
		id += "." + domain
	}
	return id
}

func isAtext(b byte) bool { return plainInWord(b) || strings.IndexByte("#$%&'=?^_`{|}~", b) >= 0 }

func (c *compiler) unsubscribe(t *Template, src Source) {
	const field = "unsubscribe_url"
	if t.hosted = src.Unsubscribe == UnsubscribeHosted; t.hosted {
		c.hosted(src)
		return
	}
	t.mailto = c.template("unsubscribe_mailto", src.UnsubscribeMailto, MaxHeaderValue)
	if t.mailto != nil && t.mailto.isLiteral() {
		if _, err := mailtoURL(src.UnsubscribeMailto); err != nil {
			c.refuse("unsubscribe_mailto", src.UnsubscribeMailto, err.Error(), "give an address, or a URL such as mailto:leave@example.com?subject=leave")
		}
	}
	switch {
	case src.Unsubscribe > UnsubscribeHosted:
		c.refuse("unsubscribe", fmt.Sprint(src.Unsubscribe), "is no known mode", "use none, own URL or hosted")
	case src.Unsubscribe == UnsubscribeNone && src.UnsubscribeURL != "":
		c.refuse(field, src.UnsubscribeURL, "is given, but the unsubscribe mode is none", "choose the mode own URL, or remove it")
	case src.Unsubscribe == UnsubscribeOwnURL && src.UnsubscribeURL == "":
		c.refuse(field, "", "is missing", "give an https URL that takes the one-click POST of RFC 8058")
	}
	if t.unsubscribe = c.template(field, src.UnsubscribeURL, MaxHeaderValue); t.unsubscribe == nil {
		return
	}
	start := strings.TrimSpace(src.UnsubscribeURL)
	if !t.unsubscribe.isLiteral() && strings.HasPrefix(start, "{") {
		return // only rendering can tell
	}
	if !strings.HasPrefix(strings.ToLower(start), "https://") {
		c.refuse(field, start, "is not an https URL", "one-click unsubscribe (RFC 8058) demands https://")
		return
	}
	if t.unsubscribe.isLiteral() {
		if _, err := httpsURL(start); err != nil {
			c.refuse(field, start, err.Error(), "give an absolute https URL")
		}
	}
}

// hosted refuses what would contradict the node's own links.
func (c *compiler) hosted(src Source) {
	const problem, remedy = "is given, but the unsubscribe mode is hosted", "remove it, or choose the mode own URL"
	if src.UnsubscribeURL != "" {
		c.refuse("unsubscribe_url", src.UnsubscribeURL, problem, remedy)
	}
	if src.UnsubscribeMailto != "" {
		c.refuse("unsubscribe_mailto", src.UnsubscribeMailto, problem, remedy)
	}
}
