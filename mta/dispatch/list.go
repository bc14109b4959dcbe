package dispatch

// links tie a value into one list. A value may be in as many lists as it has
// links, so that queues need no memory of their own.
type links[T any] struct {
	prev, next *T
	on         *list[T]
}

// list is a doubly linked list through the links that its accessor names. Every
// operation is O(1) and allocates nothing.
type list[T any] struct {
	head, tail *T
	n          int
	of         func(*T) *links[T]
}

// push appends x, which must not be in a list by these links; being in this one
// already is no error and moves nothing.
func (l *list[T]) push(x *T) {
	k := l.of(x)
	if k.on != nil {
		return
	}
	k.prev, k.next, k.on = l.tail, nil, l
	if l.tail == nil {
		l.head = x
	} else {
		l.of(l.tail).next = x
	}
	l.tail = x
	l.n++
}

// pushFront puts x first.
func (l *list[T]) pushFront(x *T) {
	k := l.of(x)
	if k.on != nil {
		return
	}
	k.prev, k.next, k.on = nil, l.head, l
	if l.head == nil {
		l.tail = x
	} else {
		l.of(l.head).prev = x
	}
	l.head = x
	l.n++
}

// remove takes x out, if it is in this list.
func (l *list[T]) remove(x *T) {
	k := l.of(x)
	if k.on != l {
		return
	}
	if k.prev == nil {
		l.head = k.next
	} else {
		l.of(k.prev).next = k.next
	}
	if k.next == nil {
		l.tail = k.prev
	} else {
		l.of(k.next).prev = k.prev
	}
	*k = links[T]{}
	l.n--
}

// pop takes the first out; nil when the list is empty.
func (l *list[T]) pop() *T {
	x := l.head
	if x != nil {
		l.remove(x)
	}
	return x
}

// rotate moves the first behind the last.
func (l *list[T]) rotate() {
	if l.n > 1 {
		l.push(l.pop())
	}
}

// set makes x a member or not.
func (l *list[T]) set(x *T, member bool) {
	if member {
		l.push(x)
	} else {
		l.remove(x)
	}
}

// leave takes x out of whatever list it is in by links k.
func leave[T any](k *links[T], x *T) {
	if k.on != nil {
		k.on.remove(x)
	}
}
