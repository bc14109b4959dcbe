package bounce

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkQualify is the average cost per reply over the labelled replies.
func BenchmarkQualify(b *testing.B) {
	table := Default()
	var inputs []Input
	for _, s := range loadSamples(b) {
		inputs = append(inputs, Input{Reply: ParseReply(s.reply)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Qualify(inputs[i%len(inputs)])
	}
}

// BenchmarkQualifyManyRules adds three thousand rules of an operator.
func BenchmarkQualifyManyRules(b *testing.B) {
	var file strings.Builder
	file.WriteString("rules:\n")
	for i := range 3000 {
		fmt.Fprintf(&file, "  - {id: own.%d, match: {text: [\"own phrase %s refused\", \"{mailbox|user} %s * gone\"]}, tag: policy}\n", i, letters(i), letters(i))
	}
	table, err := Load([]byte(file.String()), "own.yaml")
	if err != nil {
		b.Fatal(err)
	}
	var inputs []Input
	for _, s := range loadSamples(b) {
		inputs = append(inputs, Input{Reply: ParseReply(s.reply)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Qualify(inputs[i%len(inputs)])
	}
}

// letters writes a number in letters, so that it is a word and not masked.
func letters(n int) string {
	word := "x"
	for ; n > 0; n /= 26 {
		word += string(rune('a' + n%26))
	}
	return word
}

func BenchmarkNormalise(b *testing.B) {
	text := `[192.0.2.22 18] Our system has detected that this message is likely suspicious; see https://support.google.com/mail/answer/188131 - p22nn000202cat.22 - gsmtp`
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		buf = appendNormal(buf[:0], text)
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(nil, ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkQualifyHostile is a reply written to be slow: as long as is looked
// at, all of it words that rules know.
func BenchmarkQualifyHostile(b *testing.B) {
	table := Default()
	in := Input{Reply: ParseReply("550 " + strings.Repeat("mailbox user full quota exceeded relay spam ip blocked is not ", 300))}
	b.ReportAllocs()
	for b.Loop() {
		table.Qualify(in)
	}
}
