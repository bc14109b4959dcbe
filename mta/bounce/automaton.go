package bounce

import (
	"cmp"
	"slices"
)

// maxSparse is the number of transitions above which a state gets a full row.
const maxSparse = 6

// automaton finds all occurrences of a set of literals in one pass over a text
// (Aho and Corasick, 1975). A trie of phrases has few children per state, so
// transitions are stored sparsely, except for the few states with many, such as
// the one behind the space before a word.
type automaton struct {
	dense  [][256]int32 // transitions of the wide states, 0 when there is none; the start state is the first
	wide   []int32      // state -> index in dense, -1
	first  []int32      // state -> index of its first edge; first[s+1] ends them
	labels []byte
	next   []int32
	fail   []int32 // the state of the longest proper suffix
	out    []int32 // state -> literal that ends here, -1
	skip   []int32 // the next state on the fail chain with an output, 0
}

// newAutomaton builds the automaton; literal i is reported as i. Literals are
// distinct and not empty.
func newAutomaton(literals []string) *automaton {
	type node struct {
		edges map[byte]int32
		out   int32
	}
	nodes := []node{{edges: map[byte]int32{}, out: -1}}
	for i, lit := range literals {
		s := int32(0)
		for j := 0; j < len(lit); j++ {
			t, ok := nodes[s].edges[lit[j]]
			if !ok {
				t = int32(len(nodes))
				nodes = append(nodes, node{edges: map[byte]int32{}, out: -1})
				nodes[s].edges[lit[j]] = t
			}
			s = t
		}
		nodes[s].out = int32(i)
	}
	a := &automaton{
		wide:  make([]int32, len(nodes)),
		first: make([]int32, len(nodes)+1),
		fail:  make([]int32, len(nodes)),
		out:   make([]int32, len(nodes)),
		skip:  make([]int32, len(nodes)),
	}
	type edge struct {
		c byte
		t int32
	}
	for s, n := range nodes {
		a.out[s] = n.out
		a.first[s] = int32(len(a.labels))
		edges := make([]edge, 0, len(n.edges))
		for c, t := range n.edges {
			edges = append(edges, edge{c, t})
		}
		slices.SortFunc(edges, func(x, y edge) int { return cmp.Compare(x.c, y.c) })
		a.wide[s] = -1
		if s == 0 || len(edges) > maxSparse {
			a.wide[s] = int32(len(a.dense))
			a.dense = append(a.dense, [256]int32{})
		}
		for _, e := range edges {
			a.labels, a.next = append(a.labels, e.c), append(a.next, e.t)
			if a.wide[s] >= 0 {
				a.dense[a.wide[s]][e.c] = e.t
			}
		}
	}
	a.first[len(nodes)] = int32(len(a.labels))
	a.link()
	return a
}

// link sets fail and skip breadth first, so that shorter suffixes are ready.
func (a *automaton) link() {
	queue := make([]int32, 0, len(a.fail))
	queue = append(queue, 0)
	for i := 0; i < len(queue); i++ {
		s := queue[i]
		for e := a.first[s]; e < a.first[s+1]; e++ {
			c, t := a.labels[e], a.next[e]
			queue = append(queue, t)
			if s != 0 {
				a.fail[t] = a.step(a.fail[s], c)
			}
			if f := a.fail[t]; a.out[f] >= 0 {
				a.skip[t] = f
			} else {
				a.skip[t] = a.skip[f]
			}
		}
	}
}

// step returns the state after reading c in state s.
func (a *automaton) step(s int32, c byte) int32 {
	for s != 0 {
		if t := a.child(s, c); t != 0 {
			return t
		}
		s = a.fail[s]
	}
	return a.dense[0][c]
}

// child returns the state that c leads to from s, 0 for none.
func (a *automaton) child(s int32, c byte) int32 {
	if w := a.wide[s]; w >= 0 {
		return a.dense[w][c]
	}
	for e, end := a.first[s], a.first[s+1]; e < end; e++ {
		if a.labels[e] == c {
			return a.next[e]
		}
	}
	return 0
}
