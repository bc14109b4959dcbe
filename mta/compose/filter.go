package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/osteele/liquid/values"
)

// filter is one Liquid filter. All are ours: the library's can build values of
// any size in one call, read the clock, depend on map order, or call Go methods.
type filter struct {
	name     string
	min, max int // arguments besides the input
	apply    func(r *run, in any, args []any) (any, error)
}

// filters are looked up by name when a template is compiled.
var filters = func() map[string]filter {
	all := map[string]filter{}
	for _, group := range [][]filter{textFilters(), listFilters(), numberFilters(), dateFilters()} {
		for _, f := range group {
			all[f.name] = f
		}
	}
	return all
}()

func filterNames() []string { return slices.Sorted(maps.Keys(filters)) }

// filter binds f to the run, in the form the library calls. Reading the input and
// holding the result count as work; what a filter does in between is linear in
// both, or counted by itself.
func (r *run) filter(f filter) func(in any, args ...any) (any, error) {
	return func(in any, args ...any) (out any, err error) {
		defer func() {
			if p := recover(); p != nil {
				if r.err != nil {
					panic(p)
				}
				out, err = nil, fmt.Errorf("panic: %s", truncate(fmt.Sprint(p), 300))
			}
		}()
		if len(args) < f.min || len(args) > f.max {
			return nil, fmt.Errorf("takes %s, not %d", arguments(f), len(args))
		}
		in = r.keep(in)
		cost := 16 + sizeOf(in)
		for i := range args {
			args[i] = r.keep(args[i])
			cost += sizeOf(args[i])
		}
		r.spend(cost)
		out, err = f.apply(r, in, args)
		if err != nil {
			return nil, err
		}
		r.fits(sizeOf(out))
		r.spend(sizeOf(out))
		return out, nil
	}
}

func arguments(f filter) string {
	switch {
	case f.min < f.max:
		return fmt.Sprintf("%d to %d arguments", f.min, f.max)
	case f.min == 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", f.min)
}

// text is how a value is written: lists as their entries one after the other,
// maps as JSON.
func (r *run) text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case safe:
		return string(v)
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case list:
		return r.join(v.all, "")
	case object:
		r.spend(v.octet)
		return r.json(v)
	case values.Range:
		return r.join(r.keep(v).(list).all, "")
	}
	return ""
}

// join writes the entries with sep between them, within the limit of a value.
func (r *run) join(all []any, sep string) string {
	var b strings.Builder
	for i, v := range all {
		if i > 0 {
			b.WriteString(sep)
		}
		r.spend(8)
		b.WriteString(r.text(v))
		r.fits(b.Len())
	}
	return b.String()
}

// entries is a value as a list: a map gives its values in the order of its keys,
// nothing gives none, and anything else itself.
func (r *run) entries(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case list:
		return v.all
	case object:
		all := make([]any, 0, len(v.all))
		for _, key := range v.sorted() {
			all = append(all, v.all[key])
		}
		return all
	}
	return []any{v}
}

// property is a value's named property, or nil.
func property(v any, key string) any {
	switch v := v.(type) {
	case object:
		return v.all[key]
	case list:
		return v.PropertyValue(values.ValueOf(key)).Interface()
	}
	return nil
}

// integer reads an argument that must be a whole number.
func integer(v any) (int, error) {
	n, known := parseNumber(v)
	switch n := n.(type) {
	case int:
		if known {
			return n, nil
		}
	case float64:
		if n == float64(int(n)) {
			return int(n), nil
		}
	}
	return 0, fmt.Errorf("%q is not a whole number", truncate(fmt.Sprint(v), 40))
}

// argument returns args[i], or what stands in for it.
func argument(args []any, i int, otherwise any) any {
	if i < len(args) {
		return args[i]
	}
	return otherwise
}
