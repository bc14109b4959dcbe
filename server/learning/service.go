package learning

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// Entries is where the address entries are that old qualifications caused; an
// address.Store has it.
type Entries interface {
	ListAddressEntries(ctx context.Context, f address.Filter, cursor []byte, max int) (page []address.Entry, next []byte, err error)
	ChangeAddressEntries(ctx context.Context, keys []address.Key, req address.Request, audit string, change func(address.Entry) address.Entry) ([]address.Entry, error)
}

// Options are what a Service needs; all are required but Flush, Replay and Log.
type Options struct {
	Store   Store
	Entries Entries
	// Flush brings into the store what was said before (Table.Flush).
	Flush func(context.Context) error
	// Bounces are the rules in force, Policy what follows from errors of an address.
	Bounces func() *bounce.Table
	Policy  func() address.Policy
	// File is the operator's file of bounce rules; empty when none is configured.
	File func() string
	// Reload puts the operator's file into force. When it fails, what was in force stays.
	Reload func(context.Context) error
	// Replay tells whether the request's id was used for another call: an error.
	Replay func(context.Context, address.Request) error
	// EntryName is the resource name of an address entry.
	EntryName func(address.Key) string
	Now       func() time.Time
	Log       *slog.Logger
}

// Service is the part of RelayService that deals with reply texts. Its methods are
// safe for concurrent use.
type Service struct {
	o Options

	mu      sync.Mutex // held by what changes something
	answers map[string]remembered
}

// remembered is the answer of a call with a request_id. The calls are idempotent by their
// effect, so that the memory may end with the process.
type remembered struct {
	request address.Request
	at      time.Time
	answer  proto.Message
}

// Bounds of what is remembered.
const (
	keepAnswers  = 7 * 24 * time.Hour
	maxAnswers   = 100
	maxRequestID = 128
)

// NewService returns a service over its options.
func NewService(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{o: o, answers: map[string]remembered{}}
}

// invalid is an error of one field.
func invalid(field, value, problem, remedy string) error {
	return &campaign.InvalidError{Violations: []campaign.FieldViolation{
		{Field: field, Value: cut(value, 100), Problem: problem, Remedy: remedy},
	}}
}

// cut shortens s to n octets at a character's border.
func cut(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.ToValidUTF8(s[:n], "\uFFFD")
}

// requestOf identifies a mutating call: the same id with the same body is the same request.
func requestOf(method, id string, body proto.Message) (address.Request, error) {
	if len(id) > maxRequestID {
		return address.Request{}, invalid("request_id", id, fmt.Sprintf("has %d bytes", len(id)), "use at most 128")
	}
	if id == "" {
		return address.Request{}, nil
	}
	clone := proto.Clone(body).ProtoReflect()
	clone.Clear(clone.Descriptor().Fields().ByName("request_id"))
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(clone.Interface())
	if err != nil {
		return address.Request{}, fmt.Errorf("request %s: %w", method, err)
	}
	return address.Request{ID: id, Method: method, Body: sha256.Sum256(raw)}, nil
}

// replay answers a repeated request, nil for a new one. Called with the lock held.
func (s *Service) replay(ctx context.Context, req address.Request) (proto.Message, error) {
	if req.ID == "" {
		return nil, nil
	}
	before, ok := s.answers[req.ID]
	switch {
	case ok && before.request != req:
		return nil, fmt.Errorf("request_id %q: %w", req.ID, ErrRequestIDReused)
	case ok:
		return proto.Clone(before.answer), nil
	case s.o.Replay != nil:
		return nil, s.o.Replay(ctx, req)
	}
	return nil, nil
}

// remember keeps an answer. Called with the lock held.
func (s *Service) remember(req address.Request, answer proto.Message) {
	if req.ID == "" {
		return
	}
	now := s.o.Now()
	maps.DeleteFunc(s.answers, func(_ string, a remembered) bool { return now.Sub(a.at) > keepAnswers })
	for len(s.answers) >= maxAnswers {
		s.forgetOldest()
	}
	s.answers[req.ID] = remembered{req, now, proto.Clone(answer)}
}

func (s *Service) forgetOldest() {
	oldest := ""
	for id, a := range s.answers {
		if o, ok := s.answers[oldest]; !ok || a.at.Before(o.at) || a.at.Equal(o.at) && id < oldest {
			oldest = id
		}
	}
	delete(s.answers, oldest)
}

// flush brings in what was said before; without it, the answer is merely older.
func (s *Service) flush(ctx context.Context) error {
	if s.o.Flush == nil {
		return nil
	}
	return s.o.Flush(ctx)
}

const textsPrefix = "replyTexts/"

// textOf reads the text with a resource name.
func (s *Service) textOf(ctx context.Context, name string) (*Text, error) {
	digits, ok := strings.CutPrefix(name, textsPrefix)
	id, good := parseID(digits)
	if !ok || !good {
		return nil, invalid("name", name, "is no reply text", "write replyTexts/T as ListReplyTexts answers it")
	}
	text, err := s.o.Store.ReplyText(ctx, id)
	return text, notFound(err, name)
}

// notFound names the text that is not there.
func notFound(err error, name string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrNotFound) {
		return &campaign.NotFoundError{Resource: cut(name, 100)}
	}
	return err
}

var _ interface {
	ListReplyTexts(context.Context, *veredusv1.ListReplyTextsRequest) (*veredusv1.ListReplyTextsResponse, error)
	QualifyReplyText(context.Context, *veredusv1.QualifyReplyTextRequest) (*veredusv1.QualifyReplyTextResponse, error)
	Requalify(context.Context, *veredusv1.RequalifyRequest) (*veredusv1.RequalifyResponse, error)
} = (*Service)(nil)
