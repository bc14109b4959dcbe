//go:build !linux

package heap

// OneArena does nothing on systems without glibc.
func OneArena() {}
