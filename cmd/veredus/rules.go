package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
)

func newRules() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules [FILE]",
		Short: "Print the built-in MX rules; check, test and compare rule files",
		Long: `Print MX rules as YAML: how many connections, messages per connection and
messages per time each mailbox provider gets, and the timeouts.

Without an argument it prints the built-in table, a good start for a file of your
own. With a file it checks it and prints the whole set that a node would use: your
rules first, the built-in ones behind them. All mistakes are reported with lines.

'check' tests a file against replies of receivers, and 'diff' shows what a change
of rules means for each destination.`,
		Example: `  veredus rules > mx.yaml
  veredus rules mx.yaml
  veredus rules check mx.yaml --mx gmail-smtp-in.l.google.com --reply "421 4.7.28 unusual rate"
  veredus rules diff old.yaml mx.yaml`,
		Args: atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			rules := mxrules.Builtin()
			if len(args) == 1 {
				var err error
				if rules, err = loadRules(args[0]); err != nil {
					return &usageError{nil, err}
				}
			}
			return rulefile.Print(rules, cmd.OutOrStdout())
		},
	}
	cmd.AddCommand(newRulesCheck(), newRulesDiff())
	return cmd
}

func loadRules(path string) (*mxrules.Rules, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("rule file: %w", err)
	}
	return rulefile.Parse(path, data)
}
