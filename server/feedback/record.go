package feedback

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Numbers of StreamFeedbackResponse.events and FeedbackEvent.id.
const (
	eventsField protowire.Number = 1
	idField     protowire.Number = 1
)

// Record is an event as streams carry it: encoded once, however many read it, and with
// what filters look at beside it. Records are shared and must not be changed.
type Record struct {
	Type                                       veredusv1.FeedbackType
	Tenant, Delivery, Destination, RecipientID string

	frame []byte // the event as a field of StreamFeedbackResponse
}

// NewRecord makes the record of an event, which is encoded as row without its id. It
// keeps strings of the event, and a copy of row.
func NewRecord(e *veredusv1.FeedbackEvent, id string, row []byte) Record {
	size := protowire.SizeTag(idField) + protowire.SizeBytes(len(id)) + len(row)
	frame := make([]byte, 0, protowire.SizeTag(eventsField)+protowire.SizeBytes(size))
	frame = protowire.AppendTag(frame, eventsField, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(size))
	frame = protowire.AppendTag(frame, idField, protowire.BytesType)
	frame = append(protowire.AppendString(frame, id), row...)
	return Record{
		Type: e.GetType(), Tenant: e.GetTenant(), Delivery: e.GetDelivery(),
		Destination: e.GetDestination(), RecipientID: e.GetRecipientId(), frame: frame,
	}
}

// Size is what the record adds to an answer, in octets.
func (r *Record) Size() int { return len(r.frame) }

// Event decodes the record.
func (r *Record) Event() (*veredusv1.FeedbackEvent, error) {
	_, _, n := protowire.ConsumeTag(r.frame)
	if n < 0 {
		return nil, errors.New("feedback: record without an event")
	}
	event, n := protowire.ConsumeBytes(r.frame[n:])
	if n < 0 {
		return nil, errors.New("feedback: record without an event")
	}
	e := &veredusv1.FeedbackEvent{}
	return e, proto.Unmarshal(event, e)
}

// answerOf is an answer of events encoded already. They are fields like any other to
// whoever decodes it; only here they count as unknown, so that they are copied as
// they are.
func answerOf(frames []byte, token string) *veredusv1.StreamFeedbackResponse {
	a := &veredusv1.StreamFeedbackResponse{Token: token}
	a.ProtoReflect().SetUnknown(frames)
	return a
}
