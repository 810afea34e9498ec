package api

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/conf"
)

// classes are the words for when a change takes effect.
var classes = []struct {
	words string
	class conf.Class
}{{"at_once", conf.AtOnce}, {"new_logins", conf.NewLogins}, {"restart", conf.NeedsRestart}}

// ConfigChangeV1 returns the JSON of a difference of two configurations.
func ConfigChangeV1(c conf.Change) v1.ConfigChange {
	out := v1.ConfigChange{Key: c.Key, Before: c.Before, After: c.After, Why: c.Why}
	for _, known := range classes {
		if known.class == c.Class {
			out.TakesEffect = known.words
		}
	}
	return out
}

// configChangeOf is the inverse of ConfigChangeV1. An unknown class, of another version, is
// taken for the one that needs most care.
func configChangeOf(c v1.ConfigChange) conf.Change {
	out := conf.Change{Key: c.Key, Before: c.Before, After: c.After, Why: c.Why, Class: conf.NeedsRestart}
	for _, known := range classes {
		if known.words == c.TakesEffect {
			out.Class = known.class
		}
	}
	return out
}

// ConfigChangesV1 returns the JSON of the differences of two configurations.
func ConfigChangesV1(list []conf.Change) []v1.ConfigChange { return each(ConfigChangeV1)(list) }

// ReloadedV1 returns the JSON of an applied change of the configuration.
func ReloadedV1(r admin.Reloaded) v1.Reloaded {
	return v1.Reloaded{
		Changes: some(ConfigChangesV1(r.Changes)), Warnings: r.Warnings, TargetsAdded: r.TargetsCame, TargetsRemoved: r.TargetsLeft,
		LUNsAdded: each(lunNameV1)(r.Came), LUNsRemoved: each(lunNameV1)(r.Left),
		LogoutsRequested: r.LogoutsRequested, LUNsAborted: r.Aborted, Seconds: r.Took.Seconds(), LockSeconds: r.LockedFor.Seconds(),
	}
}

func reloadedOf(r v1.Reloaded) admin.Reloaded {
	return admin.Reloaded{
		Changes: each(configChangeOf)(orNil(r.Changes)), Warnings: r.Warnings, TargetsCame: r.TargetsAdded, TargetsLeft: r.TargetsRemoved,
		Came: each(lunNameOf)(r.LUNsAdded), Left: each(lunNameOf)(r.LUNsRemoved),
		LogoutsRequested: r.LogoutsRequested, Aborted: r.LUNsAborted, Took: durationOf(r.Seconds), LockedFor: durationOf(r.LockSeconds),
	}
}

func lunNameV1(n admin.LUNName) v1.LUNName { return v1.LUNName(n) }

func lunNameOf(n v1.LUNName) admin.LUNName { return admin.LUNName(n) }

// durationOf is the inverse of Duration.Seconds, to the nanosecond.
func durationOf(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

func problemV1(p conf.Problem) v1.Problem { return v1.Problem(p) }

func problemOf(p v1.Problem) conf.Problem { return conf.Problem(p) }

// TargetsV1 returns the JSON of the targets of a configuration.
func TargetsV1(cfg *conf.Config) []v1.Target {
	list := make([]v1.Target, len(cfg.Targets))
	for i := range cfg.Targets {
		list[i] = targetV1(&cfg.Targets[i])
	}
	return list
}

func targetV1(t *conf.Target) v1.Target {
	out := v1.Target{
		Name: t.Name, LUNs: some(each(lunV1)(t.LUNs)), Users: usersV1(t.Authentication.Users), Access: some(each(accessV1)(t.Access)),
		Authentication: t.Authentication.Required && len(t.Authentication.Users) > 0, PortalGroups: t.PortalGroups,
	}
	if t.Redirect != nil {
		out.RedirectTo = t.Redirect.To.String()
	}
	return out
}

// DiscoveryV1 returns the JSON of the authentication of discovery sessions.
func DiscoveryV1(a *conf.Authentication) v1.Discovery {
	return v1.Discovery{Authentication: a.Required && len(a.Users) > 0, Users: usersV1(a.Users)}
}

// some returns a list that is not nil.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// orNil is the inverse of some.
func orNil[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

func lunV1(l conf.LUN) v1.LUN {
	return v1.LUN{
		Number: l.Number, Volume: l.Volume, File: l.File, Backing: cmp.Or(l.Backing, l.ISCSI), View: l.View, SizeBytes: l.Size, BlockBytes: l.BlockSize,
		ReadOnly: l.ReadOnly, StoreDuplicates: l.StoreDuplicates, UnmapGranularityBytes: l.UnmapGranularity, Identity: conf.FormatIdentity(l.Identity), Limit: v1.Rate(l.Rate),
		Login: loginNamesV1(l.Login),
	}
}

// lunOf is the inverse of lunV1, for an identity that is one: see newLUN.
func lunOf(l v1.LUN) conf.LUN {
	identity, _ := conf.ParseIdentity(l.Identity)
	backing, iscsi := l.Backing, ""
	if conf.IsISCSI(backing) {
		backing, iscsi = "", backing
	}
	return conf.LUN{
		Number: l.Number, Volume: l.Volume, File: l.File, Backing: backing, ISCSI: iscsi, View: l.View, Size: l.SizeBytes, BlockSize: l.BlockBytes,
		ReadOnly: l.ReadOnly, StoreDuplicates: l.StoreDuplicates, UnmapGranularity: l.UnmapGranularityBytes, Identity: identity, Rate: conf.Rate(l.Limit),
	}
}

func usersV1(list []conf.User) []v1.User { return some(each(userV1)(list)) }

func userV1(u conf.User) v1.User { return v1.User{Name: u.Name, Initiators: textsOf(u.Initiators)} }

func textsOf(list []conf.NamePattern) []string {
	return each(func(p conf.NamePattern) string { return string(p) })(list)
}

func patternsOf(list []string) []conf.NamePattern {
	return each(func(s string) conf.NamePattern { return conf.NamePattern(s) })(list)
}

func secretV1(s conf.Secret) (out v1.SecretSource) {
	out.Secret, out.SecretFile, out.SecretEnv = s.Source()
	return out
}

// secretOf returns the secret of a request; nil without one.
func secretOf(s v1.SecretSource) (secret *conf.Secret, err error) {
	for _, given := range []struct {
		text string
		of   func(string) conf.Secret
	}{{s.Secret, conf.InlineSecret}, {s.SecretFile, conf.FileSecret}, {s.SecretEnv, conf.EnvSecret}} {
		if given.text == "" {
			continue
		}
		if secret != nil {
			return nil, fmt.Errorf("%w: more than one of secret, secret_file and secret_env", blockdev.ErrInvalid)
		}
		secret = new(given.of(given.text))
	}
	return secret, nil
}
