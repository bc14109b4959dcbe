package dkim

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestCanonicalLinesHashLikeAnyOthers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		any, canonical := NewBodyHash(), NewBodyHash()
		line := rapid.SampledFrom([]string{"", "", "text", " a b", "=", string(bytes.Repeat([]byte("0123456789 "), 300)) + "x"})
		for range rapid.IntRange(0, 8).Draw(rt, "pieces") {
			var piece []byte
			for _, one := range rapid.SliceOfN(line, 0, 5).Draw(rt, "lines") {
				piece = append(append(piece, one...), "\r\n"...)
			}
			_, _ = any.Write(piece)
			if rapid.Bool().Draw(rt, "canonical") {
				canonical.WriteCanonical(piece)
			} else {
				_, _ = canonical.Write(piece)
			}
		}
		if got, want := canonical.Sum(), any.Sum(); got != want {
			rt.Fatalf("hash %x, want %x", got, want)
		}
	})
}
