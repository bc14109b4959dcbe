package mta

import (
	"fmt"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

func TestHostsThatBrokeAreRememberedForAWhile(t *testing.T) {
	var m manners
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	if m.any() || !m.bears("mx", smtpc.Across, now) {
		t.Error("a host is held back that did nothing")
	}
	if !m.broke("mx", smtpc.Across, now, time.Hour) {
		t.Error("the first time is no news")
	}
	if m.broke("mx", smtpc.Across, now.Add(time.Minute), time.Hour) {
		t.Error("the second time is news")
	}
	for _, c := range []struct {
		host string
		g    smtpc.Grouping
		at   time.Duration
		want bool
	}{
		{"mx", smtpc.Across, 30 * time.Minute, false},
		{"mx", smtpc.Across, 61 * time.Minute, true},
		{"mx", smtpc.Chunked, 30 * time.Minute, true},
		{"mx2", smtpc.Across, 30 * time.Minute, true},
	} {
		if got := m.bears(c.host, c.g, now.Add(c.at)); got != c.want {
			t.Errorf("%s bears %v after %v: %t", c.host, c.g, c.at, got)
		}
	}
	if !m.broke("mx", smtpc.Across, now.Add(2*time.Hour), time.Hour) {
		t.Error("it is news again after an hour")
	}
}

func TestRememberedHostsAreBounded(t *testing.T) {
	var m manners
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const extra = 10
	for n := range maxLapses + extra {
		m.broke(fmt.Sprint(n), smtpc.Chunked, now.Add(time.Duration(n)*time.Millisecond), time.Hour)
	}
	if n := len(*m.hosts.Load()); n != maxLapses {
		t.Errorf("%d hosts are remembered", n)
	}
	for n := range extra {
		if !m.bears(fmt.Sprint(n), smtpc.Chunked, now.Add(time.Minute)) {
			t.Errorf("host %d should have made room for a later one", n)
		}
	}
}
