package serve

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// handshakeTimeout bounds a TLS handshake; a sender that needs longer has gone.
const handshakeTimeout = 30 * time.Second

// handshake turns the plain connection into a TLS one.
func (c *conn) handshake() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.w.ctx, handshakeTimeout)
	defer cancel()
	if err := c.tcp.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	stream := tls.Server(c.tcp, c.w.tls)
	if err := stream.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return stream, c.tcp.SetDeadline(time.Time{})
}
