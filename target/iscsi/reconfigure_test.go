package iscsi

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/chap"
	"odx/target/scsi"
)

// reconfigure changes what the server has.
func (b *bench) reconfigure(change func(r *Reconfiguration)) Reconfigured {
	b.tb.Helper()
	next := b.configured
	next.Targets = slices.Clone(next.Targets)
	change(&next)
	done, err := b.srv.Reconfigure(next)
	if err != nil {
		b.tb.Fatalf("Reconfigure: %v", err)
	}
	b.configured = next
	return done
}

// authentication returns that of users with their secrets.
func authentication(tb testing.TB, secrets map[string]string) Authentication {
	tb.Helper()
	var users []chap.User
	for name, secret := range secrets {
		users = append(users, chap.User{Credential: chap.Credential{Name: name, Secret: []byte(secret)}})
	}
	a, err := chap.New(chap.Config{Users: users})
	if err != nil {
		tb.Fatal(err)
	}
	return Authentication{CHAP: a}
}

// loginCHAP logs in to the test target as a user, and returns the status.
func (i *initiator) loginCHAP(user, secret string) uint16 {
	i.tb.Helper()
	return i.loginTo(testInitiator, testTarget, user, secret)
}

// loginTo logs in as a user if the target authenticates by CHAP, and returns the status.
func (i *initiator) loginTo(initiatorName, target, user, secret string) uint16 {
	i.tb.Helper()
	method := "AuthMethod=CHAP,None"
	if user == "" {
		method = "AuthMethod=None"
	}
	r, data := i.step(csgSecurity|toOperational, "InitiatorName="+initiatorName, normal, "TargetName="+target, method)
	if r.field16(36) == 0 && strings.Contains(string(data), "AuthMethod=CHAP") {
		if r, data = i.step(csgSecurity, "CHAP_A=7"); r.field16(36) == 0 {
			r, _ = i.step(csgSecurity|toOperational, answerChallenge(i.tb, chap.SHA256, data, user, secret)...)
		}
	}
	if r.field16(36) == 0 {
		if r, data = i.step(csgOperational | toFullFeature); r.field16(36) == 0 {
			i.loggedIn(r, data)
		}
	}
	return r.field16(36)
}

// askedToLogOut receives the request to log out (RFC 7143 11.9.1).
func (i *initiator) askedToLogOut() {
	i.tb.Helper()
	r, _ := i.expect(opAsync)
	if r[36] != asyncLogoutRequest || r.field16(42) == 0 || r.itt() != reservedTag {
		i.tb.Fatalf("received %x, want a request to log out", *r)
	}
}

// dropped receives the notice that the connection is closed, and the end.
func (i *initiator) dropped() {
	i.tb.Helper()
	r, _ := i.expect(opAsync)
	if r[36] != asyncConnectionDrop {
		i.tb.Fatalf("received %x, want the notice that the connection is dropped", *r)
	}
	i.expectClosed()
}

// quiet checks that nothing has arrived: the answer to a ping is the next PDU.
func (i *initiator) quiet() {
	i.tb.Helper()
	i.ping(nil)
}

var anyone Admit = func(string, netip.Addr) (scsi.View, bool) { return nil, true }

