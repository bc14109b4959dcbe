package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"
)

// body renders the parts and writes them with their MIME header.
func (m *message) body() error {
	m.out = appendVerbatim(m.out, "MIME-Version", "1.0")
	switch {
	case m.t.html == nil:
		return m.part(m.t.text, "text/plain")
	case m.t.text == nil:
		return m.part(m.t.html, "text/html")
	}
	boundary := boundaryOf(m.job.MessageID)
	m.out = appendVerbatim(m.out, "Content-Type", "multipart/alternative;\r\n boundary=\""+boundary+"\"")
	m.out = append(m.out, "\r\n--"+boundary+"\r\n"...)
	if err := m.part(m.t.text, "text/plain"); err != nil {
		return err
	}
	m.out = append(m.out, "\r\n--"+boundary+"\r\n"...)
	if err := m.part(m.t.html, "text/html"); err != nil {
		return err
	}
	m.out = append(m.out, "\r\n--"+boundary+"--\r\n"...)
	return nil
}

// boundaryOf derives the boundary from what is the same in every attempt. "=_"
// cannot occur in quoted-printable text, so no body holds it.
func boundaryOf(messageID string) string {
	sum := sha256.Sum256([]byte("boundary " + messageID))
	return "=_" + hex.EncodeToString(sum[:15])
}

// part writes one part with its header, ending in CRLF.
func (m *message) part(f *fragment, mediaType string) error {
	m.scratch.Reset()
	if err := f.render(m.run, m.vars, &m.scratch); err != nil {
		return err
	}
	m.out = append(m.out, "Content-Type: "+mediaType+"; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"...)
	text := m.scratch.Bytes()
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		text = []byte(strings.ReplaceAll(strings.ToValidUTF8(string(text), string(utf8.RuneError)), "\x00", string(utf8.RuneError)))
	}
	w := quotedprintable.NewWriter((*sink)(&m.out))
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if !bytes.HasSuffix(m.out, []byte("\r\n")) {
		m.out = append(m.out, "\r\n"...)
	}
	return nil
}

// sink appends what is written to it.
type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}
