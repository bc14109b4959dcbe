package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/integration/simulation"
)

// simulate runs a scenario in virtual time.
type simulate struct {
	seed         uint64
	json         bool
	plot, export string
}

func newSimulate() *cobra.Command {
	s := &simulate{}
	cmd := &cobra.Command{
		Use:   "simulate SCENARIO.yaml",
		Short: "Send a scenario's mail to modelled receivers in virtual time",
		Long: `Send a scenario's mail to modelled receivers in virtual time: the dispatch core and
the MX rules are those that a node runs, the receivers have limits that they do not
publish, and hours pass in moments.

It reports what was reached as a share of what an oracle would that knows the hidden
limits, how long it took, what was deferred and why, and whether a limit of the
scenario's own rules was exceeded. The same scenario and seed give the same figures.
docs/simulate.md describes the scenario's keys.`,
		Example: `  veredus simulate scenario.yaml
  veredus simulate scenario.yaml --seed 7 --json
  veredus simulate scenario.yaml --plot scenario.svg
  veredus simulate scenario.yaml --export run && veredus serve --config run/node.yaml --world run/world.yaml`,
		Args: exactArgs("the scenario file"),
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.Uint64Var(&s.seed, "seed", 0, "seed of every random choice; default the scenario's")
	f.BoolVar(&s.json, "json", false, "print the whole report as JSON, with the series over time")
	f.StringVar(&s.plot, "plot", "", "draw sent, limit and backlog over time into an SVG file, whose name ends in .svg")
	f.StringVar(&s.export, "export", "", "do not simulate: write what a real node needs for the same over TCP into a folder")
	return cmd
}

func (s *simulate) run(cmd *cobra.Command, file string) error {
	scenario, err := simulation.Read(file)
	var missing *fs.PathError
	switch {
	case errors.As(err, &missing):
		return usagef(cmd, "scenario %s: %v", file, missing.Err)
	case err != nil:
		return &usageError{nil, err}
	}
	if cmd.Flags().Changed("seed") {
		scenario.Seed = s.seed
	}
	if s.export != "" {
		if err := scenario.Export(s.export); err != nil {
			return fmt.Errorf("--export %s: %w", s.export, err)
		}
		return nil
	}
	if ending := strings.ToLower(filepath.Ext(s.plot)); s.plot != "" && ending != ".svg" {
		return usagef(cmd, "--plot %s: plots are drawn as SVG; name a file that ends in .svg", s.plot)
	}
	report, err := scenario.Run()
	if err != nil {
		return err
	}
	if s.plot != "" {
		var drawing strings.Builder
		if err := errors.Join(report.SVG(&drawing), writeFile(s.plot, drawing.String())); err != nil {
			return fmt.Errorf("--plot: %w", err)
		}
	}
	if s.json {
		return report.JSON(cmd.OutOrStdout())
	}
	return report.Table(cmd.OutOrStdout())
}
