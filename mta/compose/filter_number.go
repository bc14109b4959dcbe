package compose

import (
	"cmp"
	"errors"
	"math"
	"strconv"
	"strings"
)

var errDivision = errors.New("division by zero")

func numberFilters() []filter {
	return []filter{
		{"abs", 0, 0, abs},
		{"at_least", 1, 1, bound(-1)},
		{"at_most", 1, 1, bound(1)},
		{"ceil", 0, 0, rounding(math.Ceil)},
		{"floor", 0, 0, rounding(math.Floor)},
		{"round", 0, 1, round},
		{"plus", 1, 1, arithmetic(plus)},
		{"minus", 1, 1, arithmetic(minus)},
		{"times", 1, 1, arithmetic(times)},
		{"divided_by", 1, 1, dividedBy},
		{"modulo", 1, 1, modulo},
	}
}

// toNumber reads a value as Liquid does: text by its number, anything else as 0.
func toNumber(v any) any {
	n, _ := parseNumber(v)
	return n
}

// parseNumber returns an int or float64 and whether v says one.
func parseNumber(v any) (n any, known bool) {
	switch v := v.(type) {
	case int, float64:
		return v, true
	case safe:
		return parseNumber(string(v))
	case string:
		if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
			return n, true
		}
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, true
		}
	}
	return 0, false
}

func toFloat(v any) float64 {
	switch n := toNumber(v).(type) {
	case int:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

func integers(a, b any) (x, y int, ok bool) {
	x, okX := a.(int)
	y, okY := b.(int)
	return x, y, okX && okY
}

func arithmetic(f func(a, b any) any) func(*run, any, []any) (any, error) {
	return func(_ *run, in any, args []any) (any, error) {
		return f(toNumber(in), toNumber(args[0])), nil
	}
}

// The operations stay whole until the result does not fit an int.

func plus(a, b any) any {
	if x, y, ok := integers(a, b); ok {
		if s := x + y; (s > x) == (y > 0) {
			return s
		}
	}
	return toFloat(a) + toFloat(b)
}

func minus(a, b any) any {
	if x, y, ok := integers(a, b); ok {
		if d := x - y; (d < x) == (y > 0) {
			return d
		}
	}
	return toFloat(a) - toFloat(b)
}

func times(a, b any) any {
	if x, y, ok := integers(a, b); ok {
		p := x * y
		if x == 0 || p/x == y && !(x == -1 && y == math.MinInt) {
			return p
		}
	}
	return toFloat(a) * toFloat(b)
}

// dividedBy rounds down when both numbers are whole.
func dividedBy(_ *run, in any, args []any) (any, error) {
	a, b := toNumber(in), toNumber(args[0])
	if x, y, ok := integers(a, b); ok {
		switch {
		case y == 0:
			return nil, errDivision
		case x == math.MinInt && y == -1:
			return -toFloat(x), nil
		}
		q := x / y
		if x%y != 0 && (x < 0) != (y < 0) {
			q--
		}
		return q, nil
	}
	if toFloat(b) == 0 {
		return nil, errDivision
	}
	return toFloat(a) / toFloat(b), nil
}

// modulo has the sign of the divisor.
func modulo(_ *run, in any, args []any) (any, error) {
	a, b := toNumber(in), toNumber(args[0])
	if x, y, ok := integers(a, b); ok {
		switch {
		case y == 0:
			return nil, errDivision
		case y == -1:
			return 0, nil
		}
		m := x % y
		if m != 0 && (m < 0) != (y < 0) {
			m += y
		}
		return m, nil
	}
	y := toFloat(b)
	if y == 0 {
		return nil, errDivision
	}
	m := math.Mod(toFloat(a), y)
	if m != 0 && (m < 0) != (y < 0) {
		m += y
	}
	return m, nil
}

func abs(_ *run, in any, _ []any) (any, error) {
	if n, ok := toNumber(in).(int); ok && n != math.MinInt {
		return max(n, -n), nil
	}
	return math.Abs(toFloat(in)), nil
}

func bound(sign int) func(*run, any, []any) (any, error) {
	return func(_ *run, in any, args []any) (any, error) {
		a, b := toNumber(in), toNumber(args[0])
		if sign*cmp.Compare(toFloat(a), toFloat(b)) > 0 {
			return b, nil
		}
		return a, nil
	}
}

// whole is f as an int, where an int holds it.
func whole(f float64) any {
	if math.Abs(f) < 1<<62 {
		return int(f)
	}
	return f
}

func rounding(f func(float64) float64) func(*run, any, []any) (any, error) {
	return func(_ *run, in any, _ []any) (any, error) {
		if n, ok := toNumber(in).(int); ok {
			return n, nil
		}
		return whole(f(toFloat(in))), nil
	}
}

// round keeps a number of decimals, none by default.
func round(_ *run, in any, args []any) (any, error) {
	places, err := integer(argument(args, 0, 0))
	if err != nil {
		return nil, err
	}
	n := toNumber(in)
	if _, ok := n.(int); ok && places >= 0 {
		return n, nil
	}
	if places <= 0 {
		scale := math.Pow10(-max(places, -20))
		return whole(math.Round(toFloat(n)/scale) * scale), nil
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(toFloat(n), 'f', min(places, 20), 64), 64)
	return rounded, err
}
