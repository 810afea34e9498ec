package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
	"odx/target"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, print and compare configurations",
		Long: "Check, print and compare configurations. FILE is the configuration; without it, commands use the\n" +
			"file that odx serve would: --config, $" + conf.Variable + ", " + conf.Here + " here if only its owner and root can have written\n" +
			"it, " + conf.System + ".",
	}
	cmd.AddCommand(newConfigCheck(), newConfigShow(), newConfigDiff(), newConfigSchema())
	return cmd
}

// configFile returns the configuration of a command with an optional argument FILE.
func configFile(flag string, args []string) (*conf.Config, error) {
	if len(args) > 0 {
		if flag != "" {
			return nil, usagef("give FILE or --config, not both")
		}
		flag = args[0]
	}
	return loadConfig(serveOptions{config: flag})
}

func newConfigCheck() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Print all problems of a configuration, without starting",
		Long: "Print all problems of a configuration, a line each as FILE:LINE: KEY: PROBLEM, without starting:\n" +
			"mistakes in the file, secrets that cannot be read or used, certificates, files that are missing,\n" +
			"the format of the store. Whether portals are free and volumes whole only the start shows. The\n" +
			"exit status is 1 if there is a problem; warnings are no problem.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := configFile(o.config, args)
			if err == nil {
				err = checkConfig(cfg, cmd.ErrOrStderr())
			}
			if o.json {
				return printProblems(cmd.OutOrStdout(), err)
			}
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: no problems\n", cfg.File)
			}
			return err
		},
	}
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// checkConfig returns what keeps odx from serving a configuration, as far as that shows
// without a server. It prints warnings to w.
func checkConfig(cfg *conf.Config, w io.Writer) error {
	log, err := newLog(conf.Log{Level: "warn", Format: cfg.Log.Format}, w)
	if err != nil {
		return err
	}
	_, warnings, hooks := webhooks(cfg)
	for _, w := range warnings {
		log.Warn(w)
	}
	err = errors.Join(target.Check(cfg, log), api.CheckTCP(cfg), checkFiles(cfg), checkHooks(cfg), hooks)
	problems, other := problemsOf(err)
	if other || len(problems) == 0 {
		return err
	}
	slices.SortStableFunc(problems, func(a, b conf.Problem) int { return a.Line - b.Line })
	return problems
}

// checkFiles returns the files outside the store that are missing and not created.
func checkFiles(cfg *conf.Config) error {
	var problems conf.Problems
	for _, t := range cfg.Targets {
		for _, l := range t.LUNs {
			if l.Backing == "" || l.Size != 0 {
				continue
			}
			if _, err := os.Stat(l.Backing); err != nil {
				problems = append(problems, cfg.Problem(l.Key+".backing", "LUN %d: %v; create it, or give a size", l.Number, err))
			}
		}
	}
	for _, v := range cfg.Views {
		for _, d := range v.Over {
			if d.Backing == "" || v.Size != 0 {
				continue
			}
			if _, err := os.Stat(d.Backing); err != nil {
				problems = append(problems, cfg.Problem(v.Key, "%v; create it, or give a size", err))
			}
		}
	}
	if cfg.Audit.File != "" {
		if _, err := os.Stat(filepath.Dir(cfg.Audit.File)); err != nil {
			problems = append(problems, cfg.Problem("audit.file", "%v; create the directory", err))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return problems
}

// problemsOf returns the problems that an error consists of; other reports whether
// something else is in it.
func problemsOf(err error) (problems conf.Problems, other bool) {
	switch e := err.(type) {
	case nil:
	case conf.Problems:
		problems = e
	case conf.Problem:
		problems = conf.Problems{e}
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			found, more := problemsOf(part)
			problems, other = append(problems, found...), other || more
		}
	default:
		other = true
	}
	return problems, other
}

// printProblems prints the problems that an error consists of, as JSON. It returns an error
// for the exit status, which nothing is printed of, or what is not a problem.
func printProblems(w io.Writer, err error) error {
	problems, other := problemsOf(err)
	if other && len(problems) == 0 {
		return err
	}
	list := make([]v1.Problem, len(problems))
	for i, p := range problems {
		list[i] = v1.Problem{File: p.File, Line: p.Line, Key: p.Key, Message: p.Message}
	}
	if printErr := printJSON(w, list); printErr != nil {
		return printErr
	}
	switch {
	case other:
		return err
	case len(problems) > 0:
		return exitStatus(1)
	default:
		return nil
	}
}

func newConfigShow() *cobra.Command {
	var o adminOptions
	var running bool
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print a configuration with all defaults, secrets masked",
		Long: "Print a configuration as YAML with all defaults and absolute paths; with --running, the one that\n" +
			"the server has. Comments stand for defaults that depend on the machine or the store. Secrets that\n" +
			"are in the file itself are masked: what is printed is a configuration, but odx does not serve one\n" +
			"with masked secrets.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if running || o.api != "" {
				if len(args) > 0 {
					return usagef("give FILE or --running, not both")
				}
				return withServing(cmd, &o, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
					text, err := live.Config(ctx)
					if err != nil {
						return err
					}
					return printConfig(cmd.OutOrStdout(), o.json, text)
				})
			}
			cfg, err := configFile(o.config, args)
			if err != nil {
				return err
			}
			text, err := cfg.Effective()
			if err != nil {
				return err
			}
			return printConfig(cmd.OutOrStdout(), o.json, text)
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&running, "running", false, "the configuration that the server has")
	return cmd
}

// printConfig prints the text of a configuration, or the same as JSON.
func printConfig(w io.Writer, json bool, text []byte) error {
	if json {
		var any any
		if err := yaml.Unmarshal(text, &any); err != nil {
			return err
		}
		return printJSON(w, any)
	}
	_, err := w.Write(text)
	return err
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of configurations, for editors",
		Long: "Print the JSON Schema of configurations. An editor with a YAML language server uses it for\n" +
			"completion and checks, for example by this first line of the configuration:\n\n" +
			"  # yaml-language-server: $schema=odx.schema.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := conf.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
