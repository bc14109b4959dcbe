// Package campaign takes deliveries and their recipients, hands them to the relay
// and tells their fate.
//
// Service is the CampaignService of the API. It holds no state of its own beside
// who streams recipients at this moment: deliveries, recipients and the sending log
// live behind the interfaces of store.go, and every answer comes from there. A
// call that changes a delivery is durable first and then told to the relay.
package campaign

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// MaxLifetime is how long the relay keeps any message at most, from its arrival
// there (Momentum's default retention, and Adobe Campaign's limit).
const MaxLifetime = 84 * time.Hour

// Relay is what the service needs of the relay; *mta.Relay has it. Each call takes
// effect before it returns, but for HandOver and Arrived, which only announce.
type Relay interface {
	HandOver(h *mta.Handover)
	Arrived(h *mta.Handover, id mta.MessageID, domain string, expires time.Time)
	Pause(ctx context.Context, delivery uint64) error
	Unpause(ctx context.Context, delivery uint64) error
	Cancel(ctx context.Context, delivery uint64) error
	Update(ctx context.Context, delivery uint64, pool string, priority int, expires time.Time) error
	Waiting(ctx context.Context, id mta.MessageID) (wait dispatch.Wait, sending bool, err error)
}

// Options are what a Service is made of. All but HasPool, HostedURL, Addresses, Doctor, Forecast,
// Ingested, Now and Stopping are required.
// The functions are asked at every use, so that a reload takes effect at once.
type Options struct {
	Deliveries Deliveries
	Recipients Recipients
	Log        SendingLog
	Relay      Relay
	// Keys finds the DKIM keys that sign mail from a domain; none is nil.
	Keys func(fromDomain string) []*dkim.Key
	// BounceDomain is the domain of the return path and the Message-ID for a From domain.
	BounceDomain func(fromDomain string) string
	// HasPool reports whether a source pool is configured; nil takes any name.
	HasPool func(name string) bool
	// HostedURL is what hosted unsubscribe links begin with (public.url); empty, or nil, when the
	// node has no public listener.
	HostedURL func() string
	// Addresses says who must not be mailed; nil excludes nobody.
	Addresses Exclusions
	// Doctor looks at what the world sees of a delivery's From domain and pool (DNS,
	// addresses) and answers within seconds; nil finds nothing.
	Doctor func(ctx context.Context, d *Delivery) []*veredusv1.Finding
	// Forecast tells, within seconds, how a delivery would go (see Outlook); nil tells nothing.
	Forecast func(ctx context.Context, d *Delivery) []*veredusv1.Finding
	// TimeScale divides validity periods: a sandbox's faster time. 0 and 1 leave them.
	TimeScale float64
	// IngestBytes is how many octets of recipients all streams together may hold that are
	// not durable; 0 is 64 MiB.
	IngestBytes int64
	// Ingested is told of every chunk of recipients once it is durable; may be nil.
	Ingested func(Ingested)
	// Now stamps deliveries and answers; nil is time.Now.
	Now func() time.Time
	// Stopping ends all streams once it is closed; nil never is.
	Stopping <-chan struct{}
}

// Ingested is what became of a chunk of recipients.
type Ingested struct {
	Accepted, Ignored, Rejected int64
}

// Service implements CampaignService. It is safe for concurrent use.
type Service struct {
	veredusv1.UnimplementedCampaignServiceServer
	o     Options
	turns turns // of calls that change a delivery
	gates turns // of writes of recipients

	mu      sync.Mutex
	streams map[string]*ingest // by delivery id
	// room bounds the recipients of all streams that are not durable yet, in octets.
	room *semaphore.Weighted
}

var _ veredusv1.CampaignServiceServer = (*Service)(nil)

// NewService makes the service.
func NewService(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IngestBytes == 0 {
		o.IngestBytes = maxIngestBytes
	}
	return &Service{o: o, streams: map[string]*ingest{}, room: semaphore.NewWeighted(o.IngestBytes)}
}

// now is the time in UTC without its monotonic part, as it will be stored.
func (s *Service) now() time.Time { return s.o.Now().UTC().Round(0) }
