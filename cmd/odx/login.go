package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"odx/conf"
)

// loginOptions are the flags of what a LUN of another target is logged in to with.
type loginOptions struct {
	user, file, variable                   string
	targetUser, targetFile, targetVariable string
}

// loginHelp describes the flags.
const loginHelp = "Where that target wants a login (CHAP), --login-user names the user, and\n" +
	"--login-secret-file or --login-secret-env says where the server finds the secret. With\n" +
	"--login-target-user that target has to prove itself, too."

func (l *loginOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.user, "login-user", "", "`NAME` to log in to the other target with")
	cmd.Flags().StringVar(&l.file, "login-secret-file", "", "`FILE` from which the server reads the secret of --login-user")
	cmd.Flags().StringVar(&l.variable, "login-secret-env", "", "environment `VARIABLE` of the server with that secret")
	cmd.Flags().StringVar(&l.targetUser, "login-target-user", "", "`NAME` that the other target has to prove itself with")
	cmd.Flags().StringVar(&l.targetFile, "login-target-secret-file", "", "`FILE` from which the server reads the secret of --login-target-user")
	cmd.Flags().StringVar(&l.targetVariable, "login-target-secret-env", "", "environment `VARIABLE` of the server with that secret")
	cmd.MarkFlagsMutuallyExclusive("login-secret-file", "login-secret-env")
	cmd.MarkFlagsMutuallyExclusive("login-target-secret-file", "login-target-secret-env")
}

// login returns the login for a medium; nil without a flag.
func (l *loginOptions) login(medium string, o *adminOptions) (*conf.Login, error) {
	switch {
	case *l == loginOptions{}:
		return nil, nil
	case !conf.IsISCSI(medium):
		return nil, usagef("a login is for a LUN of another target, and %s is none; write iscsi://HOST[:PORT]/TARGET/LUN", medium)
	case l.user == "":
		return nil, usagef("give --login-user, too")
	}
	u, err := loginUser("--login", l.user, l.file, l.variable, o)
	if err != nil {
		return nil, err
	}
	out := &conf.Login{User: u}
	if l.targetUser == "" && l.targetFile == "" && l.targetVariable == "" {
		return out, nil
	}
	if u, err = loginUser("--login-target", l.targetUser, l.targetFile, l.targetVariable, o); err != nil {
		return nil, err
	}
	out.Mutual = &u
	return out, nil
}

// loginUser returns a name with its secret, from flags that begin with prefix.
func loginUser(prefix, name, file, variable string, o *adminOptions) (u conf.User, err error) {
	u.Name = name
	switch {
	case name == "":
		return u, usagef("give %s-user, too", prefix)
	case file != "":
		if o.api == "" { // otherwise it is a path of another machine
			if file, err = filepath.Abs(file); err != nil {
				return u, err
			}
		}
		u.Secret = conf.FileSecret(file)
	case variable != "":
		u.Secret = conf.EnvSecret(variable)
	default:
		return u, usagef("give %s-secret-file or %s-secret-env", prefix, prefix)
	}
	return u, nil
}
