package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/osteele/liquid/values"
)

// Templates see these kinds of value and no others: nil, bool, int, float64,
// string, safe, list, object, and values.Range and the forloop map, which the
// library makes itself. The types below stand in for Go slices and maps, which
// the library would iterate in random order and compare without limit.

// safe is text that is already HTML.
type safe string

// list is a sequence. The pointer makes it cheap to compare and to pass on.
type list struct{ *items }

type items struct {
	run   *run
	all   []any
	octet int // its size
}

// object is a map with string keys.
type object struct{ *fields }

type fields struct {
	run   *run
	up    *fields // what it belongs to, for naming what is missing
	key   string  // its name there
	all   map[string]any
	keys  []string // sorted, once asked for
	octet int
}

// bulk stands for a long string in a variable: reading it counts as work, since
// what follows (a comparison, contains) the library does without asking.
type bulk struct {
	run   *run
	value any // string or safe
	octet int
}

// ToLiquid is the library's call for the value itself.
func (b bulk) ToLiquid() any {
	b.run.spend(b.octet / readCost)
	return b.value
}

// unknown stands for a variable that was not given.
type unknown struct {
	run  *run
	name string
}

// ToLiquid records the name and gives nil.
func (u unknown) ToLiquid() any {
	u.run.note(u.name)
	return nil
}

var (
	_ values.Value = safe("")
	_ values.Value = list{}
	_ values.Value = object{}
)

// hand wraps v for a variable.
func (r *run) hand(v any) any {
	switch v := v.(type) {
	case string:
		if len(v) >= bulkString {
			return bulk{r, v, len(v)}
		}
	case safe:
		if len(v) >= bulkString {
			return bulk{r, v, len(v)}
		}
	}
	return v
}

func noInt(v any) int {
	panic(values.TypeError(fmt.Sprintf("%s is not a whole number", kindName(v))))
}

// The methods of values.Value, by which the library evaluates expressions.

func (s safe) Interface() any                       { return s }
func (s safe) Int() int                             { return noInt(s) }
func (s safe) Equal(o values.Value) bool            { return values.Equal(string(s), o.Interface()) }
func (s safe) Less(o values.Value) bool             { return values.Less(string(s), o.Interface()) }
func (s safe) Contains(o values.Value) bool         { return values.ValueOf(string(s)).Contains(o) }
func (s safe) IndexValue(values.Value) values.Value { return values.ValueOf(nil) }
func (s safe) PropertyValue(k values.Value) values.Value {
	return values.ValueOf(string(s)).PropertyValue(k)
}
func (s safe) Test() bool { return true }

func (l list) Interface() any         { return l }
func (l list) Int() int               { return noInt(l) }
func (l list) Less(values.Value) bool { return false }
func (l list) Test() bool             { return true }

// Len and Index make the library's loops iterate.
func (l list) Len() int        { return len(l.all) }
func (l list) Index(i int) any { return l.run.hand(l.all[i]) }

// Equal compares entries; entries that are lists or objects are equal to
// themselves only.
func (l list) Equal(o values.Value) bool {
	other, ok := o.Interface().(list)
	if !ok || len(other.all) != len(l.all) {
		return false
	}
	l.run.spend(l.octet + other.octet)
	for i, v := range l.all {
		if !values.Equal(v, other.all[i]) {
			return false
		}
	}
	return true
}

func (l list) Contains(o values.Value) bool {
	l.run.spend(l.octet)
	want := o.Interface()
	return slices.ContainsFunc(l.all, func(v any) bool { return values.Equal(v, want) })
}

func (l list) IndexValue(o values.Value) values.Value {
	n := 0
	switch i := o.Interface().(type) {
	case int:
		n = i
	case float64:
		n = int(i)
	default:
		return values.ValueOf(nil)
	}
	if n < 0 {
		n += len(l.all)
	}
	if n < 0 || n >= len(l.all) {
		return values.ValueOf(nil)
	}
	return values.ValueOf(l.Index(n))
}

func (l list) PropertyValue(o values.Value) values.Value {
	switch o.Interface() {
	case "first":
		return l.IndexValue(values.ValueOf(0))
	case "last":
		return l.IndexValue(values.ValueOf(-1))
	case "size":
		return values.ValueOf(len(l.all))
	}
	return values.ValueOf(nil)
}

func (f object) Interface() any         { return f }
func (f object) Int() int               { return noInt(f) }
func (f object) Less(values.Value) bool { return false }
func (f object) Test() bool             { return true }

