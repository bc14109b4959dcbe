package server

import (
	"context"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/learning"
)

// texts is the part of RelayService that deals with reply texts; *learning.Service is one.
type texts interface {
	ListReplyTexts(ctx context.Context, req *veredusv1.ListReplyTextsRequest) (*veredusv1.ListReplyTextsResponse, error)
	QualifyReplyText(ctx context.Context, req *veredusv1.QualifyReplyTextRequest) (*veredusv1.QualifyReplyTextResponse, error)
	Requalify(ctx context.Context, req *veredusv1.RequalifyRequest) (*veredusv1.RequalifyResponse, error)
}

// bounces are the rules in force.
func (s *Server) bounces() *bounce.Table { return s.settings.Load().bounces }

func (s *Server) learningService() *learning.Service {
	return learning.NewService(learning.Options{
		Store: s.store, Entries: s.store, Flush: s.texts.Flush,
		Bounces: s.bounces,
		Policy:  s.addressPolicy,
		File:    func() string { return bounceFile(s.settings.Load().cfg) },
		Reload:  func(ctx context.Context) error { _, _, err := s.Reload(ctx); return err },
		Replay:  s.replay, EntryName: address.EntryName, Now: s.now, Log: s.log,
	})
}

// addressService is AddressService.
func (s *Server) addressService() *address.Service {
	return address.NewService(address.Options{
		Store: s.store, Policy: s.addressPolicy, Rotated: s.links.rotated, Now: s.now,
		Replay: func(ctx context.Context, req address.Request) ([]byte, bool, error) {
			return s.store.Replay(ctx, campaign.Request{ID: req.ID, Method: req.Method, Body: req.Body})
		},
	})
}

// replay checks that no other call has the request's id.
func (s *Server) replay(ctx context.Context, req address.Request) error {
	if req.ID == "" {
		return nil
	}
	_, _, err := s.store.Replay(ctx, campaign.Request{ID: req.ID, Method: req.Method, Body: req.Body})
	return err
}
