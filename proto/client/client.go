// Package client is the Go client of a Veredus node for the two calls that are
// more than a call: uploading recipients and following feedback. Both are long
// streams that outlive connections. For everything else use the generated
// clients of package veredusv1 on the connection that [Dial] returns.
//
//	conn, err := client.Dial("127.0.0.1:8025")
//	campaigns := veredusv1.NewCampaignServiceClient(conn)
//	d, err := campaigns.CreateDelivery(ctx, ...)
//	totals, err := (&client.Uploader{Client: campaigns, Delivery: d.Name}).Upload(ctx, client.Slice(recipients))
//	_, err = campaigns.PrepareDelivery(ctx, ...)
//	_, err = campaigns.StartDelivery(ctx, ...)
//	err = (&client.Follower{Client: veredusv1.NewFeedbackServiceClient(conn), Handle: handle}).Follow(ctx)
//
// An [Uploader] sends chunks ahead of their acknowledgements, connects again
// when the line breaks and goes on behind the last durable recipient. A
// [Follower] hands over events with the token that resumes right behind them.
package client

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Dial returns a connection to the node at addr, host:port. It does not block: the
// first call connects. Loopback is spoken to in plaintext, everything else with
// TLS and the system's roots; options given here come after the defaults and win,
// for example grpc.WithTransportCredentials. A request that no node would read, of more
// than 4 MiB, is refused before it is sent, with the field to blame. The caller closes the connection.
func Dial(addr string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: give host:port, for example 127.0.0.1:8025: %w", addr, err)
	}
	security := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	if Loopback(host) {
		security = insecure.NewCredentials()
	}
	defaults := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithChainUnaryInterceptor(refuseLarge),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstDelay, Multiplier: 2, Jitter: 0.2, MaxDelay: mostDelay},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, append(defaults, options...)...)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	return conn, nil
}

const (
	// keepaliveTime is how long a line with a stream on it may be silent before it
	// is probed.
	keepaliveTime = 30 * time.Second
	// keepaliveTimeout is how long a probe may go unanswered.
	keepaliveTimeout = 20 * time.Second
)

// Loopback reports whether host names this machine: "localhost" or a loopback
// address. Dial speaks plaintext to such hosts.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
