package serve

import (
	"net"

	"golang.org/x/sys/unix"
)

// The kernel's TCP states, <net/tcp_states.h>.
const (
	tcpEstablished = 1
	tcpSynRecv     = 3
)

// peerGone reports whether the peer has already ended the connection by FIN or
// reset, which the kernel knows before our reading goroutine does.
func peerGone(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || (info.State != tcpEstablished && info.State != tcpSynRecv)
	})
	return err != nil || gone
}
