package server

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bindLate leaves the choice of the local port to connect, which knows the remote
// address: otherwise a source could have no more connections over all destinations
// than there are ports (ip(7), IP_BIND_ADDRESS_NO_PORT). A kernel without the
// option (before 4.2) goes on with that bound.
func bindLate(c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
