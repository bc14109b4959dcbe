package campaign

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// The relay keeps one truth; what a client sees of it depends on the delivery's
// feedback mode ("with and without the Email Feedback Service" in Adobe Campaign's
// words). Everything here is a pure function of the truth and the mode.

// Mode is the delivery's feedback mode; unspecified means EFS.
func (d *Delivery) Mode() veredusv1.FeedbackMode {
	if d.Spec.GetFeedbackMode() == veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS {
		return veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS
	}
	return veredusv1.FeedbackMode_FEEDBACK_MODE_EFS
}

// Status is a message's status in the sending log.
//
//	step               no EFS   EFS
//	handed over        Sent     Taken into account
//	delivered          Sent     Sent
//	hard bounce        Failed   Failed
//	soft bounce        Sent     Taken into account
//	a retry succeeds   Sent     Sent
//	retries fail       Failed   Failed
func Status(t Truth, mode veredusv1.FeedbackMode) veredusv1.LogStatus {
	switch t {
	case Pending:
		return veredusv1.LogStatus_LOG_STATUS_PENDING
	case InRelay, Deferred:
		if mode == veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS {
			return veredusv1.LogStatus_LOG_STATUS_SENT
		}
		return veredusv1.LogStatus_LOG_STATUS_TAKEN_INTO_ACCOUNT
	case Sent:
		return veredusv1.LogStatus_LOG_STATUS_SENT
	case Failed:
		return veredusv1.LogStatus_LOG_STATUS_FAILED
	case Ignored:
		return veredusv1.LogStatus_LOG_STATUS_IGNORED
	case CancelledMessage:
		return veredusv1.LogStatus_LOG_STATUS_CANCELLED
	}
	return veredusv1.LogStatus_LOG_STATUS_UNSPECIFIED
}

// hardReasons and softReasons are the failures that the KPIs count as hard and soft.
var (
	hardReasons = []veredusv1.FailureReason{veredusv1.FailureReason_FAILURE_REASON_USER_UNKNOWN}
	softReasons = []veredusv1.FailureReason{
		veredusv1.FailureReason_FAILURE_REASON_UNREACHABLE,
		veredusv1.FailureReason_FAILURE_REASON_MAILBOX_FULL,
		veredusv1.FailureReason_FAILURE_REASON_INVALID_DOMAIN,
		veredusv1.FailureReason_FAILURE_REASON_ACCOUNT_DISABLED,
		veredusv1.FailureReason_FAILURE_REASON_NOT_CONNECTED,
		veredusv1.FailureReason_FAILURE_REASON_REFUSED,
	}
)

func sumOf(by map[int32]int64, reasons []veredusv1.FailureReason) int64 {
	var n int64
	for _, r := range reasons {
		n += by[int32(r)]
	}
	return n
}

// success is the share of what was to be delivered that succeeded, 0 to 100; nil
// while nothing is to be delivered.
func success(mode veredusv1.FeedbackMode, toDeliver, sent, failed, cancelled int64) *float64 {
	if toDeliver == 0 {
		return nil
	}
	good := sent
	if mode == veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS {
		good = toDeliver - failed - cancelled
	}
	return proto.Float64(100 * float64(good) / float64(toDeliver))
}

// reasonCounts lists counts, largest first.
func reasonCounts(by map[int32]int64) []*veredusv1.ReasonCount {
	var list []*veredusv1.ReasonCount
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		if n := by[reason]; n != 0 {
			list = append(list, &veredusv1.ReasonCount{Reason: veredusv1.FailureReason(reason), Count: n})
		}
	}
	slices.SortStableFunc(list, func(a, b *veredusv1.ReasonCount) int { return cmp.Compare(b.Count, a.Count) })
	return list
}

// Kpis are the key figures at now under a feedback mode.
func (c *Counters) Kpis(mode veredusv1.FeedbackMode, now time.Time) *veredusv1.Kpis {
	k := &veredusv1.Kpis{
		Ledger: &veredusv1.Ledger{
			Accepted: c.Accepted, Ignored: sum(c.Ignored), Pending: c.Pending,
			TakenIntoAccount: c.InRelay, Sent: c.Sent, Failed: c.Failed, Cancelled: c.Cancelled,
		},
		Rejected:           c.Rejected,
		ToDeliver:          c.ToDeliver(),
		Sent:               c.Sent,
		SuccessPercent:     success(mode, c.ToDeliver(), c.Sent, c.Failed, c.Cancelled),
		FailedByReason:     reasonCounts(c.FailedBy),
		Hard:               sumOf(c.FailedBy, hardReasons),
		Soft:               sumOf(c.FailedBy, softReasons),
		Complaints:         c.Complaints,
		Unsubscribes:       c.Unsubs,
		Attempts:           c.Attempts,
		IgnoredByReason:    reasonCounts(c.Ignored),
		HandedOverLastHour: c.HandedOver.LastHour(now),
		DeliveredLastHour:  c.DeliveredBy.LastHour(now),
		Deferred:           c.Deferred,
		ByDestination:      destinations(c.By, mode, now),
	}
	if mode == veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS {
		k.Sent += c.InRelay
	}
	return k
}

