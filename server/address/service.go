package address

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Options are what a Service is made of. All but Replay, Rotated and Now are required.
type Options struct {
	Store Store
	// Policy is asked at every use, so that a reload takes effect at once.
	Policy func() Policy
	// Replay finds what an earlier call with the request left as Request.Answer; nil
	// finds nothing, so that repeated deletes and releases are new calls.
	Replay func(ctx context.Context, req Request) (answer []byte, found bool, err error)
	// Rotated is told the keys of unsubscribe links when there is a new one; may be nil.
	Rotated func(keys []LinkKey)
	// Now stamps changes; nil is time.Now.
	Now func() time.Time
}

// Service implements AddressService. It has no state of its own and is safe for concurrent
// use. What is wrong with a request is an *InvalidError, a missing entry a *NotFoundError, a
// request_id of another call ErrRequestIDReused.
type Service struct {
	veredusv1.UnimplementedAddressServiceServer
	o Options
}

var _ veredusv1.AddressServiceServer = (*Service)(nil)

// NewService makes the service.
func NewService(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Replay == nil {
		o.Replay = func(context.Context, Request) ([]byte, bool, error) { return nil, false, nil }
	}
	if o.Rotated == nil {
		o.Rotated = func([]LinkKey) {}
	}
	return &Service{o: o}
}

// now is the time in UTC without its monotonic part, as it will be stored.
func (s *Service) now() time.Time { return s.o.Now().UTC().Round(0) }

// GetAddress tells every entry of an address and whether such mail would be excluded.
func (s *Service) GetAddress(ctx context.Context, req *veredusv1.GetAddressRequest) (*veredusv1.GetAddressResponse, error) {
	v := violations{}
	to := v.address("address", req.GetAddress())
	v.tenant("tenant", req.GetTenant())
	q := Query{Folded: to.Folded(), Tenant: req.GetTenant(), List: v.listID("list_id", req.GetListId()), Class: Marketing}
	if err := v.err(); err != nil {
		return nil, err
	}
	if q.Tenant == "" {
		q.Tenant = defaultTenant
	}
	if req.GetTransactional() {
		q.Class = Everything
	}
	entries, err := s.o.Store.AddressEntries(ctx, q.Folded)
	if err != nil {
		return nil, err
	}
	policy, now := s.o.Policy(), s.now()
	x := Decide(entries, q, policy, now)
	return &veredusv1.GetAddressResponse{
		Entries: views(entries), Excluded: x.Excluded(), Reason: veredusv1.FailureReason(x.Reason),
		Because: because(x, entries, q, policy, now),
	}, nil
}

// maxReads bounds how often a page asks the store, which reads a bounded number of rows each time.
const maxReads = 20

// ListAddressEntries answers a page of entries.
func (s *Service) ListAddressEntries(ctx context.Context, req *veredusv1.ListAddressEntriesRequest) (*veredusv1.ListAddressEntriesResponse, error) {
	v := violations{}
	f, size, sum := v.filter(req.GetFilter()), v.page(req.GetPageSize()), filterSum(req.GetFilter())
	cursor := v.cursor(sum, req.GetPageToken())
	if err := v.err(); err != nil {
		return nil, err
	}
	var page []Entry
	for range maxReads {
		more, next, err := s.o.Store.ListAddressEntries(ctx, f, cursor, size-len(page))
		if err != nil {
			return nil, err
		}
		page, cursor = append(page, more...), next
		if len(cursor) == 0 || len(page) >= size {
			break
		}
	}
	return &veredusv1.ListAddressEntriesResponse{Entries: views(page), NextPageToken: pageToken(sum, cursor)}, nil
}

// PutAddressEntry creates an entry, or gives the one of the same address and scope a
// status, a reason and a comment. An operator's quarantine is never provisional.
func (s *Service) PutAddressEntry(ctx context.Context, req *veredusv1.PutAddressEntryRequest) (*veredusv1.AddressEntry, error) {
	v := violations{}
	wanted := v.wanted(req.GetEntry())
	call := v.request(veredusv1.AddressService_PutAddressEntry_FullMethodName, req.GetRequestId(), req)
	if err := v.err(); err != nil {
		return nil, err
	}
	now := s.now()
	audit := remark(fmt.Sprintf("%s %s for %s", wanted.Status.word(), wanted.Folded, wanted.Scope), wanted.Comment)
	answer, err := s.o.Store.ChangeAddressEntries(ctx, []Key{wanted.Key}, call, audit, func(e Entry) Entry { return put(e, wanted, now) })
	if err != nil {
		return nil, err
	}
	return view(&answer[0]), nil
}

// wanted reads the entry of a put.
func (v *violations) wanted(e *veredusv1.AddressEntry) Entry {
	to := v.address("entry.address", e.GetAddress())
	wanted := Entry{
		Key: Key{Folded: to.Folded(), Scope: v.scope("entry.scope", e.GetScope())}, Address: to.String(),
		Status: Status(e.GetStatus()), Reason: v.reason("entry.reason", e.GetReason()), Comment: e.GetComment(), Origin: FromOperator,
	}
	switch wanted.Status {
	case Quarantined, Denylisted, Allowlisted:
	default:
		v.add("entry.status", e.GetStatus().String(), "cannot be put", "use ADDRESS_STATUS_QUARANTINED, ADDRESS_STATUS_DENYLISTED or ADDRESS_STATUS_ALLOWLISTED; delete the entry to forget it")
	}
	v.text("entry.comment", e.GetComment(), MaxCommentLength)
	return wanted
}

