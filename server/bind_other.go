//go:build !linux

package server

import "syscall"

// bindLate does nothing where the system has no such option.
func bindLate(syscall.RawConn) error { return nil }
