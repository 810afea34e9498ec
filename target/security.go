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
// used. What is only unwise goes to log.
func readSecrets(cfg *conf.Config, log *logrus.Entry) (secrets, error) {
	all := secrets{}
	var problems conf.Problems
	read := func(u *conf.User) {
		secret, warning, err := u.Secret.Read()
		if err == nil {
			err = chap.CheckSecret(secret)
		}
		if err != nil {
			problems = append(problems, cfg.Problem(u.Secret.Key, "%v", err))
			return
		}
		if warning != "" {
			log.WithField("user", u.Name).Warn(cfg.Problem(u.Secret.Key, "%s", warning).Error())
		}
		all[u.Key] = secret
	}
	users, mutual := namesOf(cfg)
	for _, u := range append(users, mutual...) {
		read(u)
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
		return nil, problems
	}
	return all, nil
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

// secure sets authentication and access lists of the server and of its targets, which
// are in the order of the configuration.
func (s *Service) secure(o *iscsi.Options, targets []iscsi.TargetConfig, all secrets, replaced map[place]bool) (err error) {
	challenges := &chap.Challenges{}
	if o.DiscoveryAuthentication, err = all.authentication(&s.cfg.DiscoveryAuthentication, challenges); err != nil {
		return err
	}
	for i := range targets {
		t := &s.cfg.Targets[i]
		if targets[i].Authentication, err = all.authentication(&t.Authentication, challenges); err != nil {
			return err
		}
		targets[i].Admit = admit(t, replaced)
		for at := range replaced {
			if at.target == t.Name && at.access == "" {
				targets[i].DeviceServer.(*scsi.Target).Replaced(at.lun)
			}
		}
	}
	s.warnOfOpenTargets()
	s.warnOfUnboundUsers()
	return nil
}

// warnOfUnboundUsers logs the users that may log in under any initiator name of their
// target. Discovery sessions are excepted: they gain nothing by a name.
func (s *Service) warnOfUnboundUsers() {
	for i := range s.cfg.Targets {
		for _, u := range s.cfg.Targets[i].Authentication.Users {
			if !u.Bound() {
				s.log.WithField("user", u.Name).Warn(s.cfg.Problem(u.Key,
					"the user may log in under the name of any initiator; give initiators, the names that it is for").Error())
			}
		}
	}
}

// warnOfOpenTargets logs the targets that are open to everyone on other machines.
func (s *Service) warnOfOpenTargets() {
	local := true
	for _, p := range s.portals.all() {
		a, err := netip.ParseAddrPort(p.address())
		local = local && err == nil && a.Addr().IsLoopback()
	}
	for i := range s.cfg.Targets {
		t := &s.cfg.Targets[i]
		if !local && t.Access == nil && (len(t.Authentication.Users) == 0 || !t.Authentication.Required) {
			s.log.WithField("target", t.Name).Warn("target open to everyone who can reach a portal: it has no authentication and no access list")
		}
	}
}
