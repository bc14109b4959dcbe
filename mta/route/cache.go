package route

import (
	"sync"
	"time"
)

// cache keeps values until they expire and holds at most max octets of them by
// the callers' own estimate, so that no stream of hostile answers can grow it.
// It is safe for concurrent use.
type cache[K comparable, V any] struct {
	mu      sync.RWMutex
	max     int
	used    int
	entries map[K]entry[V]
}

type entry[V any] struct {
	value   V
	cost    int
	expires time.Time
}

func newCache[K comparable, V any](max int) *cache[K, V] {
	return &cache[K, V]{max: max, entries: make(map[K]entry[V])}
}

// get returns the value of key unless it has expired at now.
func (c *cache[K, V]) get(key K, now time.Time) (V, bool) {
	c.mu.RLock()
	e, ok := c.entries[key]
	c.mu.RUnlock()
	if !ok || !now.Before(e.expires) {
		var none V
		return none, false
	}
	return e.value, true
}

// put keeps value until expires, evicting others when the cache is full.
func (c *cache[K, V]) put(key K, value V, cost int, expires, now time.Time) {
	if cost > c.max || !now.Before(expires) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
	for c.used+cost > c.max {
		c.evict(now)
	}
	c.entries[key] = entry[V]{value, cost, expires}
	c.used += cost
}

func (c *cache[K, V]) remove(key K) {
	c.used -= c.entries[key].cost
	delete(c.entries, key)
}

// evict drops one entry: of a handful met in map order, which is random, the
// one that expires first. That finds the dead ones without keeping a list.
func (c *cache[K, V]) evict(now time.Time) {
	const sample = 8
	var victim K
	var first time.Time
	seen := 0
	for key, e := range c.entries {
		if seen == 0 || e.expires.Before(first) {
			victim, first = key, e.expires
		}
		if seen++; seen == sample || !now.Before(first) {
			break
		}
	}
	c.remove(victim)
}
