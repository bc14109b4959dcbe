package compose

import (
	"strings"
	"testing"
)

// Static text stands between what varies, so lines, line ends and the rules for their
// first and last characters cross from one to the other.
func TestStaticTextMeetsWhatVaries(t *testing.T) {
	long := strings.Repeat("x", 70)
	for _, tc := range []struct{ name, template, value, want string }{
		{"in the middle of a line", "a {{ v }} b\nc", "V", "a V b\r\nc\r\n"},
		{"nothing varies into it", "a{{ v }}\n{{ v }}", "", "a\r\n"},
		{"a space before a value that ends the line", "a {{ v }}b", "\n", "a=20\r\nb\r\n"},
		{"a space before no value at all", "a {{ v }}\nb", "", "a=20\r\nb\r\n"},
		{"a value's last space", "{{ v }}\nb", "a ", "a=20\r\nb\r\n"},
		{"a CRLF in two", "a\r{{ v }}", "\nb", "a\r\nb\r\n"},
		{"a CRLF in two, the other way", "{{ v }}\nb", "a\r", "a\r\nb\r\n"},
		{"two line ends stay two", "{{ v }}\r\nb", "a\r", "a\r\n\r\nb\r\n"},
		{"a value that begins a line with a dot", "a\n{{ v }}b", ".", "a\r\n=2Eb\r\n"},
		{"a dot that a value brings to the front", "{{ v }}.b", "a\n", "a\r\n=2Eb\r\n"},
		{"From in two", "a\nFr{{ v }} b", "om", "a\r\n=46rom b\r\n"},
		{"a line that fits as a whole", long + "{{ v }}6", "12345", long + "123456\r\n"},
		{"a line that a value makes too long", long + "{{ v }}78", "12345", long + "12345=\r\n78\r\n"},
		{"a dot behind a soft line break", long + "12345{{ v }}.", ".", long + "12345=\r\n=2E.\r\n"},
		{"no escape is torn", long + "{{ v }}\u00e9!", "123", long + "123=\r\n=C3=A9!\r\n"},
		{"white space control", "a \n{%- if v %} {{ v -}} {% endif -%}\n b", "V", "a Vb\r\n"},
		{"no text is taken for a value", "{{ v }}={{ v }}", "=", "=3D=3D=3D\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := job("")
			j.Builtin = map[string]any{"v": tc.value}
			r, err := compile(t, newsletter(tc.template)).Render(t.Context(), j)
			if err != nil || string(r.Body) != tc.want {
				t.Errorf("%q with %q is\n%q, want\n%q (%v)", tc.template, tc.value, r.Body, tc.want, err)
			}
			inPieces(t, r)
		})
	}
}
