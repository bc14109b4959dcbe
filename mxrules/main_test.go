package mxrules

import (
	"flag"
	"os"
	"testing"
)

// Property tests are cheap here, so they look further than rapid does unasked;
// -rapid.checks still decides.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "3000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
