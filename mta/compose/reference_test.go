package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/osteele/liquid/expressions"
	"github.com/osteele/liquid/render"

	"github.com/veredus/veredus/mta/address"
)

// The reference renders a message the obvious way: all variables decoded by
// encoding/json, every template evaluated whole by the library, every part encoded
// from its beginning, octet by octet. What Template.Render makes must be the same.

type reference struct {
	t    *Template // for what is fixed; its fragments are not used
	by   map[*fragment]*fragment
	run  *run
	vars map[string]any
	job  Job
	to   address.Address
	out  []byte
	last string // the subject
	utf8 bool
}

// newReference compiles every template of t for the library alone.
func newReference(t *Template, src Source) (*reference, error) {
	ref := &reference{t: t, by: map[*fragment]*fragment{}}
	sources := []string{src.From.Name, src.ToName, src.ReplyTo, src.Subject, src.Text, src.HTML, src.UnsubscribeURL, src.UnsubscribeMailto}
	for i, f := range []*fragment{t.fromName, t.toName, t.replyTo, t.subject, t.text, t.html, t.unsubscribe, t.mailto} {
		if err := ref.add(f, sources[i]); err != nil {
			return nil, err
		}
	}
	n := 0
	for _, h := range src.Headers {
		if h.Value == "" {
			continue
		}
		if err := ref.add(t.headers[n].value, h.Value); err != nil {
			return nil, err
		}
		n++
	}
	return ref, nil
}

func (ref *reference) add(f *fragment, src string) error {
	if f == nil {
		return nil
	}
	whole := &fragment{field: f.field, html: f.html, literal: src}
	ref.by[f] = whole
	if openAt(src, 0) == len(src) {
		return nil
	}
	tokens, err := scan(src)
	if err != nil {
		return err
	}
	return whole.compile(tokens, nil, nil)
}

// render is Template.Render.
func (ref *reference) render(job Job) (r Rendered, err error) {
	ref.run, ref.job, ref.out, ref.utf8 = &run{ctx: context.Background()}, job, nil, false
	if ref.to, err = address.Parse(job.To); err != nil {
		return r, &RenderError{Field: "to", Err: err}
	}
	given, err := ref.run.decode(job.Variables)
	if err != nil {
		return r, &RenderError{Field: "variables", Err: err}
	}
	if err := ref.builtins(); err != nil {
		return r, &RenderError{Field: "builtin", Err: err}
	}
	maps.Copy(ref.vars, given)
	for name, v := range ref.vars {
		ref.vars[name] = ref.run.hand(v)
	}
	if err := ref.message(); err != nil {
		return r, err
	}
	return Rendered{Bytes: ref.out, UTF8: ref.utf8, Subject: ref.last, Missing: ref.run.missing}, nil
}

func (ref *reference) builtins() (err error) {
	recipient := map[string]any{"address": ref.to.String()}
	ref.vars = map[string]any{}
	for name, v := range ref.job.Builtin {
		if more, ok := v.(map[string]any); ok && name == "recipient" {
			maps.Copy(recipient, clone(more, 1).(map[string]any))
			continue
		}
		if ref.vars[name], err = ref.run.convert(clone(v, 1), nil, name, 1); err != nil {
			return err
		}
	}
	ref.vars["recipient"], err = ref.run.convert(recipient, nil, "recipient", 1)
	return err
}

// text evaluates a template of t.
func (ref *reference) text(of *fragment) (string, error) {
	if of == nil {
		return "", nil
	}
	f, r := ref.by[of], ref.run
	if f.root == nil {
		if r.out += len(f.literal); r.out > MaxOutput {
			return "", &RenderError{f.field, 0, fmt.Errorf("%w: the message is too large (at most %d)", ErrLimit, MaxOutput)}
		}
		return f.literal, nil
	}
	bindings := map[string]any{}
	for _, name := range f.roots {
		bindings[name] = unknown{r, name}
	}
	maps.Copy(bindings, ref.vars)
	bindings[runKey] = r
	config := f.config
	config.Config.Config = expressions.NewConfig()
	for _, name := range f.filters {
		config.AddFilter(name, r.filter(filters[name]))
	}
	return ref.evaluate(f, bindings, config)
}

func (ref *reference) evaluate(f *fragment, bindings map[string]any, config render.Config) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = f.failure(ref.run, 0, errors.New(panicText(p)))
		}
	}()
	ref.run.begin()
	ref.run.html = f.html
	if failed := render.Render(f.root, outputWriter{ref.run}, bindings, config); failed != nil {
		return "", f.failure(ref.run, failed.LineNumber(), errors.New(causeText(failed)))
	}
	return string(ref.run.buf), nil
}

func (ref *reference) field(f *fragment) (string, error) {
	value, err := ref.text(f)
	if value = clean(value); err == nil && len(value) > MaxHeaderValue {
		err = &RenderError{Field: f.field, Err: fmt.Errorf("%w: %d octets are too many for a header (at most %d)", ErrLimit, len(value), MaxHeaderValue)}
	}
	return value, err
}

// message writes all but raw mail.
func (ref *reference) message() error {
	targets, err := ref.unsubscribe()
	if err != nil {
		return err
	}
	names := [3]string{}
	for i, f := range []*fragment{ref.t.fromName, ref.t.toName, ref.t.replyTo} {
		if names[i], err = ref.field(f); err != nil {
			return err
		}
		if i == 2 && names[i] != "" {
			if _, _, err := parseMailbox(names[i]); err != nil {
				return &RenderError{Field: "reply_to", Err: err}
			}
		}
	}
	ref.mailbox("From", names[0], ref.t.from)
	ref.mailbox("To", names[1], ref.to)
	if names[2] != "" {
		name, a, _ := parseMailbox(names[2])
		ref.mailbox("Reply-To", name, a)
	}
	if ref.last, err = ref.field(ref.t.subject); err != nil {
		return err
	}
	ref.out = appendField(ref.out, "Subject", ref.last)
	ref.list(targets)
	for _, h := range ref.t.headers {
		value, err := ref.field(h.value)
		if err != nil {
			return err
		}
		if value != "" {
			ref.out = appendField(ref.out, h.name, value)
		}
	}
	return ref.body()
}