// A session stays if a login would be admitted now, whatever else changes. Otherwise the
// initiator is asked to log out, and its commands end with BUSY.
func TestServer_Reconfigure(t *testing.T) {
	first := func(change func(c *TargetConfig)) func(r *Reconfiguration) {
		return func(r *Reconfiguration) { change(&r.Targets[0]) }
	}
	for what, c := range map[string]struct {
		change func(r *Reconfiguration)
		reason string // "": the session stays
	}{
		"nothing":             {func(*Reconfiguration) {}, ""},
		"alias":               {first(func(c *TargetConfig) { c.Alias = "another" }), ""},
		"another target goes": {func(r *Reconfiguration) { r.Targets = r.Targets[:1] }, ""},
		"a target comes": {func(r *Reconfiguration) {
			r.Targets = append(r.Targets, TargetConfig{Name: testTarget + "3", DeviceServer: newMemDisk(1 << 20)})
		}, ""},
		"limits": {func(r *Reconfiguration) {
			r.Options.MaxSessions, r.Options.MaxConnections, r.Options.QueueDepth, r.Options.MaxBurstLength, r.Options.FirstBurstLength = 1, 1, 1, 512, 512
		}, ""},
		"access that admits":        {first(func(c *TargetConfig) { c.Admit = anyone }), ""},
		"authentication, optional":  {first(func(c *TargetConfig) { c.Authentication = Authentication{CHAP: newCHAP(t), Optional: true} }), ""},
		"discovery authentication":  {func(r *Reconfiguration) { r.Options.DiscoveryAuthentication = Authentication{CHAP: newCHAP(t)} }, ""},
		"portal group that has it":  {first(func(c *TargetConfig) { c.PortalGroups = []uint16{3, 7} }), ""},
		"target goes":               {func(r *Reconfiguration) { r.Targets = r.Targets[1:] }, "no target"},
		"target replaced":           {first(func(c *TargetConfig) { c.DeviceServer = newMemDisk(1 << 20) }), "replaced"},
		"portal group":              {first(func(c *TargetConfig) { c.PortalGroups = []uint16{3} }), "no target"},
		"redirect":                  {first(func(c *TargetConfig) { c.Redirect = &Redirect{Address: "192.0.2.1:3260"} }), "redirected"},
		"access that refuses":       {first(func(c *TargetConfig) { c.Admit = func(string, netip.Addr) (scsi.View, bool) { return nil, false } }), "access list"},
		"authentication":            {first(func(c *TargetConfig) { c.Authentication = Authentication{CHAP: newCHAP(t)} }), "authentication is required"},
		"portal in another group":   {func(r *Reconfiguration) { r.Portals = []Portal{{Group: 8}} }, "another group"},
		"portal with a new address": {func(r *Reconfiguration) { r.Portals = []Portal{{Group: 7, Advertise: "192.0.2.1:3260"}} }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.LogoutTimeout = patience }, nil)
			i := b.login()
			i.alive()
			done := b.reconfigure(func(r *Reconfiguration) {
				c.change(r)
				for k := range r.Portals {
					r.Portals[k].Listener = b.portal().Listener
				}
			})
			if done.Took <= 0 || done.LongestLock <= 0 || done.LongestLock > done.Took {
				t.Errorf("took %v, longest lock %v", done.Took, done.LongestLock)
			}
			if c.reason == "" {
				if len(done.LoggingOut) != 0 {
					t.Errorf("asked to log out: %+v", done.LoggingOut)
				}
				i.quiet()
				i.alive()
				return
			}
			if len(done.LoggingOut) != 1 || done.LoggingOut[0].TSIH != i.tsih || done.LoggingOut[0].InitiatorName != testInitiator ||
				done.LoggingOut[0].TargetName != testTarget || !strings.Contains(done.LoggingOut[0].Reason.Error(), c.reason) {
				t.Errorf("asked to log out: %+v, want %s", done.LoggingOut, c.reason)
			}
			i.askedToLogOut()
			if !b.only().LoggingOut {
				t.Errorf("session %+v", b.only())
			}
			h := i.command(bitRead, memBlock, read10(0, 1)...)
			i.send(h, nil, nil)
			if r, _ := i.status(h); r[3] != statusBusy {
				t.Errorf("status %#x, want BUSY", r[3])
			}
			if again := b.reconfigure(func(*Reconfiguration) {}); len(again.LoggingOut) != 0 {
				t.Errorf("asked again: %+v", again.LoggingOut)
			}
			i.logout()
			eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 0 && b.disk.nexuses() == 0 })
		})
	}
}

// An initiator that does not log out is notified that its connection ends, and its commands
// are aborted.
func TestServer_Reconfigure_LogoutTimeout(t *testing.T) {
	b := newBench(t, nil, nil)
	running, _ := b.disk.delay(0x35)
	i := b.login()
	i.alive()
	i.send(i.command(0, 0, 0x35), nil, nil)
	<-running
	began := time.Now()
	b.reconfigure(func(r *Reconfiguration) { r.Targets = r.Targets[1:] })
	i.askedToLogOut()
	i.dropped()
	if took := time.Since(began); took < b.configured.Options.LogoutTimeout {
		t.Errorf("dropped after %v", took)
	}
	eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 0 && b.disk.nexuses() == 0 })
}