func (f object) Equal(o values.Value) bool {
	other, ok := o.Interface().(object)
	return ok && other == f
}

func (f object) Contains(o values.Value) bool {
	key, ok := o.Interface().(string)
	_, found := f.all[key]
	return ok && found
}

func (f object) IndexValue(o values.Value) values.Value { return f.PropertyValue(o) }

func (f object) PropertyValue(o values.Value) values.Value {
	key, ok := o.Interface().(string)
	if s, isSafe := o.Interface().(safe); isSafe {
		key, ok = string(s), true
	}
	if !ok {
		return values.ValueOf(nil)
	}
	if v, found := f.all[key]; found {
		return values.ValueOf(f.run.hand(v))
	}
	if key == "size" {
		return values.ValueOf(len(f.all))
	}
	if f.run.loud {
		f.run.note(f.path() + "." + key)
	}
	return values.ValueOf(nil)
}

// path names the object from its variable down: user.addresses.home.
func (f *fields) path() string {
	names := []string{f.key}
	for up := f.up; up != nil; up = up.up {
		names = append(names, up.key)
	}
	slices.Reverse(names)
	return strings.Join(slices.DeleteFunc(names, func(s string) bool { return s == "" }), ".")
}

// Len and Index make the library's loops iterate over [key, value].
func (f object) Len() int { return len(f.all) }

func (f object) Index(i int) any {
	key := f.sorted()[i]
	return list{&items{run: f.run, all: []any{key, f.all[key]}, octet: 2*itemSize + len(key) + sizeOf(f.all[key])}}
}

func (f object) sorted() []string {
	if f.keys == nil {
		f.run.spend(f.octet)
		f.keys = slices.Sorted(maps.Keys(f.all))
	}
	return f.keys
}

// sizeOf returns the octets a value counts as held.
func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case safe:
		return len(v)
	case list:
		return v.octet
	case object:
		return v.octet
	case bulk:
		return v.octet
	}
	return 8
}

// newList makes a list of values that are already of the kinds above.
func (r *run) newList(all []any) list {
	l := list{&items{run: r, all: all}}
	for _, v := range all {
		l.octet += itemSize + sizeOf(v)
	}
	return l
}

// decode reads a JSON object into values. Whole numbers that no int holds, and
// decimals that no float64 holds, stay text with all their digits.
func (r *run) decode(data []byte) (map[string]any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) > MaxVariables {
		return nil, fmt.Errorf("variables are %d octets long, above %d", len(data), MaxVariables)
	}
	var raw map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&raw); err != nil {
		return nil, fmt.Errorf("variables are not a JSON object: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("variables hold more than one JSON value")
	}
	for key, v := range raw {
		var err error
		if raw[key], err = r.convert(v, nil, key, 1); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// convert makes a value of what encoding/json made, in place.
func (r *run) convert(v any, up *fields, key string, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("variables are nested deeper than %d", MaxDepth)
	}
	switch v := v.(type) {
	case json.Number:
		return number(string(v)), nil
	case []any:
		holder := &fields{run: r, up: up, key: key}
		for i := range v {
			var err error
			if v[i], err = r.convert(v[i], holder, "", depth+1); err != nil {
				return nil, err
			}
		}
		return r.newList(v), nil
	case map[string]any:
		f := &fields{run: r, up: up, key: key, all: v}
		for k := range v {
			var err error
			if v[k], err = r.convert(v[k], f, k, depth+1); err != nil {
				return nil, err
			}
			f.octet += itemSize + len(k) + sizeOf(v[k])
		}
		return object{f}, nil
	case nil, bool, string, float64, int:
		return v, nil
	}
	return nil, fmt.Errorf("a variable is of type %T; use text, numbers, booleans, lists and maps", v)
}

// clone copies what convert would change.
func clone(v any, depth int) any {
	if depth > MaxDepth+1 {
		return v
	}
	switch v := v.(type) {
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = clone(v[i], depth+1)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(v))
		for key, entry := range v {
			all[key] = clone(entry, depth+1)
		}
		return all
	}
	return v
}

// number turns a JSON number into an int, a float64 or, where both lose it, text.
func number(digits string) any {
	if n, err := strconv.Atoi(digits); err == nil {
		return n
	}
	if !strings.ContainsAny(digits, ".eE") {
		return digits
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(f, 0) {
		return digits
	}
	return f
}

func kindName(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case bool:
		return "a boolean"
	case int, float64:
		return "a number"
	case string, safe:
		return "text"
	case list, values.Range:
		return "a list"
	}
	return "a map"
}
