package api

import (
	"fmt"

	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/conf"
)

// loginNamesV1 returns a login without its secrets; nil for none.
func loginNamesV1(l *conf.Login) *v1.Login {
	if l == nil {
		return nil
	}
	out := &v1.Login{LoginUser: v1.LoginUser{Name: l.Name}}
	if l.Mutual != nil {
		out.Mutual = &v1.LoginUser{Name: l.Mutual.Name}
	}
	return out
}

// loginV1 returns a login as a request has it; nil for none.
func loginV1(l *conf.Login) *v1.Login {
	out := loginNamesV1(l)
	if out != nil {
		out.SecretSource = secretV1(l.Secret)
		if l.Mutual != nil {
			out.Mutual.SecretSource = secretV1(l.Mutual.Secret)
		}
	}
	return out
}

// loginOf returns the login of a request; nil for none.
func loginOf(l *v1.Login) (*conf.Login, error) {
	if l == nil {
		return nil, nil
	}
	u, err := loginUserOf(&l.LoginUser)
	if err != nil {
		return nil, err
	}
	out := &conf.Login{User: u}
	if l.Mutual != nil {
		if u, err = loginUserOf(l.Mutual); err != nil {
			return nil, err
		}
		out.Mutual = &u
	}
	return out, nil
}

func loginUserOf(u *v1.LoginUser) (out conf.User, err error) {
	secret, err := secretOf(u.SecretSource)
	switch {
	case err != nil:
		return out, err
	case u.Name == "":
		return out, fmt.Errorf("%w: a login without a name", blockdev.ErrInvalid)
	case secret == nil:
		return out, fmt.Errorf("%w: login of %s: give one of secret_file, secret_env and secret", blockdev.ErrInvalid, u.Name)
	}
	return conf.User{Name: u.Name, Secret: *secret}, nil
}

// newLUNV1 is lunV1 for the request that adds the LUN.
func newLUNV1(l conf.LUN) v1.LUN {
	out := lunV1(l)
	out.Login = loginV1(l.Login)
	return out
}

// newLUN returns a LUN that is to be added, with defaults.
func newLUN(l v1.LUN) (out conf.LUN, err error) {
	if l.BlockBytes == 0 {
		l.BlockBytes = 512
	}
	if l.Identity != "" {
		if _, err := conf.ParseIdentity(l.Identity); err != nil {
			return out, fmt.Errorf("%w: LUN %d: %w", blockdev.ErrInvalid, l.Number, err)
		}
	}
	out = lunOf(l)
	if out.Login, err = loginOf(l.Login); err != nil {
		return out, fmt.Errorf("LUN %d: %w", l.Number, err)
	}
	return out, nil
}

// newLUNs is newLUN for several.
func newLUNs(list []v1.LUN) (out []conf.LUN, err error) {
	for _, l := range list {
		lun, err := newLUN(l)
		if err != nil {
			return nil, err
		}
		out = append(out, lun)
	}
	return out, nil
}
