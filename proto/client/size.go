package client

import (
	"context"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxRequest is how many octets a node reads of one request.
const maxRequest = 4 << 20

// refuseLarge refuses a request that no node would read, before it is sent:
// INVALID_ARGUMENT, with the largest field of the request, its size and the remedy.
func refuseLarge(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if m, ok := req.(proto.Message); ok {
		if size := proto.Size(m); size > maxRequest {
			return tooLarge(m, size)
		}
	}
	return invoke(ctx, method, req, reply, conn, options...)
}

func tooLarge(m proto.Message, size int) error {
	field, part := largest(m.ProtoReflect())
	description := fmt.Sprintf("is %d octets long, of a request of %d; a node takes requests of at most %d, and content of 1 MiB together: shorten it", part, size, maxRequest)
	s := status.New(codes.InvalidArgument, field+": "+description)
	full, err := s.WithDetails(
		&errdetails.ErrorInfo{Reason: "INVALID_FIELD", Domain: errorDomain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: description}}},
	)
	if err != nil {
		full = s
	}
	return full.Err()
}

// largest is the path of the largest field, and its octets: into messages as far as a
// single one goes.
func largest(m protoreflect.Message) (path string, octets int) {
	var field protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if n := sizeOf(m, f, v); n > octets {
			field, octets = f, n
		}
		return true
	})
	if field == nil {
		return "", 0
	}
	path = string(field.Name())
	if field.Message() != nil && field.Cardinality() != protoreflect.Repeated {
		if inner, n := largest(m.Get(field).Message()); inner != "" {
			return path + "." + inner, n
		}
	}
	return path, octets
}

// sizeOf is what a field takes on the wire; for text and octets, how long they are.
func sizeOf(m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value) int {
	if f.Cardinality() != protoreflect.Repeated {
		switch f.Kind() {
		case protoreflect.StringKind:
			return len(v.String())
		case protoreflect.BytesKind:
			return len(v.Bytes())
		}
	}
	alone := m.New()
	alone.Set(f, v)
	return proto.Size(alone.Interface())
}
