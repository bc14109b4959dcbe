package rulefile

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/veredus/veredus/mxrules"
)

// Print writes a set as a rule file that stands alone: it has builtin: false,
// and Parse reads an equal set from it. It returns the writer's error.
func Print(r *mxrules.Rules, w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprint(b, "# MX rules: for each setting the first rule that matches and has it decides.\n")
	fmt.Fprint(b, "builtin: false\n\nproviders:")
	providers := r.Providers()
	if len(providers) == 0 {
		fmt.Fprint(b, " []")
	}
	fmt.Fprintln(b)
	for _, p := range providers {
		fmt.Fprintf(b, "  - name: %s\n    suffixes: %s\n", quote(p.Name), list(p.Suffixes))
		if p.SharedHosts {
			fmt.Fprint(b, "    shared_hosts: true\n")
		}
		if len(p.OwnDomains) > 0 {
			fmt.Fprintf(b, "    own_domains: %s\n", list(p.OwnDomains))
		}
	}
	fmt.Fprint(b, "\nrules:\n")
	for i, rule := range r.All() {
		if i > 0 {
			fmt.Fprintln(b)
		}
		printRule(b, &rule)
	}
	return b.Flush()
}

func printRule(b *bufio.Writer, r *mxrules.Rule) {
	fmt.Fprintf(b, "  - id: %s\n", quote(r.ID))
	if !r.Generic() {
		fmt.Fprint(b, "    match:\n")
		printList(b, "mx", r.Hosts)
		printList(b, "provider", r.Providers)
		printList(b, "domain", r.Domains)
		printList(b, "source", r.Sources)
	}
	for f := range mxrules.Field(mxrules.NumFields) {
		if r.Set.Has(f) {
			fmt.Fprintf(b, "    %s: %s\n", f, fieldText(r, f))
		}
	}
}

// fieldText is a field's value; "on" is quoted, since YAML 1.1 takes it for true.
func fieldText(r *mxrules.Rule, f mxrules.Field) string {
	s := r.Limits.Text(f)
	if f == mxrules.FieldGovernor {
		return quote(s)
	}
	return s
}

func printList[T any](b *bufio.Writer, key string, values []T) {
	if len(values) > 0 {
		fmt.Fprintf(b, "      %s: %s\n", key, list(values))
	}
}

func list[T any](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = quote(fmt.Sprint(v))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// quote puts quotes around what YAML might take for something else than text.
// Names, masks and prefixes have no quotes or backslashes of their own.
func quote(s string) string {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') || i == 0 && c == '.' && len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
			continue
		}
		return `"` + s + `"`
	}
	switch s {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan":
		return `"` + s + `"`
	}
	return s
}
