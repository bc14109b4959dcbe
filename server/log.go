package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/veredus/veredus/server/config"
)

// NewLog makes the log that the configuration asks for.
func NewLog(cfg config.Log, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if cfg.Format == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	if !cfg.Plain {
		h = redacting{h}
	}
	return slog.New(h)
}

// redacting hides the local part of every mail address in messages and values. The
// attribute message_id is let through: its token names no person, and operators
// match it with what receivers saw.
type redacting struct{ slog.Handler }

// Handle implements slog.Handler.
func (h redacting) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, Redact(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(redactAttr(a))
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (h redacting) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = redactAttr(a)
	}
	return redacting{h.Handler.WithAttrs(clean)}
}

// WithGroup implements slog.Handler.
func (h redacting) WithGroup(name string) slog.Handler {
	return redacting{h.Handler.WithGroup(name)}
}

func redactAttr(a slog.Attr) slog.Attr {
	if a.Key == "message_id" {
		return a
	}
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, Redact(v.String()))
	case slog.KindGroup:
		group := v.Group()
		clean := make([]slog.Attr, len(group))
		for i, inner := range group {
			clean[i] = redactAttr(inner)
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(clean...)}
	case slog.KindAny:
		return slog.String(a.Key, Redact(fmt.Sprint(v.Any())))
	}
	return slog.Attr{Key: a.Key, Value: v}
}

// hidden stands for a local part.
const hidden = "***"

// Redact hides the local part of every mail address in a text.
func Redact(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	var b strings.Builder
	for {
		at := strings.IndexByte(s, '@')
		if at < 0 {
			b.WriteString(s)
			return b.String()
		}
		start := localStart(s[:at])
		b.WriteString(s[:start])
		if start < at && at+1 < len(s) && domainByte(s[at+1]) {
			b.WriteString(hidden)
		} else {
			b.WriteString(s[start:at])
		}
		b.WriteByte('@')
		s = s[at+1:]
	}
}

// localStart is where the local part that ends s begins.
func localStart(s string) int {
	if n := len(s); n > 1 && s[n-1] == '"' {
		for i := n - 2; i >= 0; i-- {
			if s[i] == '"' && (i == 0 || s[i-1] != '\\') {
				return i
			}
		}
	}
	i := len(s)
	for i > 0 && localByte(s[i-1]) {
		i--
	}
	return i
}

// localByte reports whether c may stand in an unquoted local part (RFC 5321
// section 4.1.2, RFC 6531 section 3.3).
func localByte(c byte) bool {
	return c >= 0x80 || c == '.' || alphanumeric(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func domainByte(c byte) bool { return c >= 0x80 || c == '[' || alphanumeric(c) }

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
