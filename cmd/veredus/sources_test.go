package main

import (
	"strings"
	"testing"
)

func TestSourcesAndTheirWarmUp(t *testing.T) {
	n := startNode(t, `relay: {pools: {default: [{name: a}, {name: b, hostname: b.veredus.example, weight: 3, warm_up: {stage: 2}}]}}`)
	list := n.run(t, "sources list")
	if list.status != exitOK {
		t.Fatal(list.err)
	}
	for _, want := range []string{"sandbox.veredus.example", "b.veredus.example", "2 of 29", "500", "advancing"} {
		if !strings.Contains(list.out, want) {
			t.Errorf("%q is not in\n%s", want, list.out)
		}
	}
	set := n.run(t, "sources warm-up b --stage 5 --json")
	if set.status != exitOK || !strings.Contains(set.out, `"stage":5`) || !strings.Contains(set.out, `"cap":"5000"`) {
		t.Errorf("%d %s %s", set.status, set.out, set.err)
	}
	if off := n.run(t, "sources warm-up b --off"); off.status != exitOK || !strings.Contains(off.out, "off because an operator ended it") {
		t.Errorf("%d %s %s", off.status, off.out, off.err)
	}
	if bad := n.run(t, "sources warm-up a --stage 5"); bad.status == exitOK || !strings.Contains(bad.err, "warm_up: on") {
		t.Errorf("%d %s", bad.status, bad.err)
	}
	if none := n.run(t, "sources warm-up b"); none.status != exitUsage || !strings.Contains(none.err, "--stage") {
		t.Errorf("%d %s", none.status, none.err)
	}
}
