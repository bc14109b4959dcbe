package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// viewPage is how many destinations are taken from the relay at a time, so that it
// is never held up for long.
const viewPage = 1000

// eachDestination shows every destination.
func eachDestination(ctx context.Context, relay relayViews, each func(*dispatch.DestinationView)) error {
	after := ""
	for {
		views, err := relay.Destinations(ctx, after, viewPage)
		if err != nil {
			return err
		}
		for i := range views {
			each(&views[i])
		}
		if len(views) < viewPage {
			return nil
		}
		after = views[len(views)-1].Name
	}
}

// waiting is a destination's queue: what the list is ordered by.
func waiting(v *dispatch.DestinationView) int64 { return v.Ready + v.Deferred + v.InFlight }

// ListDestinations implements the call. Queues move between pages: a destination
// may then come twice or not at all.
func (s *relayService) ListDestinations(ctx context.Context, req *veredusv1.ListDestinationsRequest) (*veredusv1.ListDestinationsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parsePage(destinationsPage, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	top := largest{keep: size + 1, after: after}
	if err := eachDestination(ctx, s.relay, top.add); err != nil {
		return nil, err
	}
	resp := &veredusv1.ListDestinationsResponse{}
	for i := range top.list[:min(size, len(top.list))] {
		resp.Destinations = append(resp.Destinations, s.destination(&top.list[i]))
	}
	if len(top.list) > size {
		last := &top.list[size-1]
		resp.NextPageToken = page{kind: destinationsPage, name: last.Name, size: waiting(last)}.token()
	}
	return resp, nil
}

// largest keeps the destinations with the longest queues behind a place.
type largest struct {
	keep  int
	after page
	list  []dispatch.DestinationView
}

func (l *largest) add(v *dispatch.DestinationView) {
	if l.after.name != "" && byQueue(l.after.size, l.after.name, waiting(v), v.Name) >= 0 {
		return
	}
	i, _ := slices.BinarySearchFunc(l.list, v, func(a dispatch.DestinationView, v *dispatch.DestinationView) int {
		return byQueue(waiting(&a), a.Name, waiting(v), v.Name)
	})
	if i >= l.keep {
		return
	}
	l.list = slices.Insert(l.list, i, *v)
	l.list = l.list[:min(len(l.list), l.keep)]
}

// byQueue orders the longer queue first, then by name.
func byQueue(a int64, aName string, b int64, bName string) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return strings.Compare(aName, bName)
}

// GetDestination implements the call.
func (s *relayService) GetDestination(ctx context.Context, req *veredusv1.GetDestinationRequest) (*veredusv1.Destination, error) {
	name, ok := strings.CutPrefix(req.GetName(), destinationsPrefix)
	if !ok || name == "" || len(name) > 255 {
		return nil, invalid("name", req.GetName(), "is no destination", "write destinations/D as ListDestinations answers it")
	}
	view, found, err := s.relay.Destination(ctx, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &campaign.NotFoundError{Resource: destinationsPrefix + clip(name, 100)}
	}
	return s.destination(&view), nil
}

// maxHosts is how many MX hosts a destination shows.
const maxHosts = 20

func (s *relayService) destination(v *dispatch.DestinationView) *veredusv1.Destination {
	d := &veredusv1.Destination{
		Name: destinationsPrefix + v.Name, Provider: v.Provider, Domains: v.Domains, DomainCount: int64(v.DomainCount),
		Ready: v.Ready, Deferred: v.Deferred, InFlight: v.InFlight, LastReplies: s.replies.of(v.Name),
	}
	slices.SortStableFunc(v.Hosts, func(a, b dispatch.HostView) int { return int(a.Preference) - int(b.Preference) })
	for _, h := range v.Hosts[:min(len(v.Hosts), maxHosts)] {
		d.MxHosts = append(d.MxHosts, h.Name)
	}
	for i := range v.Paths {
		d.Paths = append(d.Paths, pathView(&v.Paths[i], s.now()))
	}
	return d
}

// ruleFile is the file of a rule as the contract names it.
func ruleFile(file string) string {
	if file == "" || file == mxrules.BuiltinFile {
		return "builtin"
	}
	return file
}

// stamp is a time, unset when zero.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
