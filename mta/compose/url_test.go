package compose

import (
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What is passed without a closer look would have passed it.
func TestPlainURLsAreURLs(t *testing.T) {
	piece := rapid.SampledFrom([]string{"https", "http", "://", ":", "/", "//", "a", "Z9", ".", "-", "_", "~", "?", "=", "&", "#", "%41", "%", "@", ":443", "[::1]", "\u00e9", " ", "mail.example.com"})
	rapid.Check(t, func(rt *rapid.T) {
		s := strings.Join(rapid.SliceOfN(piece, 0, 10).Draw(rt, "pieces"), "")
		if rapid.Bool().Draw(rt, "likely") {
			s = "https://mail.example.com/" + s
		}
		if !isPlainURL(s, "https") {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || escapeURL(s) != s {
			rt.Fatalf("%q is not plain: %v", s, err)
		}
	})
	for s, want := range map[string]bool{
		"https://a.example/u/x?y=z&t=~": true, "://a.example/": false, "a.example/": false, "https:///x": false, "https://a.example": false, "https://me@a.example/": false, "https://a.example/%zz": false, "": false,
	} {
		if isPlainURL(s, "https") != want {
			t.Errorf("%q: want %v", s, want)
		}
	}
}
