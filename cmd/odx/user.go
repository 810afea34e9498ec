package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
)

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "List, add, change and remove CHAP users of targets",
		Long: "List, add, change and remove the CHAP users of targets. In place of the name of a target,\n" +
			"discovery stands for discovery sessions. " + editsHelp,
	}
	cmd.AddCommand(newUserList(), newUserAdd(), newUserSet(), newUserRemove())
	return cmd
}

// discovery stands for discovery sessions in place of a target.
const discovery = "discovery"

// userTarget returns the target of an edit of users.
func userTarget(argument string) string {
	if argument == discovery {
		return ""
	}
	return argument
}

// userPlace names a target, or discovery.
func userPlace(argument string) string {
	if argument == discovery {
		return discovery
	}
	return "target " + argument
}

func newUserList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list [TARGET]",
		Short: "List the CHAP users, without their secrets",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return readConfig(cmd, &o, func(w io.Writer, cfg *conf.Config) error {
				places, err := usersOf(cfg, args)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(w, usersV1(cfg, places))
				}
				return printUsers(w, places)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// usersAt are the users of a target, or of discovery.
type usersAt struct {
	name  string
	users []conf.User
}

// usersOf returns the users of all targets and of discovery, or of the one in args.
func usersOf(cfg *conf.Config, args []string) ([]usersAt, error) {
	all := []usersAt{{discovery, cfg.DiscoveryAuthentication.Users}}
	for _, t := range cfg.Targets {
		all = append(all, usersAt{t.Name, t.Authentication.Users})
	}
	if len(args) == 0 {
		return all, nil
	}
	for _, at := range all {
		if strings.EqualFold(at.name, args[0]) {
			return []usersAt{at}, nil
		}
	}
	return nil, fmt.Errorf("target %s %w", args[0], conf.ErrNotFound)
}

// usersV1 returns the users by target; discovery is among them.
func usersV1(cfg *conf.Config, places []usersAt) map[string][]v1.User {
	all := map[string][]v1.User{discovery: api.DiscoveryV1(&cfg.DiscoveryAuthentication).Users}
	for _, t := range api.TargetsV1(cfg) {
		all[t.Name] = t.Users
	}
	users := map[string][]v1.User{}
	for _, p := range places {
		users[p.name] = all[p.name]
	}
	return users
}

func printUsers(w io.Writer, places []usersAt) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TARGET\tUSER\tSECRET\tINITIATORS")
	for _, p := range places {
		for _, u := range p.users {
			_, file, variable := u.Secret.Source()
			from := "in the configuration"
			switch {
			case file != "":
				from = "file " + file
			case variable != "":
				from = "environment variable " + variable
			}
			initiators := "all"
			if len(u.Initiators) > 0 {
				initiators = joinPatterns(u.Initiators)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.name, u.Name, from, initiators)
		}
	}
	return table.Flush()
}

func joinPatterns(patterns []conf.NamePattern) string {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		texts[i] = string(p)
	}
	return strings.Join(texts, " ")
}

// secretOptions are the flags that say where a secret comes from. There is none for the
// secret itself: other users of the machine see arguments.
type secretOptions struct{ file, variable, from string }

func (s *secretOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "secret-file", "", "`FILE` from which the server reads the secret, at each reload again")
	cmd.Flags().StringVar(&s.variable, "secret-env", "", "environment `VARIABLE` of the server with the secret")
	cmd.Flags().StringVar(&s.from, "secret-from", "", "read the secret from `FILE` now (-: standard input), and put it into the configuration")
	cmd.MarkFlagsMutuallyExclusive("secret-file", "secret-env", "secret-from")
}

// secretHelp describes the flags.
const secretHelp = "The secret is not an argument, which\n" +
	"others could see: --secret-file and --secret-env say where the server finds it, --secret-from\n" +
	"reads it and puts it into the configuration file."