func (ref *reference) mailbox(field, name string, a address.Address) {
	ref.utf8 = ref.utf8 || a.UTF8
	ref.out = appendMailbox(ref.out, field, name, a)
}

func (ref *reference) unsubscribe() (targets []string, err error) {
	url, mailto := ref.job.Links.URL, ref.job.Links.Mailto
	field := "unsubscribe"
	if !ref.t.hosted {
		if url, err = ref.field(ref.t.unsubscribe); err != nil {
			return nil, err
		}
		field = "unsubscribe_url"
	}
	if ref.t.hosted || ref.t.unsubscribe != nil {
		check := httpsURL
		if ref.t.hosted {
			check = hostedURL
		}
		if url, err = check(url); err != nil {
			return nil, &RenderError{Field: field, Err: err}
		}
		targets = append(targets, url)
		if _, given := ref.vars["unsubscribe_url"]; !given {
			ref.vars["unsubscribe_url"] = url
		}
	}
	if !ref.t.hosted {
		if mailto, err = ref.field(ref.t.mailto); err != nil {
			return nil, err
		}
		field = "unsubscribe_mailto"
	}
	if mailto == "" {
		return targets, nil
	}
	if mailto, err = mailtoURL(mailto); err != nil {
		return nil, &RenderError{Field: field, Err: err}
	}
	return append(targets, mailto), nil
}

func (ref *reference) list(targets []string) {
	ref.out = appendVerbatim(ref.out, "Date", ref.job.Date.UTC().Format(time.RFC1123Z))
	ref.out = appendVerbatim(ref.out, "Message-ID", "<"+ref.job.MessageID+">")
	if ref.t.listID != "" {
		ref.out = appendVerbatim(ref.out, "List-Id", "<"+ref.t.listID+">")
	}
	if len(targets) > 0 {
		ref.out = appendVerbatim(ref.out, "List-Unsubscribe", "<"+strings.Join(targets, ">,\r\n <")+">")
	}
	if ref.t.hosted || ref.t.unsubscribe != nil {
		ref.out = appendVerbatim(ref.out, "List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
	}
	if ref.t.feedbackID != "" {
		ref.out = appendVerbatim(ref.out, "Feedback-ID", ref.t.feedbackID)
	}
}

func (ref *reference) body() error {
	ref.out = appendVerbatim(ref.out, "MIME-Version", "1.0")
	switch {
	case ref.t.html == nil:
		return ref.part(ref.t.text, "text/plain")
	case ref.t.text == nil:
		return ref.part(ref.t.html, "text/html")
	}
	boundary := boundaryOf(ref.by[ref.t.text].literal, ref.by[ref.t.html].literal)
	ref.out = appendVerbatim(ref.out, "Content-Type", "multipart/alternative;\r\n boundary=\""+boundary+"\"")
	ref.out = append(ref.out, "\r\n--"+boundary+"\r\n"...)
	if err := ref.part(ref.t.text, "text/plain"); err != nil {
		return err
	}
	ref.out = append(ref.out, "\r\n--"+boundary+"\r\n"...)
	if err := ref.part(ref.t.html, "text/html"); err != nil {
		return err
	}
	ref.out = append(ref.out, "\r\n--"+boundary+"--\r\n"...)
	return nil
}

func (ref *reference) part(f *fragment, mediaType string) error {
	s, err := ref.text(f)
	if err != nil {
		return err
	}
	ref.out = append(ref.out, "Content-Type: "+mediaType+"; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"...)
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(strings.ToValidUTF8(s, string(utf8.RuneError)), "\x00", string(utf8.RuneError))
	}
	ref.out = quoteByOctet(ref.out, []byte(s))
	return nil
}

// quoteByOctet appends text in quoted-printable. CR, LF and CRLF all end a line.
func quoteByOctet(dst, text []byte) []byte {
	col := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\r' || c == '\n' {
			if c == '\r' && i+1 < len(text) && text[i+1] == '\n' {
				i++
			}
			dst, col = append(dst, "\r\n"...), 0
			continue
		}
		room := lineWidth - 1 // for a soft line break
		last := i+1 == len(text) || text[i+1] == '\r' || text[i+1] == '\n'
		if last {
			room = lineWidth
		}
		plain := isPlain(text[i:], col, last)
		if col >= room || !plain && col+3 > room {
			dst, col = append(dst, "=\r\n"...), 0
			plain = isPlain(text[i:], col, last)
		}
		if plain {
			dst, col = append(dst, c), col+1
		} else {
			dst, col = append(dst, '=', hexDigits[c>>4], hexDigits[c&15]), col+3
		}
	}
	if col > 0 {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// isPlain reports whether the first octet of text stands for itself at column
// col; last tells that its line ends behind it.
func isPlain(text []byte, col int, last bool) bool {
	switch c := text[0]; {
	case c == ' ' || c == '\t':
		return !last
	case c <= ' ' || c >= 0x7f || c == '=':
		return false
	case col > 0:
		return true
	case c == 'F':
		return !bytes.HasPrefix(text, []byte("From "))
	default:
		return c != '.'
	}
}