// maxShownDestinations is how many destinations KPIs list, OtherDestination included.
const maxShownDestinations = 200

// destinations are the figures by destination, largest first, OtherDestination last.
func destinations(by map[string]*DestinationCounters, mode veredusv1.FeedbackMode, now time.Time) []*veredusv1.DestinationKpis {
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(
			compareBool(a == OtherDestination, b == OtherDestination),
			cmp.Compare(by[b].learned(), by[a].learned()),
			cmp.Compare(by[b].Attempts, by[a].Attempts),
			cmp.Compare(a, b),
		)
	})
	var list []*veredusv1.DestinationKpis
	rest := &DestinationCounters{FailedBy: map[int32]int64{}}
	folded := len(names) > maxShownDestinations
	for i, name := range names {
		if folded && i >= maxShownDestinations-1 {
			rest.add(by[name], now)
			continue
		}
		list = append(list, by[name].kpis(name, mode, now))
	}
	if folded {
		list = append(list, rest.kpis(OtherDestination, mode, now))
	}
	return list
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// learned is how many messages are known to belong to the destination: those that
// were settled at least once.
func (d *DestinationCounters) learned() int64 { return d.Sent + d.Failed + d.Deferred + d.Cancelled }

func (d *DestinationCounters) kpis(name string, mode veredusv1.FeedbackMode, now time.Time) *veredusv1.DestinationKpis {
	return &veredusv1.DestinationKpis{
		Destination:       name,
		Sent:              d.Sent,
		Failed:            d.Failed,
		Deferred:          d.Deferred,
		Attempts:          d.Attempts,
		Hard:              sumOf(d.FailedBy, hardReasons),
		Soft:              sumOf(d.FailedBy, softReasons),
		FailedByReason:    reasonCounts(d.FailedBy),
		Complaints:        d.Complaints,
		Unsubscribes:      d.Unsubs,
		ToDeliver:         d.learned(),
		SuccessPercent:    success(mode, d.learned(), d.Sent, d.Failed, d.Cancelled),
		Cancelled:         d.Cancelled,
		AuthRejections:    d.AuthRejections,
		ContentRejections: d.ContentRejections,
		DeliveredLastHour: d.DeliveredBy.LastHour(now),
	}
}

// add adds another destination's figures as they stand at now.
func (d *DestinationCounters) add(o *DestinationCounters, now time.Time) {
	d.Sent += o.Sent
	d.Failed += o.Failed
	d.Deferred += o.Deferred
	d.Attempts += o.Attempts
	d.Complaints += o.Complaints
	d.Unsubs += o.Unsubs
	d.Cancelled += o.Cancelled
	d.AuthRejections += o.AuthRejections
	d.ContentRejections += o.ContentRejections
	for reason, n := range o.FailedBy {
		d.FailedBy[reason] += n
	}
	d.DeliveredBy.Add(now, o.DeliveredBy.LastHour(now))
}

// API is the delivery as clients see it at now, with its content. It shares
// the parts of Spec.
func (d *Delivery) API(now time.Time) *veredusv1.Delivery {
	return &veredusv1.Delivery{
		Name:           deliveryName(d.ID),
		Tenant:         d.tenant(),
		State:          d.State.API(),
		Sender:         d.Spec.GetSender(),
		Content:        d.Spec.GetContent(),
		Label:          d.Spec.GetLabel(),
		Metadata:       d.Spec.GetMetadata(),
		ValidityPeriod: d.Spec.GetValidityPeriod(),
		FeedbackMode:   d.Mode(),
		Pool:           d.pool(),
		ListId:         d.Spec.GetListId(),
		Unsubscribe:    d.Spec.GetUnsubscribe(),
		Priority:       int32(d.priority()),
		Transactional:  d.Transactional,
		CreateTime:     timestamp(d.Created),
		UpdateTime:     timestamp(d.Updated),
		StartTime:      timestamp(d.Started),
		ExpireTime:     timestamp(d.Expires),
		FinishTime:     timestamp(d.Finished),
		Kpis:           d.Counters.Kpis(d.Mode(), now),
	}
}

// brief is API without content.
func (d *Delivery) brief(now time.Time) *veredusv1.Delivery {
	api := d.API(now)
	api.Content = nil
	return api
}

func deliveryName(id string) string { return "deliveries/" + id }

// timestamp is unset for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
