// Command veredus is the bulk mail system: the node that sends, and the tools
// that talk to it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/veredus/veredus/server/heap"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		heap.OneArena() // a node lives for months
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes a command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(errOut, explainError(err))
	}
	return exitStatus(ctx, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "veredus",
		Short: "Send bulk mail, and know the fate of every message",
		Long: `Veredus sends bulk mail: a gRPC service takes deliveries, an embedded relay signs,
paces and sends them by SMTP, and every recipient's fate streams back.

Begin with the demonstration, which needs nothing and sends to nobody:

  veredus demo

Then start a node of your own. Without a configuration file it is a sandbox: it
listens on loopback and its mail goes to built-in receivers.

  veredus serve
  veredus send recipients.csv --from news@veredus.example --subject "Hello {{ name }}" --text hello.txt`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd, err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "The node:"},
		&cobra.Group{ID: "mail", Title: "Sending and following:"},
		&cobra.Group{ID: "tool", Title: "Tools:"},
	)
	addGroup(root, "node", newServe(), newDemo(), newReceivers())
	addGroup(root, "mail", newSend(), newWatch(), newMessages(), newExplain(), newForecast(), newReplies(), newAddresses(), newQueue(), newPaths(), newSources())
	addGroup(root, "tool", newQualify(), newSimulate(), newInbound(), newRules(), newDKIM(), newDoctor())
	return root
}

func addGroup(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, cmd := range commands {
		cmd.GroupID = group
		root.AddCommand(cmd)
	}
}

// knownCommand refuses what is not a command, with what may have been meant.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return usagef(cmd, "%s", text)
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
