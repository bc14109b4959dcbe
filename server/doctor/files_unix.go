//go:build unix

package doctor

import "syscall"

// openFiles is how many files this process may open. The Go runtime has raised the soft
// limit to the hard one, as it will for the node.
func openFiles() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return uint64(limit.Cur), nil
}