// A command that runs when its initiator is asked to log out may end.
func TestServer_Reconfigure_RunningCommand(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LogoutTimeout = patience }, nil)
	running, release := b.disk.delay(0x35)
	i := b.login()
	h := i.command(0, 0, 0x35)
	i.send(h, nil, nil)
	<-running
	b.reconfigure(func(r *Reconfiguration) { r.Targets = r.Targets[1:] })
	i.askedToLogOut()
	release()
	i.good(h)
	i.logout()
}

// An initiator that receives nothing does not keep its session.
func TestServer_Reconfigure_SlowReceiver(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login()
	for range 100 {
		i.send(i.command(bitRead, 2048*memBlock, read10(0, 2048)...), nil, nil)
	}
	b.socketFull()
	b.reconfigure(func(r *Reconfiguration) { r.Targets = r.Targets[1:] })
	eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 0 })
}

// A user keeps its session while it may use the target, also with another secret, which
// logins need from then on. The rights of the nexus follow.
func TestServer_Reconfigure_Users(t *testing.T) {
	const other = "another secret of the host"
	for what, c := range map[string]struct {
		next  Authentication
		stays bool
	}{
		"another secret":    {authentication(t, map[string]string{chapUser: other}), true},
		"another user":      {authentication(t, map[string]string{chapUser: chapSecret, "guest": other}), true},
		"none":              {Authentication{}, true},
		"unknown":           {authentication(t, map[string]string{"guest": chapSecret}), false},
		"unknown, optional": {Authentication{CHAP: authentication(t, map[string]string{"guest": chapSecret}).CHAP, Optional: true}, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.LogoutTimeout = patience }, nil)
			b.reconfigure(func(r *Reconfiguration) {
				r.Targets[0].Authentication = authentication(t, map[string]string{chapUser: chapSecret})
			})
			i := b.dial()
			if status := i.loginCHAP(chapUser, chapSecret); status != 0 {
				t.Fatalf("login: status %#x", status)
			}
			before := b.disk.rightsOf(testInitiator).Proof
			done := b.reconfigure(func(r *Reconfiguration) { r.Targets[0].Authentication = c.next })
			if !c.stays {
				i.askedToLogOut()
				i.logout()
				return
			}
			i.quiet()
			i.alive()
			after := b.disk.rightsOf(testInitiator).Proof
			if changes := what != "another user"; (before != after) != changes || (done.Readmitted == 1) != changes {
				t.Errorf("proof %q, then %q; %d readmitted", before, after, done.Readmitted)
			}
			if what != "another secret" {
				return
			}
			for secret, want := range map[string]uint16{chapSecret: loginAuthenticationFailed, other: loginSuccess} {
				again := b.dial()
				again.isid[5]++
				if status := again.loginCHAP(chapUser, secret); status != want {
					t.Errorf("login with %q: status %#x, want %#x", secret, status, want)
				}
			}
		})
	}
}

// A session whose view changes continues with the new one, and a connection can join it by
// that.
func TestServer_Reconfigure_View(t *testing.T) {
	b := newBench(t, nil, nil)
	sees := func(lun uint16) func(r *Reconfiguration) {
		return func(r *Reconfiguration) {
			r.Targets[0].Admit = func(string, netip.Addr) (scsi.View, bool) { return scsi.View{lun: {LUN: lun}}, true }
		}
	}
	b.reconfigure(sees(0))
	m := b.loginMulti(2)
	if done := b.reconfigure(sees(0)); done.Readmitted != 0 {
		t.Errorf("%d readmitted by an equal view", done.Readmitted)
	}
	if done := b.reconfigure(sees(5)); done.Readmitted != 1 || len(done.LoggingOut) != 0 {
		t.Errorf("%+v", done)
	}
	if view := b.disk.rightsOf(testInitiator).View; len(view) != 1 || view[5].LUN != 5 {
		t.Errorf("view %v", view)
	}
	if view := b.only().View; len(view) != 1 || view[5].LUN != 5 {
		t.Errorf("view of the session %v", view)
	}
	m.join(2)
	for n := range 3 {
		m.alive(n) // and nothing else has arrived
	}
}

