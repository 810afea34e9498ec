package iscsi

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"odx/target/scsi"
)

// modelTarget is what a plain model of a target has.
type modelTarget struct {
	// secrets are those of the users; nil: there is no authentication.
	secrets  map[string]string
	optional bool
	// access has the LUN that an initiator sees; nil: all see everything.
	access   map[string]uint16
	redirect bool
	group    uint16 // 0: all
	disk     *memDisk
}

// modelSession is a session of the model.
type modelSession struct {
	target, initiator string
	isid              byte
	user              string
	lun               uint16 // 0: everything
}

// admits returns the status of a login, and the LUN that the session sees.
func (m *modelTarget) admits(initiator, user, secret string) (status, lun uint16) {
	if m == nil || m.group != 0 && m.group != 7 {
		return loginNotFound, 0
	}
	if m.redirect {
		return loginMovedTemporarily, 0
	}
	if m.secrets != nil && (user != "" || !m.optional) && (m.secrets[user] == "" || m.secrets[user] != secret) {
		return loginAuthenticationFailed, 0
	}
	if m.access != nil && m.access[initiator] == 0 {
		return loginAuthorizationFailed, 0
	}
	return loginSuccess, m.access[initiator]
}

// keeps reports whether a session continues, and the LUN that it sees.
func (m *modelTarget) keeps(s modelSession) (ok bool, lun uint16) {
	secret := "whatever it was"
	if m != nil && m.secrets != nil {
		secret = cmp.Or(m.secrets[s.user], secret)
	}
	status, lun := m.admits(s.initiator, s.user, secret)
	return status == loginSuccess, lun
}

// config returns the target's configuration.
func (m *modelTarget) config(t *testing.T, name string) TargetConfig {
	c := TargetConfig{Name: name, DeviceServer: m.disk}
	if m.secrets != nil {
		c.Authentication = authentication(t, m.secrets)
		c.Authentication.Optional = m.optional
	}
	if access := maps.Clone(m.access); access != nil {
		c.Admit = func(initiator string, _ netip.Addr) (scsi.View, bool) {
			lun := access[initiator]
			return scsi.View{lun: {LUN: lun}}, lun != 0
		}
	}
	if m.redirect {
		c.Redirect = &Redirect{Address: "192.0.2.1:3260"}
	}
	if m.group != 0 {
		c.PortalGroups = []uint16{m.group}
	}
	return c
}

// modelTest is a random history of logins and reconfigurations, with the model next to it.
type modelTest struct {
	*bench
	t        *testing.T
	rng      *rand.Rand
	disks    map[string]*memDisk
	targets  map[string]*modelTarget
	sessions map[modelSession]*initiator
}

var modelSecrets = []string{"the first secret of a user", "the second secret of a user"}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// change changes a random target, and reconfigures the server.
func (m *modelTest) change() {
	name := pick(m.rng, slices.Sorted(maps.Keys(m.disks))...)
	next := &modelTarget{disk: m.disks[name]}
	if before := m.targets[name]; before != nil {
		*next = *before
	}
	switch m.rng.IntN(9) {
	case 0, 1:
		next.secrets = map[string]string{}
		for _, user := range []string{"alice", "bob"} {
			if m.rng.IntN(3) > 0 {
				next.secrets[user] = pick(m.rng, modelSecrets...)
			}
		}
		if len(next.secrets) == 0 {
			next.secrets = nil
		}
	case 2:
		next.optional = !next.optional
	case 3, 4:
		next.access = map[string]uint16{}
		for n := range 3 {
			if m.rng.IntN(4) > 0 {
				next.access[m.initiatorName(n)] = uint16(1 + m.rng.IntN(2))
			}
		}
	case 5:
		next.access = nil
	case 6:
		next.group = pick(m.rng, 0, uint16(7), 8)
	case 7:
		next.redirect = !next.redirect && m.rng.IntN(2) == 0
	case 8:
		if m.rng.IntN(2) == 0 {
			next = nil
		} else { // another target with the same name
			m.disks[name] = newMemDisk(1 << 16)
			next.disk = m.disks[name]
		}
	}
	replaced := next != nil && m.targets[name] != nil && next.disk != m.targets[name].disk
	if m.targets[name] = next; next == nil {
		delete(m.targets, name)
	}
	m.reconfigure(func(r *Reconfiguration) {
		r.Targets = nil
		for _, name := range slices.Sorted(maps.Keys(m.targets)) {
			r.Targets = append(r.Targets, m.targets[name].config(m.t, name))
		}
	})
	for s, i := range maps.Clone(m.sessions) {
		ok, lun := m.targets[s.target].keeps(s)
		if ok = ok && !(replaced && s.target == name); ok && lun == s.lun {
			continue
		}
		delete(m.sessions, s)
		if !ok {
			i.askedToLogOut()
			if m.rng.IntN(2) == 0 {
				i.expectClosed()
			}
			i.nc.Close()
			continue
		}
		s.lun = lun
		m.sessions[s] = i
	}
}

