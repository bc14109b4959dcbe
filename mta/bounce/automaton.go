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
	states []state
	edges  []edge
	dense  [][256]int32 // rows of the wide states, 0 when there is none; the start state's is the first
}

// state keeps what one step needs close together.
type state struct {
	first, upto int32 // its edges
	wide        int32 // its row in dense, -1
	fail        int32 // the state of the longest proper suffix
	report      int32 // the first state on the way of suffixes, itself included, where a literal ends; 0
	skip        int32 // the next such state behind it, 0
	out         int32 // the literal that ends here, -1
}

type edge struct {
	c  byte
	to int32
}

// newAutomaton builds the automaton; literal i is reported as i. Literals are
// distinct and not empty.
func newAutomaton(literals []string) *automaton {
	children := []map[byte]int32{{}}
	out := []int32{-1}
	for i, lit := range literals {
		s := int32(0)
		for j := 0; j < len(lit); j++ {
			t, ok := children[s][lit[j]]
			if !ok {
				t = int32(len(children))
				children, out = append(children, map[byte]int32{}), append(out, -1)
				children[s][lit[j]] = t
			}
			s = t
		}
		out[s] = int32(i)
	}
	a := &automaton{states: make([]state, len(children))}
	for s := range children {
		a.states[s] = a.newState(s, children[s])
		a.states[s].out = out[s]
	}
	a.link()
	return a
}

// newState lays a state's transitions out.
func (a *automaton) newState(s int, children map[byte]int32) state {
	st := state{first: int32(len(a.edges)), wide: -1}
	for c, to := range children {
		a.edges = append(a.edges, edge{c, to})
	}
	st.upto = int32(len(a.edges))
	slices.SortFunc(a.edges[st.first:], func(x, y edge) int { return cmp.Compare(x.c, y.c) })
	if s == 0 || len(children) > maxSparse {
		st.wide = int32(len(a.dense))
		var row [256]int32
		for c, to := range children {
			row[c] = to
		}
		a.dense = append(a.dense, row)
	}
	return st
}

// link sets fail, report and skip breadth first, so that shorter suffixes are ready.
func (a *automaton) link() {
	queue := make([]int32, 0, len(a.states))
	queue = append(queue, 0)
	for i := 0; i < len(queue); i++ {
		s := queue[i]
		for _, e := range a.edges[a.states[s].first:a.states[s].upto] {
			queue = append(queue, e.to)
			t := &a.states[e.to]
			if s != 0 {
				t.fail = a.step(a.states[s].fail, e.c)
			}
			t.skip = a.states[t.fail].report
			if t.report = t.skip; t.out >= 0 {
				t.report = e.to
			}
		}
	}
}

// step returns the state after reading c in state s.
func (a *automaton) step(s int32, c byte) int32 {
	for s != 0 {
		st := &a.states[s]
		if st.wide >= 0 {
			if to := a.dense[st.wide][c]; to != 0 {
				return to
			}
		} else {
			for i := st.first; i < st.upto; i++ {
				if a.edges[i].c == c {
					return a.edges[i].to
				}
			}
		}
		s = st.fail
	}
	return a.dense[0][c]
}