// put is an entry after an operator's put.
func put(e, wanted Entry, now time.Time) Entry {
	if e.Status == 0 {
		e = Entry{Key: e.Key, Address: wanted.Address, Created: now}
	}
	if wanted.Reason == 0 {
		wanted.Reason = e.Reason
	}
	if e.Status == wanted.Status && e.Reason == wanted.Reason && e.Comment == wanted.Comment && e.Origin == wanted.Origin && !e.Provisional {
		return e
	}
	e.Status, e.Reason, e.Comment, e.Origin = wanted.Status, wanted.Reason, wanted.Comment, wanted.Origin
	e.Provisional, e.Errors = false, 0
	return e.note(Cause{Evidence: Evidence{Time: now, Text: wanted.Comment}}, e.Status.change())
}

// DeleteAddressEntry deletes an entry and answers what it was.
func (s *Service) DeleteAddressEntry(ctx context.Context, req *veredusv1.DeleteAddressEntryRequest) (*veredusv1.AddressEntry, error) {
	v := violations{}
	key := v.named(req)
	call := v.request(veredusv1.AddressService_DeleteAddressEntry_FullMethodName, req.GetRequestId(), req)
	if err := v.err(); err != nil {
		return nil, err
	}
	was := &veredusv1.AddressEntry{}
	if found, err := s.replay(ctx, call, was); found || err != nil {
		return was, err
	}
	e, err := s.entry(ctx, key)
	if err != nil {
		return nil, err
	}
	was = view(e)
	call.remember(was)
	audit := fmt.Sprintf("deleted: %s was %s for %s", key.Folded, e.Status.word(), key.Scope)
	_, err = s.o.Store.ChangeAddressEntries(ctx, []Key{key}, call, audit, func(e Entry) Entry { return Entry{Key: e.Key} })
	return was, err
}

// named reads which entry is to be deleted.
func (v *violations) named(req *veredusv1.DeleteAddressEntryRequest) Key {
	if req.GetName() == "" {
		if req.GetAddress() == "" {
			v.add("name", "", "is missing", "give the entry's name, or its address and scope")
			return Key{}
		}
		to := v.address("address", req.GetAddress())
		return Key{Folded: to.Folded(), Scope: v.scope("scope", req.GetScope())}
	}
	if req.GetAddress() != "" || req.GetScope() != nil {
		v.add("address", req.GetAddress(), "is given beside a name", "give the entry's name, or its address and scope")
	}
	key, err := ParseEntryName(req.GetName())
	if err != nil {
		v.add("name", req.GetName(), "is no entry's name", "write addressEntries/{entry} as GetAddress or ListAddressEntries gave it")
	}
	return key
}

// entry reads one entry.
func (s *Service) entry(ctx context.Context, key Key) (*Entry, error) {
	entries, err := s.o.Store.AddressEntries(ctx, key.Folded)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if entries[i].Key == key {
			return &entries[i], nil
		}
	}
	return nil, &NotFoundError{Resource: EntryName(key)}
}

// RotateUnsubscribeKey makes a new key for hosted unsubscribe links.
func (s *Service) RotateUnsubscribeKey(ctx context.Context, req *veredusv1.RotateUnsubscribeKeyRequest) (*veredusv1.RotateUnsubscribeKeyResponse, error) {
	v := violations{}
	call := v.request(veredusv1.AddressService_RotateUnsubscribeKey_FullMethodName, req.GetRequestId(), req)
	if err := v.err(); err != nil {
		return nil, err
	}
	keys, err := s.o.Store.RotateUnsubscribeKey(ctx, call)
	if err != nil {
		return nil, err
	}
	s.o.Rotated(keys)
	return &veredusv1.RotateUnsubscribeKeyResponse{KeyId: int32(keys[len(keys)-1].ID), KeyCount: int32(len(keys))}, nil
}

// request identifies a mutating call: the same request_id with the same method and body is
// the same request. Without a request_id nothing is remembered.
func (v *violations) request(method, id string, body proto.Message) Request {
	v.text("request_id", id, maxRequestID)
	if id == "" {
		return Request{}
	}
	clone := proto.Clone(body).ProtoReflect()
	clone.Clear(clone.Descriptor().Fields().ByName("request_id"))
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(clone.Interface())
	if err != nil {
		v.add("request", "", "is not valid UTF-8", "send texts in UTF-8")
	}
	return Request{ID: id, Method: method, Body: sha256.Sum256(raw)}
}

// remember makes a message the call's answer.
func (r *Request) remember(answer proto.Message) {
	if r.ID == "" {
		return
	}
	// Marshalling fails only for text that is not UTF-8, which no stored field holds.
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(answer)
	r.Answer = string(raw)
}

// replay reads the answer of an earlier call with this request into answer.
func (s *Service) replay(ctx context.Context, req Request, answer proto.Message) (found bool, err error) {
	if req.ID == "" {
		return false, nil
	}
	raw, found, err := s.o.Replay(ctx, req)
	if err != nil || !found {
		return false, err
	}
	if err := proto.Unmarshal(raw, answer); err != nil {
		return false, fmt.Errorf("address: remembered answer of %s: %w", req.Method, err)
	}
	return true, nil
}

// remark adds an operator's comment to a text.
func remark(text, comment string) string {
	if comment = strings.TrimSpace(comment); comment == "" {
		return text
	}
	return text + ": " + comment
}