// Of a session with several connections, those from addresses that lost the access are asked
// to log out.
func TestServer_Reconfigure_Address(t *testing.T) {
	b := newBench(t, nil, nil)
	m := b.loginMulti(1)
	m.from = "127.0.0.2"
	m.join(1)
	m.from = ""
	m.join(2)
	refused := netip.MustParseAddr("127.0.0.2")
	done := b.reconfigure(func(r *Reconfiguration) {
		r.Targets[0].Admit = func(_ string, from netip.Addr) (scsi.View, bool) { return nil, from != refused }
	})
	if len(done.LoggingOut) != 1 {
		t.Errorf("asked to log out: %+v", done.LoggingOut)
	}
	m.conns[1].askedToLogOut()
	if got := b.only(); got.LoggingOut || !got.Connections[1].LoggingOut || got.Connections[0].LoggingOut {
		t.Errorf("session %+v", got)
	}
	m.alive(0)
	m.alive(2)
	m.conns[1].dropped()
	m.sessions(2)
	m.alive(0)
	if _, r, _ := m.tryJoin(1); r.field16(36) != loginSuccess {
		t.Errorf("status %#x", r.field16(36))
	}
	m.from = "127.0.0.2"
	if _, r, _ := m.tryJoin(4); r.field16(36) != loginAuthorizationFailed {
		t.Errorf("from the refused address: status %#x", r.field16(36))
	}
}

// A discovery session sees the new targets, and ends if its user may not discover any more.
func TestServer_Reconfigure_Discovery(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LogoutTimeout = patience }, nil)
	d := b.discovery()
	two := "TargetName=" + testTarget + "2 TargetAddress=" + b.addr + ",7"
	b.reconfigure(func(r *Reconfiguration) { r.Targets = r.Targets[1:] })
	if got := d.text("SendTargets=All"); got != two {
		t.Errorf("answer %q, want %q", got, two)
	}
	b.reconfigure(func(r *Reconfiguration) {
		r.Portals = []Portal{{Listener: b.portal().Listener, Group: 7, Advertise: "192.0.2.1:3260"}}
	})
	if got, want := d.text("SendTargets=All"), "TargetName="+testTarget+"2 TargetAddress=192.0.2.1:3260,7"; got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	done := b.reconfigure(func(r *Reconfiguration) { r.Options.DiscoveryAuthentication = Authentication{CHAP: newCHAP(t)} })
	if len(done.LoggingOut) != 1 || done.LoggingOut[0].TargetName != "" {
		t.Errorf("asked to log out: %+v", done.LoggingOut)
	}
	d.askedToLogOut()
	d.logout()
}

// Nothing changes for a reconfiguration with a mistake, and there is none after the end.
func TestServer_Reconfigure_Refused(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login()
	for want, change := range map[string]func(r *Reconfiguration){
		"QueueDepth":    func(r *Reconfiguration) { r.Options.QueueDepth = 0 },
		"device server": func(r *Reconfiguration) { r.Targets = []TargetConfig{{Name: testTarget}} },
		"duplicate":     func(r *Reconfiguration) { r.Targets = append(r.Targets, r.Targets[0]) },
	} {
		next := b.configured
		next.Targets = slices.Clone(next.Targets)
		change(&next)
		if _, err := b.srv.Reconfigure(next); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %s", err, want)
		}
	}
	i.quiet()
	if got := b.discovery().text("SendTargets=All"); !strings.Contains(got, testTarget+"2") {
		t.Errorf("answer %q", got)
	}
	if err := b.srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := b.srv.Reconfigure(b.configured); !errors.Is(err, ErrClosed) {
		t.Errorf("after Shutdown: %v", err)
	}
	if err := b.srv.EndSession(i.tsih); !errors.Is(err, ErrClosed) {
		t.Errorf("EndSession after Shutdown: %v", err)
	}
}
