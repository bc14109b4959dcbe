package dispatch

// timer is an instant at which its owner wants to be looked at.
type timer struct {
	at  int64 // Unix nanoseconds
	pos int32 // place in the heap from 1; 0 is not armed
}

func (t *timer) armed() bool { return t.pos != 0 }

// timers is a binary heap of owners by their timers. Timers of equal instants
// fire in an order that depends only on the order of operations.
type timers[T any] struct {
	items []*T
	of    func(*T) *timer
}

// arm sets x's timer, whether it was armed or not.
func (h *timers[T]) arm(x *T, at int64) {
	t := h.of(x)
	if t.pos == 0 {
		t.at = at
		h.items = append(h.items, x)
		t.pos = int32(len(h.items))
		h.up(len(h.items) - 1)
		return
	}
	if t.at == at {
		return
	}
	t.at = at
	i := int(t.pos) - 1
	h.up(i)
	h.down(int(t.pos) - 1)
}

// armBy arms x's timer unless it fires earlier already.
func (h *timers[T]) armBy(x *T, at int64) {
	if t := h.of(x); t.pos == 0 || at < t.at {
		h.arm(x, at)
	}
}

// stop disarms x's timer and keeps its instant.
func (h *timers[T]) stop(x *T) {
	t := h.of(x)
	if t.pos == 0 {
		return
	}
	i, last := int(t.pos)-1, len(h.items)-1
	h.swap(i, last)
	h.items[last] = nil
	h.items = h.items[:last]
	t.pos = 0
	if i < last {
		moved := h.items[i]
		h.up(i)
		h.down(int(h.of(moved).pos) - 1)
	}
	h.shrink()
}

// shrink gives memory back after a great many timers have fired.
func (h *timers[T]) shrink() {
	if c := cap(h.items); c > 4096 && len(h.items) < c/4 {
		h.items = append(make([]*T, 0, c/2), h.items...)
	}
}

// due takes out one whose time has come; nil when there is none.
func (h *timers[T]) due(now int64) *T {
	if len(h.items) == 0 || h.of(h.items[0]).at > now {
		return nil
	}
	x := h.items[0]
	h.stop(x)
	return x
}

// next is the earliest instant, or none.
func (h *timers[T]) next() int64 {
	if len(h.items) == 0 {
		return none
	}
	return h.of(h.items[0]).at
}

// shift moves every timer; their order stays.
func (h *timers[T]) shift(by int64) {
	for _, x := range h.items {
		h.of(x).at += by
	}
}

func (h *timers[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.of(h.items[i]).pos, h.of(h.items[j]).pos = int32(i+1), int32(j+1)
}

func (h *timers[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.of(h.items[parent]).at <= h.of(h.items[i]).at {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *timers[T]) down(i int) {
	for {
		least := 2*i + 1
		if least >= len(h.items) {
			return
		}
		if right := least + 1; right < len(h.items) && h.of(h.items[right]).at < h.of(h.items[least]).at {
			least = right
		}
		if h.of(h.items[i]).at <= h.of(h.items[least]).at {
			return
		}
		h.swap(i, least)
		i = least
	}
}
