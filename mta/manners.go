package mta

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

// lapseKept is how long a host is spoken to more simply after it broke inside a group;
// maxLapses bounds how many hosts are remembered.
const (
	lapseKept = time.Hour
	maxLapses = 4096
)

// manners remembers the hosts that do not bear a grouping, and until when. Sessions ask
// before every message, and hardly ever is there anything to remember: so the map is
// never changed but replaced.
type manners struct {
	mu    sync.Mutex
	hosts atomic.Pointer[map[string]lapses]
}

// lapses are until when each grouping is not used with a host.
type lapses [smtpc.Chunked + 1]time.Time

// bears reports whether a grouping may be used with a host.
func (m *manners) bears(host string, g smtpc.Grouping, now time.Time) bool {
	hosts := m.hosts.Load()
	if hosts == nil {
		return true
	}
	l, ok := (*hosts)[host]
	return !ok || !now.Before(l[g])
}

// any reports whether anything is remembered.
func (m *manners) any() bool { return m.hosts.Load() != nil }

// broke remembers that a host broke inside a grouping, for so long; news is false when
// that was known.
func (m *manners) broke(host string, g smtpc.Grouping, now time.Time, keep time.Duration) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news = m.bears(host, g, now)
	hosts := map[string]lapses{}
	if old := m.hosts.Load(); old != nil {
		hosts = maps.Clone(*old)
	}
	l := hosts[host]
	l[g] = now.Add(keep)
	hosts[host] = l
	m.trim(hosts, now)
	m.hosts.Store(&hosts)
	return news
}

// trim forgets what is over and, when hosts are too many, the one that is over first.
func (m *manners) trim(hosts map[string]lapses, now time.Time) {
	first, end := "", time.Time{}
	for host, l := range hosts {
		last := l.end()
		if !now.Before(last) {
			delete(hosts, host)
		} else if first == "" || last.Before(end) || last.Equal(end) && host < first {
			first, end = host, last
		}
	}
	if len(hosts) > maxLapses {
		delete(hosts, first)
	}
}

func (l *lapses) end() (last time.Time) {
	for _, until := range l {
		if until.After(last) {
			last = until
		}
	}
	return last
}

// lapseText says what broke and what is done about it.
func lapseText(host string, g smtpc.Grouping, cause string, keep time.Duration) string {
	what := map[smtpc.Grouping]string{
		smtpc.Grouped: "commands go one by one",
		smtpc.Across:  "no envelope goes behind the content of the message before",
		smtpc.Chunked: "content goes by DATA instead of BDAT",
	}[g]
	return fmt.Sprintf("%s broke inside a group (%s: %s); for %s %s", host, g, cause, keep, what)
}
