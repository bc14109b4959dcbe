package rulefile

import (
	"bytes"
	"os"
	"testing"

	"github.com/veredus/veredus/mxrules"
)

func TestTmp(t *testing.T) {
	var b bytes.Buffer
	Print(mxrules.Builtin(), &b)
	os.Stdout.Write(b.Bytes())
	r, err := Parse("x", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal(mxrules.Builtin()) {
		t.Fatal("no")
	}
}
