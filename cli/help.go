package cli

import (
	"fmt"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/spf13/cobra"
)

const helpTemplate = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}{{if not .HasParent}}
Exit codes:
{{exitCodes}}
Settings come from the flag, else the environment (P2PSHARE_LISTEN, P2PSHARE_BOOTSTRAP, …,
lists with commas), else config.toml in the home, else the default: p2pshare config.
{{end}}`

const usageTemplate = `Usage:
  {{if .HasParent}}{{.UseLine}}{{else}}p2pshare COMMAND [ARGUMENT…] [flags]{{end}}
{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`

// exitCodes is the table of exit codes for the help page.
func exitCodes() string {
	var b strings.Builder
	for _, c := range control.Codes {
		fmt.Fprintf(&b, "  %3d  %s\n", c.Code, c.Meaning)
	}
	return b.String()
}

// addHelp gives root, and each command with commands of its own, a command help.
func addHelp(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.HasSubCommands() {
			help := helpCommand()
			help.Hidden = true // the root's is enough in lists
			cmd.AddCommand(help)
		}
	}
	root.SetHelpCommand(helpCommand())
}

// helpCommand explains its parent, or one of the parent's commands.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND [SUBCOMMAND]]",
		Short: "Explain a command",
		Args:  arguments("[COMMAND [SUBCOMMAND]]", 0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Parent().Find(args)
			if err != nil {
				return unknownCommand(cmd.Parent(), args)
			}
			if len(rest) > 0 {
				return unknownCommand(topic, rest)
			}
			topic.InitDefaultHelpFlag()
			topic.InitDefaultVersionFlag()
			return topic.Help()
		},
	}
}
