package campaign

import (
	"context"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// request identifies a mutating call: the same request_id with the same method and body is the
// same request. Without a request_id nothing is remembered.
func request(method, id string, body proto.Message) (Request, error) {
	if id == "" {
		return Request{}, nil
	}
	clone := proto.Clone(body).ProtoReflect()
	clone.Clear(clone.Descriptor().Fields().ByName("request_id"))
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(clone.Interface())
	if err != nil {
		return Request{}, fmt.Errorf("campaign: request %s: %w", method, err)
	}
	return Request{ID: id, Method: method, Body: sha256.Sum256(raw)}, nil
}

// replay reads the answer of an earlier call with this request into answer.
func (s *Service) replay(ctx context.Context, req Request, answer proto.Message) (found bool, err error) {
	if req.ID == "" {
		return false, nil
	}
	raw, found, err := s.o.Deliveries.Replay(ctx, req)
	if err != nil || !found {
		return false, err
	}
	if err := proto.Unmarshal(raw, answer); err != nil {
		return false, fmt.Errorf("campaign: remembered answer of %s: %w", req.Method, err)
	}
	return true, nil
}

// remember renders an answer for Request.Answer. Marshalling fails only for text that is
// not UTF-8, which no stored field holds.
func remember(answer proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(answer)
	if err != nil {
		return nil
	}
	return raw
}
