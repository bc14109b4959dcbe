// Package archtest keeps the import rules of the architecture: pure cores import
// only the standard library, the relay knows no database and no gRPC, and tests'
// receivers never reach the product.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/veredus/veredus/"

// pkg is what `go list -json` says of a package that the rules are about.
type pkg struct {
	ImportPath string
	Imports    []string
}

// rule restricts the direct imports of the packages below a folder.
type rule struct {
	name   string
	of     []string // folders, without the module's name; "x/..." includes those below
	except []string
	allow  []string // if set: besides std, only these
	refuse []string // never these; "x/..." includes those below
}

var rules = []rule{
	{
		name: "the limiter is pure",
		of:   []string{"mxrules"}, allow: []string{"none"},
	},
	{
		name: "the dispatch core is pure",
		of:   []string{"mta/dispatch"}, allow: []string{"mxrules"},
	},
	{
		name: "the simulator is pure",
		of:   []string{"mta/simulate"}, allow: []string{"mxrules", "mta/dispatch"},
	},
	{
		name: "receiver models are pure",
		of:   []string{"integration/world"}, allow: []string{"none"},
	},
	{
		name: "the relay knows no contract, no service and no database",
		of:   []string{"mta/..."}, refuse: []string{"proto/...", "server/...", "cmd/...", "integration/...", "github.com/cockroachdb/..."},
	},
	{
		name: "signing knows nothing of the relay",
		of:   []string{"dkim/..."}, refuse: []string{"proto/...", "server/...", "mta/...", "cmd/...", "integration/..."},
	},
	{
		name: "the service knows no tests' receivers",
		of:   []string{"server/..."}, refuse: []string{"integration/...", "cmd/..."},
	},
	{
		name: "only the composition root names a storage driver",
		of:   []string{"server/...", "cmd/...", "proto/...", "mta/..."}, except: []string{"server", "server/storage/pebblestore", "server/storage/faults"},
		refuse: []string{"server/storage/pebblestore", "github.com/cockroachdb/..."},
	},
	{
		name: "the client package imports the contract alone",
		of:   []string{"proto/client"}, refuse: []string{"server/...", "mta/...", "cmd/...", "integration/...", "dkim/...", "mxrules/..."},
	},
}

func TestImportRules(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list answered only %d packages", len(pkgs))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, p := range pkgs {
				if !matches(p.ImportPath, r.of) || matches(p.ImportPath, r.except) {
					continue
				}
				for _, imported := range p.Imports {
					if r.forbids(imported) {
						t.Errorf("%s imports %s", p.ImportPath, imported)
					}
				}
			}
		})
	}
}

// The rules themselves are tested: each must forbid something.
func TestRulesForbid(t *testing.T) {
	for _, r := range rules {
		probe := "github.com/cockroachdb/pebble/v2"
		if len(r.refuse) > 0 {
			probe = strings.TrimSuffix(r.refuse[0], "/...")
			if !strings.Contains(probe, ".") {
				probe = module + probe
			}
		}
		if !r.forbids(probe) {
			t.Errorf("rule %q does not forbid %s", r.name, probe)
		}
		if r.forbids("strings") {
			t.Errorf("rule %q forbids the standard library", r.name)
		}
	}
}

func TestNoCatchAllPackages(t *testing.T) {
	forbidden := []string{"pkg", "util", "utils", "common", "helpers", "helper", "misc"}
	for _, p := range list(t) {
		for _, part := range strings.Split(strings.TrimPrefix(p.ImportPath, module), "/") {
			if slices.Contains(forbidden, part) {
				t.Errorf("%s: %q is not a noun of the domain", p.ImportPath, part)
			}
		}
	}
}

func (r rule) forbids(imported string) bool {
	if isStd(imported) {
		return false
	}
	if len(r.allow) > 0 {
		return !matches(imported, r.allow)
	}
	return matches(imported, r.refuse)
}

// isStd reports whether a path is of the standard library: no dot in its first part.
func isStd(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func matches(path string, patterns []string) bool {
	path = strings.TrimPrefix(path, module)
	for _, p := range patterns {
		folder, below := strings.CutSuffix(p, "/...")
		if path == folder || below && strings.HasPrefix(path, folder+"/") {
			return true
		}
	}
	return false
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}
