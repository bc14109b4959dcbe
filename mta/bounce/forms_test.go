package bounce

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Replies in the wording of known servers, written from knowledge of them before
// it was known what the rules make of them; "\n" stands for a line's end.
func TestFormsOfKnownServers(t *testing.T) {
	f, err := os.Open("testdata/forms.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	table, n := Default(), 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		codes, reply, ok := strings.Cut(lines.Text(), " | ")
		if !ok {
			continue
		}
		n++
		accepted := strings.Fields(codes)
		v := table.Qualify(Input{Reply: ParseReply(strings.ReplaceAll(reply, `\n`, "\n"))})
		if !slices.Contains(accepted, strconv.Itoa(v.Code)) {
			t.Errorf("code %d (%s) by %s, acceptable %s: %s", v.Code, v.Tag, v.Rule, codes, reply)
		}
		if v.Address == AddressSuppress && !slices.Contains(accepted, "10") {
			t.Errorf("suppressed by %s: %s", v.Rule, reply)
		}
	}
	if n < 1000 {
		t.Errorf("%d replies", n)
	}
}
