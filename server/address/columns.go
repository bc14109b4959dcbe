package address

import "strings"

// columns finds the cells of a row by the names of the header.
type columns map[string]int

// newColumns reads a header: names in any letter case, with any spaces, hyphens and
// underscores. Of two columns with a name the first counts.
func newColumns(header []string) columns {
	c := columns{}
	for i, name := range header {
		name = columnName(name)
		if _, twice := c[name]; name != "" && !twice {
			c[name] = i
		}
	}
	return c
}

// columnName keeps the letters and digits of a column's name.
func columnName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '_' {
			return -1
		}
		return r
	}, strings.ToLower(name))
}

// addressColumns are the names that lists use for the address.
var addressColumns = [...]string{"address", "email", "emailaddress", "recipient", "mail"}

// address finds the column of the address.
func (c columns) address() (column int, found bool) {
	for _, name := range addressColumns {
		if i, ok := c[name]; ok {
			return i, true
		}
	}
	return 0, false
}

// of is the cell of the column with the name; empty when there is none.
func (c columns) of(fields []string, name string) string {
	if i, ok := c[name]; ok {
		return cell(fields, i)
	}
	return ""
}

func cell(fields []string, i int) string {
	if i < len(fields) {
		return fields[i]
	}
	return ""
}

// guard is the sign in front of a cell that a spreadsheet would take for a formula.
const guard = "'"

// guarded keeps a spreadsheet from running a cell: text that begins with = + - @ or a tab gets a
// quotation mark in front, and so does text that already has such marks, so that
// unguarded finds the text again.
func guarded(text string) string {
	if formula(text) {
		return guard + text
	}
	return text
}

func unguarded(text string) string {
	if strings.HasPrefix(text, guard) && formula(text) {
		return text[1:]
	}
	return text
}

// formula reports whether, behind marks, a formula begins.
func formula(text string) bool {
	text = strings.TrimLeft(text, guard)
	return text != "" && strings.IndexByte("=+-@\t\r", text[0]) >= 0
}