func (m *modelTest) initiatorName(n int) string { return fmt.Sprintf("%s.%d", testInitiator, n) }

// logIn tries a random login.
func (m *modelTest) logIn() {
	s := modelSession{target: pick(m.rng, slices.Sorted(maps.Keys(m.disks))...), initiator: m.initiatorName(m.rng.IntN(3)), isid: byte(m.rng.IntN(2))}
	user, secret := pick(m.rng, "", "alice", "bob", "carol"), pick(m.rng, modelSecrets...)
	want, lun := m.targets[s.target].admits(s.initiator, user, secret)
	if want == loginSuccess && m.targets[s.target].secrets != nil {
		s.user = user
	}
	s.lun = lun
	for other := range m.sessions { // reinstatement has its own tests
		if other.target == s.target && other.initiator == s.initiator && other.isid == s.isid {
			return
		}
	}
	i := m.dial()
	i.isid[5] = s.isid
	if got := i.loginTo(s.initiator, s.target, user, secret); got != want {
		m.t.Fatalf("login of %+v as %q with %q: status %#x, want %#x", s, user, secret, got, want)
	}
	if want == loginSuccess {
		m.sessions[s] = i
	} else {
		i.nc.Close()
	}
}

// end ends a random session, by either side.
func (m *modelTest) end() {
	for s, i := range m.sessions {
		delete(m.sessions, s)
		if m.rng.IntN(2) == 0 {
			i.logout()
			return
		}
		if err := m.srv.EndSession(i.tsih); err != nil {
			m.t.Fatalf("EndSession of %+v: %v", s, err)
		}
		i.askedToLogOut()
		i.nc.Close()
		return
	}
}

// compare compares the sessions of the server with those of the model.
func (m *modelTest) compare() {
	m.t.Helper()
	list := func() (all []modelSession) {
		for _, s := range m.srv.Sessions() {
			seen := modelSession{target: s.TargetName, initiator: s.InitiatorName, isid: s.ISID[len(s.ISID)-1] - '0', user: s.User}
			for lun := range s.View {
				seen.lun = lun
			}
			all = append(all, seen)
		}
		return sorted(all)
	}
	want := sorted(slices.Collect(maps.Keys(m.sessions)))
	eventually(m.t, fmt.Sprintf("the sessions are %+v", want), func() bool { return slices.Equal(list(), want) })
	for s, i := range m.sessions {
		i.ping(nil) // nothing else has arrived
		if view := m.targets[s.target].disk.rightsOfISID(s.initiator, i.isid).View; s.lun != 0 && view[s.lun].LUN != s.lun || s.lun == 0 && view != nil {
			m.t.Errorf("nexus of %+v has view %v", s, view)
		}
	}
}

func sorted(list []modelSession) []modelSession {
	slices.SortFunc(list, func(a, b modelSession) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return list
}

// TestServer_Reconfigure_Model: after any history of logins, logouts and reconfigurations, the
// sessions are those that the model admits, with its views and users. The status of each login
// is the model's, also right after a change.
func TestServer_Reconfigure_Model(t *testing.T) {
	const histories, steps = 40, 150
	for seed := range uint64(histories) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.LogoutTimeout = time.Millisecond }, nil)
			m := &modelTest{bench: b, t: t, rng: rand.New(rand.NewPCG(17, seed)), targets: map[string]*modelTarget{}, sessions: map[modelSession]*initiator{}}
			m.disks = map[string]*memDisk{testTarget: b.disk, testTarget + "2": b.configured.Targets[1].DeviceServer.(*memDisk)}
			for name, disk := range m.disks {
				m.targets[name] = &modelTarget{disk: disk}
			}
			for range steps {
				switch m.rng.IntN(6) {
				case 0, 1:
					m.change()
				case 2, 3, 4:
					m.logIn()
				case 5:
					m.end()
				}
				m.compare()
			}
		})
	}
}
