//go:build unix

package server

import "syscall"

// raiseDescriptors raises the soft limit of open files (setrlimit(2), RLIMIT_NOFILE) to the
// hard one, and answers what holds then.
func raiseDescriptors() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Cur < limit.Max {
		raised := limit
		raised.Cur = raised.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			limit = raised
		}
	}
	return uint64(limit.Cur), nil
}
