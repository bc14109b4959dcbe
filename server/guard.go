package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/disk"
	"github.com/veredus/veredus/server/retention"
)

// What the disk has room for, and what goes to make room.

// takesIn are the calls that store what was not there: they are refused while the disk is
// nearly full. Those that steer, read or delete go on.
var takesIn = map[string]bool{
	veredusv1.CampaignService_CreateDelivery_FullMethodName:      true,
	veredusv1.CampaignService_UpdateDelivery_FullMethodName:      true,
	veredusv1.CampaignService_AddRecipients_FullMethodName:       true,
	veredusv1.CampaignService_SendMessage_FullMethodName:         true,
	veredusv1.AddressService_ImportAddressEntries_FullMethodName: true,
}

// admit refuses a call that the disk or the memory has no room for: a *disk.FullError or a
// *heap.FullError.
func (s *Server) admit(method string) error {
	if !takesIn[method] {
		return nil
	}
	if err := s.memory.Admit(); err != nil {
		s.metrics.shed.WithLabelValues("memory").Inc()
		return err
	}
	return s.disk.Admit()
}

// diskHold is the name of the suspension while the disk is nearly full; operators read it
// where they ask why mail waits.
const diskHold = "the disk of data_dir is nearly full (storage.min_free_sending)"

// newGuard makes the guard of data_dir, which has to exist. It looks for the first time
// before any mail flows.
func (s *Server) newGuard() *disk.Guard {
	return disk.NewGuard(disk.Options{
		Free:    func() (int64, error) { return freeBytes(s.opts.FS, s.cfg.DataDir) },
		Limits:  s.diskLimits,
		Changed: s.diskChanged,
		Log:     s.log,
	})
}

// allFree is the room of a file system that cannot tell. Nobody watches it.
const allFree = 1 << 62

// freeBytes is the room for this process. A file system that cannot tell, as one in
// memory, has all there is.
func freeBytes(fs vfs.FS, dir string) (int64, error) {
	usage, err := fs.GetDiskUsage(dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return allFree, nil
	}
	return int64(min(usage.AvailBytes, allFree)), err
}

func (s *Server) diskLimits() disk.Limits {
	c := s.settings.Load().cfg.Storage
	return disk.Limits{Low: c.MinFree, Scarce: c.MinFreeSending}
}

// diskChanged pauses and resumes sending, with an event. Mail being sent settles; loaded mail goes
// back to its runs.
func (s *Server) diskChanged(ctx context.Context, c disk.Change) error {
	if c.To != disk.Scarce && c.From != disk.Scarce {
		return nil
	}
	event := mta.RelayEvent{Kind: mta.PathResumedEvent, Time: s.now(), Text: fmt.Sprintf("every path: the disk has room again, %d MiB free", c.Free>>20)}
	if c.To != disk.Scarce {
		if err := s.relay.Unsuspend(ctx, diskHold); err != nil {
			return err
		}
		return s.store.Tell(ctx, event)
	}
	if err := s.relay.Suspend(ctx, diskHold, dispatch.Selector{Kind: dispatch.Everything}); err != nil {
		return err
	}
	event.Kind = mta.PathSuspendedEvent
	event.Text = fmt.Sprintf("every path: %s: %d MiB free, %d MiB wanted; sending goes on by itself when there is room", diskHold, c.Free>>20, c.Limits.Scarce>>20)
	return s.store.Tell(ctx, event)
}

// errNoRoom defers mail that comes back while the disk is nearly full: its sender keeps it.
var errNoRoom = errors.New("the disk is nearly full: mail that comes back is deferred")

// newPurger makes what removes by retention.
func (s *Server) newPurger() *retention.Purger {
	return retention.NewPurger(retention.Options{
		Store: s.store, Now: s.now, Log: s.log, Observe: s.metrics.purged,
		Policy: func() retention.Policy {
			c := s.settings.Load().cfg.Retention
			return retention.Policy{EventsAge: c.EventsAge, EventsSize: c.EventsSize, Messages: c.Messages}
		},
	})
}

// purged counts what retention removed.
func (m *metrics) purged(r retention.Removed) {
	m.removed.WithLabelValues("events").Add(float64(r.Events))
	m.removed.WithLabelValues("deliveries").Add(float64(r.Deliveries))
	m.removed.WithLabelValues("single_messages").Add(float64(r.Messages))
}

func newRemoved() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "veredus_retention_removed_total", Help: "What retention removed: events, deliveries (their content and messages) and single_messages.",
	}, []string{"what"})
}

// registerDisk shows what the guard saw last.
func (s *Server) registerDisk() {
	s.metrics.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "veredus_disk_free_bytes", Help: "Free disk of data_dir.",
		}, func() float64 { return float64(s.disk.Free()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "veredus_disk_level", Help: "0: roomy; 1: low, nothing new is taken in; 2: scarce, sending pauses.",
		}, func() float64 { return float64(s.disk.Level()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "veredus_store_bytes", Help: "Disk that the store takes, its log included.",
		}, func() float64 { return float64(s.store.Bytes()) }),
	)
}
