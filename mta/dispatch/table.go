package dispatch

import "iter"

// Table finds values by numbers that were given in a row, such as RunIDs: a map of
// half a million entries takes three times the memory. Its zero value is empty.
type Table[T any] struct {
	pages map[uint64]*tablePage[T]
	n     int
}

const tablePageSize = 256

type tablePage[T any] struct {
	slots [tablePageSize]*T
	n     int
}

// Get is the value of a number; nil when there is none.
func (t *Table[T]) Get(number uint64) *T {
	if p := t.pages[number/tablePageSize]; p != nil {
		return p.slots[number%tablePageSize]
	}
	return nil
}

// Put sets the value of a number that has none.
func (t *Table[T]) Put(number uint64, x *T) {
	if t.pages == nil {
		t.pages = map[uint64]*tablePage[T]{}
	}
	p := t.pages[number/tablePageSize]
	if p == nil {
		p = &tablePage[T]{}
		t.pages[number/tablePageSize] = p
	}
	p.slots[number%tablePageSize] = x
	p.n++
	t.n++
}

// Remove takes a value out, if there is one.
func (t *Table[T]) Remove(number uint64) {
	p := t.pages[number/tablePageSize]
	if p == nil || p.slots[number%tablePageSize] == nil {
		return
	}
	p.slots[number%tablePageSize] = nil
	t.n--
	if p.n--; p.n == 0 {
		delete(t.pages, number/tablePageSize)
	}
}

// Len is how many values there are.
func (t *Table[T]) Len() int { return t.n }

// All visits the values in no order. The one visited may be removed meanwhile.
func (t *Table[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, p := range t.pages {
			for _, x := range p.slots {
				if x != nil && !yield(x) {
					return
				}
			}
		}
	}
}
