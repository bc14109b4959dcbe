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
	queues, err := s.relay.QueueSizes(ctx)
	if err != nil {
		return nil, err
	}
	queues = behind(queues, after)
	names := make([]string, 0, size)
	for _, q := range queues[:min(size, len(queues))] {
		names = append(names, q.Name)
	}
	views, err := s.relay.Destinations(ctx, names)
	if err != nil {
		return nil, err
	}
	resp := &veredusv1.ListDestinationsResponse{}
	for i := range views {
		resp.Destinations = append(resp.Destinations, s.destination(&views[i]))
	}
	if len(queues) > size {
		last := &queues[size-1]
		resp.NextPageToken = page{kind: destinationsPage, name: last.Name, size: last.Size}.token()
	}
	return resp, nil
}

// behind orders destinations, the longest queues first, and leaves out those before a place.
func behind(list []dispatch.QueueSize, place page) []dispatch.QueueSize {
	if place.name != "" {
		list = slices.DeleteFunc(list, func(q dispatch.QueueSize) bool {
			return byQueue(place.size, place.name, q.Size, q.Name) >= 0
		})
	}
	slices.SortFunc(list, func(a, b dispatch.QueueSize) int { return byQueue(a.Size, a.Name, b.Size, b.Name) })
	return list
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
