package campaign

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// updatable says what an update of each field of a delivery asks for. Fields inside
// these (content.subject) ask for the same.
var updatable = map[string]Call{
	"sender": CallEdit, "content": CallEdit, "list_id": CallEdit, "unsubscribe": CallEdit,
	"label":    CallEdit, // it stands in the Feedback-ID of the mail
	"metadata": CallDescribe, "feedback_mode": CallDescribe,
	"pool": CallTune, "priority": CallTune, "validity_period": CallTune,
}

// UpdateDelivery changes the fields of the mask.
func (s *Service) UpdateDelivery(ctx context.Context, r *veredusv1.UpdateDeliveryRequest) (*veredusv1.Delivery, error) {
	v := violations{}
	id := v.delivery("delivery.name", r.GetDelivery().GetName())
	v.requestID(r.GetRequestId())
	m := v.mask(r.GetUpdateMask().GetPaths())
	v.spec("delivery.", m.apply(&veredusv1.Delivery{}, r.GetDelivery()), s.o.HasPool)
	if err := v.err(); err != nil {
		return nil, err
	}
	req, err := request(veredusv1.CampaignService_UpdateDelivery_FullMethodName, r.GetRequestId(), r)
	if err != nil {
		return nil, err
	}
	now := s.now()
	return s.change(ctx, id, req, now, func(d *Delivery) ([]Event, error) {
		if err := m.update(d, r.GetDelivery(), now); err != nil || d.Started.IsZero() {
			return nil, err
		}
		d.Expires = s.expiry(d, d.Started)
		return nil, nil
	}, s.tune)
}

// tune tells the relay what may change while it has the delivery.
func (s *Service) tune(ctx context.Context, d *Delivery) error {
	if d.State != Running && d.State != Paused || d.Transactional {
		return nil
	}
	return s.o.Relay.Update(ctx, d.No, d.pool(), d.priority(), d.Expires)
}

// mask is a checked field mask.
type mask struct {
	paths []string
	calls map[Call]string // what is asked for, with the first field that asks
}

// mask checks the paths of a field mask against the fields that can be changed.
func (v *violations) mask(paths []string) mask {
	const field = "update_mask"
	m := mask{calls: map[Call]string{}}
	if len(paths) == 0 {
		v.add(field, "", "is missing", "name the fields to change: "+strings.Join(updatableNames(), ", "))
	}
	if len(paths) > 100 {
		v.add(field, "", "has too many paths", "name each field once")
		return m
	}
	for _, path := range paths {
		first, _, _ := strings.Cut(path, ".")
		call, known := updatable[first]
		switch {
		case path == "tenant":
			v.add(field, path, "cannot be changed", "create a delivery of the other tenant")
		case !known || !pathExists((&veredusv1.Delivery{}).ProtoReflect().Descriptor(), path):
			v.add(field, path, "is no field that can be changed", "use "+strings.Join(updatableNames(), ", "))
		default:
			m.paths = append(m.paths, path)
			if m.calls[call] == "" {
				m.calls[call] = path
			}
		}
	}
	return m
}

// updatableNames lists the fields in the order of the contract.
func updatableNames() []string {
	var names []string
	fields := (&veredusv1.Delivery{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); updatable[name] != 0 {
			names = append(names, name)
		}
	}
	return names
}

// pathExists reports whether a path leads through messages to a field. Maps, lists
// and well-known types are changed as a whole.
func pathExists(d protoreflect.MessageDescriptor, path string) bool {
	name, rest, more := strings.Cut(path, ".")
	f := d.Fields().ByName(protoreflect.Name(name))
	switch {
	case f == nil:
		return false
	case !more:
		return true
	}
	ours := f.Message() != nil && !f.IsMap() && !f.IsList() && f.Message().ParentFile() == veredusv1.File_veredus_v1_resources_proto
	return ours && pathExists(f.Message(), rest)
}

// apply sets the fields of the mask in a copy of old to what they are in new.
func (m mask) apply(old, new *veredusv1.Delivery) *veredusv1.Delivery {
	merged := proto.CloneOf(old)
	for _, path := range m.paths {
		setPath(merged.ProtoReflect(), new.ProtoReflect(), path)
	}
	return merged
}

func setPath(dst, src protoreflect.Message, path string) {
	name, rest, more := strings.Cut(path, ".")
	f := dst.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch {
	case f == nil:
	case more && f.Message() != nil && !f.IsMap() && !f.IsList():
		setPath(dst.Mutable(f).Message(), src.Get(f).Message(), rest)
	case src.Has(f):
		dst.Set(f, src.Get(f))
	default:
		dst.Clear(f)
	}
}

// update makes the change, if the delivery's state allows it. What is as asked for
// already stays, and so does the state then.
func (m mask) update(d *Delivery, new *veredusv1.Delivery, now time.Time) error {
	state := d.State
	for call, path := range m.calls {
		if _, ok := d.State.After(call); !ok || d.Transactional {
			return &StateError{Delivery: d.ID, State: d.State, Call: "change " + path}
		}
	}
	merged := m.apply(d.Spec, new)
	if proto.Equal(merged, d.Spec) {
		return nil
	}
	v := violations{}
	v.whole("delivery.", merged)
	if err := v.err(); err != nil {
		return err
	}
	if _, edits := m.calls[CallEdit]; edits {
		state, _ = d.State.After(CallEdit)
	}
	d.Spec, d.State, d.Updated = merged, state, now
	return nil
}

// validity is how long the client wants its mail to be tried.
func (d *Delivery) validity() time.Duration {
	if p := d.Spec.GetValidityPeriod(); p != nil {
		return p.AsDuration()
	}
	return defaultValidity
}

// expiry is when the messages expire that start at a time: behind the validity
// period, at most 84 h later, on a sandbox's faster clock if it has one.
func (s *Service) expiry(d *Delivery, start time.Time) time.Time {
	return start.Add(s.lifetime(d.validity()))
}

func (s *Service) lifetime(validity time.Duration) time.Duration {
	return lifetime(validity, s.o.TimeScale)
}

func lifetime(validity time.Duration, timeScale float64) time.Duration {
	validity = min(validity, MaxLifetime)
	if timeScale > 1 {
		validity = time.Duration(float64(validity) / timeScale)
	}
	return validity
}
