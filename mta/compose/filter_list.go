package compose

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/osteele/liquid/values"
)

func listFilters() []filter {
	return []filter{
		{"compact", 0, 1, compact},
		{"concat", 1, 1, concat},
		{"first", 0, 0, func(r *run, in any, _ []any) (any, error) { return edge(r.entries(in), false), nil }},
		{"last", 0, 0, func(r *run, in any, _ []any) (any, error) { return edge(r.entries(in), true), nil }},
		{"join", 0, 1, join},
		{"map", 1, 1, mapProperty},
		{"reverse", 0, 0, reverse},
		{"size", 0, 0, size},
		{"sort", 0, 1, sortBy(order)},
		{"sort_natural", 0, 1, sortBy(naturalOrder)},
		{"sum", 0, 1, sum},
		{"uniq", 0, 1, uniq},
		{"where", 1, 2, where},
	}
}

func edge(all []any, last bool) any {
	switch {
	case len(all) == 0:
		return nil
	case last:
		return all[len(all)-1]
	}
	return all[0]
}

// pick is the entry itself, or its property when a filter got a property's name.
func (r *run) pick(entry any, args []any) any {
	if len(args) == 0 || args[0] == nil {
		return entry
	}
	return property(entry, r.text(args[0]))
}

func compact(r *run, in any, args []any) (any, error) {
	var kept []any
	for _, v := range r.entries(in) {
		if r.pick(v, args) != nil {
			kept = append(kept, v)
		}
	}
	return r.newList(kept), nil
}

func concat(r *run, in any, args []any) (any, error) {
	a, b := r.entries(in), r.entries(args[0])
	r.fits((len(a) + len(b)) * itemSize)
	return r.newList(slices.Concat(a, b)), nil
}

func join(r *run, in any, args []any) (any, error) {
	all := slices.DeleteFunc(slices.Clone(r.entries(in)), func(v any) bool { return v == nil })
	return r.join(all, r.text(argument(args, 0, " "))), nil
}

func mapProperty(r *run, in any, args []any) (any, error) {
	all := slices.Clone(r.entries(in))
	for i := range all {
		all[i] = r.pick(all[i], args)
	}
	return r.newList(all), nil
}

func reverse(r *run, in any, _ []any) (any, error) {
	all := slices.Clone(r.entries(in))
	slices.Reverse(all)
	return r.newList(all), nil
}

// size is a text's characters or a list's entries; of anything else, 0.
func size(_ *run, in any, _ []any) (any, error) {
	switch v := in.(type) {
	case string:
		return utf8.RuneCountInString(v), nil
	case safe:
		return utf8.RuneCountInString(string(v)), nil
	case list:
		return len(v.all), nil
	case object:
		return len(v.all), nil
	}
	return 0, nil
}

// sortBy sorts stably, entries without the property last.
func sortBy(compare func(r *run, a, b any) int) func(*run, any, []any) (any, error) {
	return func(r *run, in any, args []any) (any, error) {
		all := slices.Clone(r.entries(in))
		r.spend(sizeOf(in) * bits.Len(uint(len(all))))
		slices.SortStableFunc(all, func(a, b any) int {
			return compare(r, r.pick(a, args), r.pick(b, args))
		})
		return r.newList(all), nil
	}
}

// order puts numbers before text before the rest before nothing.
func order(r *run, a, b any) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch rank(a) {
	case rankNumber:
		return cmp.Compare(toFloat(a), toFloat(b))
	case rankText:
		return strings.Compare(r.text(a), r.text(b))
	}
	return 0
}

func naturalOrder(r *run, a, b any) int {
	if rank(a) == rankText && rank(b) == rankText {
		return strings.Compare(strings.ToLower(r.text(a)), strings.ToLower(r.text(b)))
	}
	return order(r, a, b)
}

const (
	rankNumber = iota
	rankText
	rankOther
	rankNothing
)

func rank(v any) int {
	switch v.(type) {
	case int, float64:
		return rankNumber
	case string, safe:
		return rankText
	case nil:
		return rankNothing
	}
	return rankOther
}

func sum(r *run, in any, args []any) (any, error) {
	var total any = 0
	for _, v := range r.entries(in) {
		total = plus(total, toNumber(r.pick(v, args)))
	}
	return total, nil
}

func uniq(r *run, in any, args []any) (any, error) {
	type key struct {
		rank int
		text string
	}
	seen := map[key]bool{}
	var kept []any
	for _, v := range r.entries(in) {
		by := r.pick(v, args)
		r.spend(4*itemSize + sizeOf(by))
		k := key{rank(by), r.json(by)}
		if !seen[k] {
			seen[k] = true
			kept = append(kept, v)
		}
	}
	return r.newList(kept), nil
}

// where keeps the entries whose property equals a value, or is true.
func where(r *run, in any, args []any) (any, error) {
	var kept []any
	for _, v := range r.entries(in) {
		got := r.pick(v, args[:1])
		r.spend(sizeOf(got))
		if len(args) == 2 && values.Equal(got, args[1]) || len(args) == 1 && got != nil && got != false {
			kept = append(kept, v)
		}
	}
	return r.newList(kept), nil
}
