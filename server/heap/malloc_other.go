//go:build !linux || !(amd64 || arm64) || nolibcrypto

package heap

func fewHeaps() bool { return false }
