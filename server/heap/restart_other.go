//go:build !linux

package heap

// OneOfC does nothing on systems without glibc.
func OneOfC() {}