// secret returns the secret; nil without a flag.
func (s *secretOptions) secret(stdin io.Reader, o *adminOptions) (*conf.Secret, error) {
	switch {
	case s.file != "":
		path := s.file
		if o.api == "" { // otherwise it is a path of another machine
			var err error
			if path, err = filepath.Abs(s.file); err != nil {
				return nil, err
			}
		}
		return new(conf.FileSecret(path)), nil
	case s.variable != "":
		return new(conf.EnvSecret(s.variable)), nil
	case s.from == stdio:
		secret, err := readSecret(stdin)
		if err != nil {
			return nil, fmt.Errorf("secret from standard input: %w", err)
		}
		return new(conf.InlineSecret(secret)), nil
	case s.from != "":
		secret, _, err := conf.ReadSecretFile(s.from)
		if err != nil {
			return nil, err
		}
		return new(conf.InlineSecret(string(secret))), nil
	default:
		return nil, nil
	}
}

// maxSecret bounds what is read of standard input for a secret, in bytes.
const maxSecret = 1024

// readSecret reads a line with a secret.
func readSecret(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case secret == "":
		return "", errors.New("it is empty")
	case len(b) > maxSecret || strings.ContainsAny(secret, "\r\n\x00"):
		return "", errors.New("it is more than one line of 1024 bytes")
	case strings.TrimSpace(secret) != secret:
		return "", errors.New("it begins or ends with white space")
	}
	return secret, nil
}

// parsePatterns parses names of initiators.
func parsePatterns(texts []string) ([]conf.NamePattern, error) {
	patterns := []conf.NamePattern{}
	for _, text := range texts {
		p, err := conf.ParseNamePattern(text)
		if err != nil {
			return nil, &usageError{err}
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

func newUserAdd() *cobra.Command {
	var o adminOptions
	var s secretOptions
	var initiators []string
	cmd := &cobra.Command{
		Use:   "add TARGET NAME",
		Short: "Add a CHAP user to a target",
		Long: "Add a CHAP user to a target. The first user makes authentication mandatory. " + secretHelp + "\n" +
			editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := s.secret(cmd.InOrStdin(), &o)
			if err != nil {
				return err
			}
			if secret == nil {
				return usagef("give --secret-file, --secret-env or --secret-from")
			}
			u := conf.User{Name: args[1], Secret: *secret}
			if u.Initiators, err = parsePatterns(initiators); err != nil {
				return err
			}
			return editConfig(cmd, &o, fmt.Sprintf("user %s of %s: added", args[1], userPlace(args[0])), conf.AddUser{Target: userTarget(args[0]), User: u})
		},
	}
	addAdminFlags(cmd, &o)
	s.addFlags(cmd)
	cmd.Flags().StringSliceVar(&initiators, "initiator", nil, "`NAMES` of initiators that may use the user, or prefixes with *")
	return cmd
}

func newUserSet() *cobra.Command {
	var o adminOptions
	var s secretOptions
	var initiators []string
	cmd := &cobra.Command{
		Use:   "set TARGET NAME",
		Short: "Change the secret of a CHAP user, or who may use it",
		Long: "Change the secret of a CHAP user, or which initiators may use it; --initiator \"\" lets all. What no\n" +
			"flag names stays. " + secretHelp + "\n" + editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := s.secret(cmd.InOrStdin(), &o)
			if err != nil {
				return err
			}
			e := conf.SetUser{Target: userTarget(args[0]), Name: args[1], Secret: secret}
			if cmd.Flags().Changed("initiator") {
				patterns, err := parsePatterns(initiators)
				if err != nil {
					return err
				}
				e.Initiators = &patterns
			} else if secret == nil {
				return usagef("give --secret-file, --secret-env, --secret-from or --initiator")
			}
			return editConfig(cmd, &o, fmt.Sprintf("user %s of %s: changed", args[1], userPlace(args[0])), e)
		},
	}
	addAdminFlags(cmd, &o)
	s.addFlags(cmd)
	cmd.Flags().StringSliceVar(&initiators, "initiator", nil, "`NAMES` of initiators that may use the user, or prefixes with *")
	return cmd
}

func newUserRemove() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "remove TARGET NAME",
		Short: "Remove a CHAP user of a target",
		Long: "Remove a CHAP user of a target. Sessions that logged in with it are asked to log out. The last user\n" +
			"cannot be removed: without users, all initiators may log in. " + editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return editConfig(cmd, &o, fmt.Sprintf("user %s of %s: removed", args[1], userPlace(args[0])), conf.RemoveUser{Target: userTarget(args[0]), Name: args[1]})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}
