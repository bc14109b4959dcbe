package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// printJSON writes v as one line.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printProto writes a message of the contract as one line of JSON, with the
// contract's field names.
func printProto(out io.Writer, m proto.Message) error {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, data); err != nil { // its spaces are random on purpose
		return err
	}
	line.WriteByte('\n')
	_, err = out.Write(line.Bytes())
	return err
}

// table is rows of cells in columns. Cells that look like figures are set right.
type table struct {
	header []string
	rows   [][]string
}

func newTable(header ...string) *table { return &table{header: header} }

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		switch v := c.(type) {
		case int64:
			row[i] = thousands(v)
		case int:
			row[i] = thousands(int64(v))
		case int32:
			row[i] = thousands(int64(v))
		default:
			row[i] = fmt.Sprint(c)
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table; a column whose cells are all figures is set right.
func (t *table) print(out io.Writer) {
	width := make([]int, len(t.header))
	right := make([]bool, len(t.header))
	for i, h := range t.header {
		width[i], right[i] = len([]rune(h)), len(t.rows) > 0
		for _, row := range t.rows {
			width[i] = max(width[i], len([]rune(row[i])))
			right[i] = right[i] && figure(row[i])
		}
	}
	for _, row := range append([][]string{t.header}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i > 0 {
				line.WriteString("  ")
			}
			if right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	}
}

func figure(cell string) bool {
	return cell == "" || cell == "-" || strings.Trim(cell, "0123456789.,%-") == ""
}

// pairs writes "name  value" lines, values in one column; empty values are left out.
func pairs(out io.Writer, cells ...string) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(cells); i += 2 {
		if cells[i+1] != "" {
			fmt.Fprintf(w, "  %s\t%s\n", cells[i], cells[i+1])
		}
	}
	_ = w.Flush() // the writer below reports its errors to nobody, too
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// percent writes a share of whole, "-" of nothing.
func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "%"
}

// clock writes a time of the contract for people: today's without the date.
func clock(t *timestamppb.Timestamp, now time.Time) string {
	if !t.IsValid() {
		return ""
	}
	local := t.AsTime().In(now.Location())
	if local.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return local.Format("15:04:05")
	}
	return local.Format("2006-01-02 15:04:05")
}

// enumName writes FAILURE_REASON_USER_UNKNOWN as "user unknown"; empty for the
// unspecified value.
func enumName(name, prefix string) string {
	name = strings.TrimPrefix(name, prefix)
	if name == "UNSPECIFIED" {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(name, "_", " "))
}

// oneLine keeps a receiver's text from breaking our lines or the terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
