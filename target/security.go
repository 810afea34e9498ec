package target

import (
	"bytes"
	"fmt"
	"net/netip"

	"github.com/sirupsen/logrus"

	"odx/chap"
	"odx/conf"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// secrets are those of a configuration, by the key of the name they belong to.
type secrets map[string][]byte

// readSecrets reads every secret that cfg names, and reports all that cannot be
// used, and what is only unwise.
func readSecrets(cfg *conf.Config) (secrets, []warning, error) {
	all := secrets{}
	var unwise []warning
	var problems conf.Problems
	read := func(u *conf.User) {
		secret, doubt, err := u.Secret.Read()
		if err == nil {
			err = chap.CheckSecret(secret)
		}
		if err != nil {
			problems = append(problems, cfg.Problem(u.Secret.Key, "%v", err))
			return
		}
		if doubt != "" {
			unwise = append(unwise, warning{"user", u.Name, cfg.Problem(u.Secret.Key, "%s", doubt).Error()})
		}
		all[u.Key] = secret
	}
	users, mutual := namesOf(cfg)
	for _, u := range append(users, mutual...) {
		read(u)
	}
	for _, l := range (&state{cfg: cfg}).luns {
		if l.Login == nil {
			continue
		}
		read(&l.Login.User)
		if m := l.Login.Mutual; m != nil {
			read(m)
			if s, ok := all[m.Key]; ok && bytes.Equal(s, all[l.Login.Key]) {
				problems = append(problems, cfg.Problem(m.Secret.Key, "this is also the secret of %s, which the target knows: give each direction its own", l.Login.Name))
			}
		}
	}
	for _, m := range mutual {
		for _, u := range users {
			if s, ok := all[m.Key]; ok && bytes.Equal(s, all[u.Key]) {
				problems = append(problems, cfg.Problem(m.Secret.Key,
					"this is also the secret of user %s (%s), whose holders could impersonate the target: give each direction its own", u.Name, u.Key))
				break
			}
		}
	}
	if len(problems) > 0 {
		return nil, unwise, problems
	}
	return all, unwise, nil
}

// namesOf returns the names of both directions in the whole configuration.
func namesOf(cfg *conf.Config) (users, mutual []*conf.User) {
	add := func(a *conf.Authentication) {
		for i := range a.Users {
			users = append(users, &a.Users[i])
		}
		if a.Mutual != nil {
			mutual = append(mutual, a.Mutual)
		}
	}
	add(&cfg.DiscoveryAuthentication)
	for i := range cfg.Targets {
		add(&cfg.Targets[i].Authentication)
	}
	return users, mutual
}

// authentication returns the authentication that a configures. All authentications of a
// server share their challenges.
func (s secrets) authentication(a *conf.Authentication, challenges *chap.Challenges) (iscsi.Authentication, error) {
	if len(a.Users) == 0 {
		return iscsi.Authentication{}, nil
	}
	c := chap.Config{Challenges: challenges}
	for i := range a.Users {
		u := &a.Users[i]
		c.Users = append(c.Users, chap.User{Credential: chap.Credential{Name: u.Name, Secret: s[u.Key]}, Allows: u.Allows, Binds: u.Binds})
	}
	if a.Mutual != nil {
		c.Target = chap.Credential{Name: a.Mutual.Name, Secret: s[a.Mutual.Key]}
	}
	for _, name := range a.Algorithms {
		algorithm, err := chap.ParseAlgorithm(name)
		if err != nil {
			return iscsi.Authentication{}, err
		}
		c.Algorithms = append(c.Algorithms, algorithm)
	}
	authenticator, err := chap.New(c)
	if err != nil {
		return iscsi.Authentication{}, fmt.Errorf("authentication: %w", err)
	}
	return iscsi.Authentication{CHAP: authenticator, Optional: !a.Required}, nil
}

// admit returns the function that decides, by a target's access list, which initiators
// may log in.
func admit(t *conf.Target, replaced map[place]bool) iscsi.Admit {
	if t.Access == nil {
		return nil
	}
	views := make([]scsi.View, len(t.Access))
	for i := range t.Access {
		views[i] = viewOf(t, &t.Access[i], replaced)
	}
	return func(initiator string, from netip.Addr) (scsi.View, bool) {
		for i := range t.Access {
			if t.Access[i].Matches(initiator, from) {
				return views[i], true
			}
		}
		return nil, false
	}
}

// viewOf returns the LUN map of the initiators of an entry; nil if they see all LUNs of
// the target.
func viewOf(t *conf.Target, a *conf.Access, replaced map[place]bool) scsi.View {
	if a.LUNs == nil && !a.ReadOnly {
		return nil
	}
	view := scsi.View{}
	for _, m := range a.LUNs {
		view[m.As] = scsi.ViewedLU{LUN: m.LUN, ReadOnly: m.ReadOnly || a.ReadOnly, Replaced: replaced[place{t.Name, accessKey(a), m.As}]}
	}
	if a.LUNs == nil {
		for i := range t.LUNs {
			n := t.LUNs[i].Number
			view[n] = scsi.ViewedLU{LUN: n, ReadOnly: true, Replaced: replaced[place{t.Name, "", n}]}
		}
	}
	return view
}

// targetConfigs returns what the transport has to serve: the targets, in the order of the
// configuration, and the authentication of discovery sessions.
func (s *Service) targetConfigs(st *state, replaced map[place]bool) ([]iscsi.TargetConfig, iscsi.Authentication, error) {
	discovery, err := st.secrets.authentication(&st.cfg.DiscoveryAuthentication, s.challenges)
	if err != nil {
		return nil, discovery, err
	}
	var list []iscsi.TargetConfig
	for i := range st.cfg.Targets {
		t := &st.cfg.Targets[i]
		c := iscsi.TargetConfig{
			Name: t.Name, PortalGroups: t.PortalGroups, Redirect: redirect(t.Redirect), DeviceServer: st.devices[t.Name], Admit: admit(t, replaced),
		}
		if c.Authentication, err = st.secrets.authentication(&t.Authentication, s.challenges); err != nil {
			return nil, discovery, err
		}
		list = append(list, c)
	}
	return list, discovery, nil
}

// warnings returns what is unwise in a configuration that is served at these portals.
func warnings(cfg *conf.Config, at []portal) []warning {
	return append(openTargets(cfg, at), unboundUsers(cfg)...)
}

// warning is a line of the log.
type warning struct {
	field, value string
	text         string
}

func (w *warning) log(log *logrus.Entry) { log.WithField(w.field, w.value).Warn(w.text) }

// unboundUsers returns the users that may log in under any initiator name of their
// target. Discovery sessions are excepted: they gain nothing by a name.
func unboundUsers(cfg *conf.Config) (all []warning) {
	for i := range cfg.Targets {
		for _, u := range cfg.Targets[i].Authentication.Users {
			if !u.Bound() {
				all = append(all, warning{"user", u.Name, cfg.Problem(u.Key,
					"the user may log in under the name of any initiator; give initiators, the names that it is for").Error()})
			}
		}
	}
	return all
}

// openTargets returns the targets that are open to everyone on other machines.
func openTargets(cfg *conf.Config, at []portal) (all []warning) {
	local := true
	for _, p := range at {
		a, err := netip.ParseAddrPort(p.address())
		local = local && err == nil && a.Addr().IsLoopback()
	}
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		if !local && t.Access == nil && (len(t.Authentication.Users) == 0 || !t.Authentication.Required) {
			all = append(all, warning{"target", t.Name, "target open to everyone who can reach a portal: it has no authentication and no access list"})
		}
	}
	return all
}
