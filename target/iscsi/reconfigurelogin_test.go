package iscsi

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"odx/chap"
	"odx/target/scsi"
)

// A login in progress is decided by the new configuration, or refused so that the initiator
// tries again.
func TestLogin_Reconfigured(t *testing.T) {
	const other = "another secret of the host"
	secret := func(s string) func(r *Reconfiguration) {
		return func(r *Reconfiguration) {
			r.Targets[0].Authentication = authentication(t, map[string]string{chapUser: s})
		}
	}
	for what, c := range map[string]struct {
		change func(r *Reconfiguration)
		proven string // the secret that is used; "": no proof yet when the change comes
		want   uint16
	}{
		"nothing":             {func(*Reconfiguration) {}, chapSecret, loginSuccess},
		"nothing, unproven":   {func(*Reconfiguration) {}, "", loginSuccess},
		"timeouts":            {func(r *Reconfiguration) { r.Options.PingTimeout++ }, chapSecret, loginSuccess},
		"same users, rebuilt": {secret(chapSecret), chapSecret, loginSuccess},
		"target goes":         {func(r *Reconfiguration) { r.Targets = r.Targets[1:] }, chapSecret, loginNotFound},
		"redirect":            {func(r *Reconfiguration) { r.Targets[0].Redirect = &Redirect{Address: "192.0.2.1:3260"} }, chapSecret, loginMovedTemporarily},
		"access": {func(r *Reconfiguration) {
			r.Targets[0].Admit = func(string, netip.Addr) (scsi.View, bool) { return nil, false }
		}, chapSecret, loginAuthorizationFailed},
		"another secret":    {secret(other), chapSecret, loginAuthenticationFailed},
		"no authentication": {func(r *Reconfiguration) { r.Targets[0].Authentication = Authentication{} }, chapSecret, loginSuccess},
		// The initiator may already have the new secret.
		"another secret, unproven": {secret(other), "", loginServiceUnavailable},
		"limits":                   {func(r *Reconfiguration) { r.Options.MaxBurstLength, r.Options.FirstBurstLength = 4096, 4096 }, chapSecret, loginServiceUnavailable},
		"portal group":             {func(r *Reconfiguration) { r.Portals = []Portal{{Group: 9}} }, chapSecret, loginServiceUnavailable},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil, nil)
			b.reconfigure(secret(chapSecret))
			i := b.dial()
			i.step(csgSecurity|toOperational, name, normal, wantTarget, offerCHAP)
			change := func() {
				b.reconfigure(func(r *Reconfiguration) {
					c.change(r)
					for k := range r.Portals {
						r.Portals[k].Listener = b.portal().Listener
					}
				})
			}
			proof := i.proof(chap.SHA256, chapUser, chapSecret)
			if c.proven == "" {
				change()
				if what != "nothing, unproven" {
					proof = i.proofAgain(other)
				}
			}
			r, _ := i.step(csgSecurity|toOperational, proof...)
			if c.proven != "" {
				change()
			}
			if r.field16(36) == loginSuccess {
				r, _ = i.step(csgOperational | toFullFeature)
			}
			if r.field16(36) != c.want {
				t.Fatalf("status %#x, want %#x", r.field16(36), c.want)
			}
			if c.want != loginSuccess {
				i.expectClosed()
				if n := len(b.srv.Sessions()) + b.disk.nexuses(); n != 0 {
					t.Errorf("%d sessions and nexuses", n)
				}
			}
		})
	}
}

// proofAgain is a response to the challenge with another secret than the target's.
func (i *initiator) proofAgain(secret string) []string {
	return []string{"CHAP_N=" + chapUser, "CHAP_R=0x" + "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"}
}

// A login in progress has the view of the new configuration.
func TestLogin_Reconfigured_View(t *testing.T) {
	b := newBench(t, nil, nil)
	sees := func(lun uint16) func(r *Reconfiguration) {
		return func(r *Reconfiguration) {
			r.Targets[0].Admit = func(string, netip.Addr) (scsi.View, bool) { return scsi.View{lun: {LUN: lun}}, true }
		}
	}
	b.reconfigure(sees(1))
	i := b.dial()
	i.step(csgSecurity|toOperational, name, normal, wantTarget, "AuthMethod=None")
	b.reconfigure(sees(2))
	if r, _ := i.step(csgOperational | toFullFeature); r.field16(36) != loginSuccess {
		t.Fatalf("status %#x", r.field16(36))
	}
	if view := b.disk.rightsOf(testInitiator).View; view[2].LUN != 2 {
		t.Errorf("view %v", view)
	}
}

// Limits that are negotiated apply to sessions that begin later, the others at once.
func TestServer_Reconfigure_Limits(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login("MaxBurstLength=1048576")
	b.reconfigure(func(r *Reconfiguration) {
		r.Options.QueueDepth, r.Options.MaxBurstLength, r.Options.FirstBurstLength, r.Options.MaxSessions = 3, 8192, 4096, 2
		r.Options.MaxRecvDataSegmentLength, r.Options.ConnectionsPerSession = 16384, 2
	})
	i.alive()
	if window := i.maxSN - i.cmdSN + 1; window != 128 {
		t.Errorf("the window of the session has %d commands", window)
	}
	second := b.dial()
	second.isid[5]++
	second.login(name, wantTarget, "MaxBurstLength=1048576", "FirstBurstLength=1048576", "MaxConnections=8")
	second.alive()
	if window := second.maxSN - second.cmdSN + 1; window != 3 || second.keys["MaxBurstLength"] != "8192" || second.keys["FirstBurstLength"] != "4096" ||
		second.keys["MaxRecvDataSegmentLength"] != "16384" || second.keys["MaxConnections"] != "2" {
		t.Errorf("window of %d commands, keys %v", window, second.keys)
	}
	third := b.dial()
	third.isid[5] += 2
	third.send(third.loginRequest(stageOperational, stageFullFeature), nil, text(name, wantTarget))
	if r, _ := third.expect(opLoginResponse); r.field16(36) != loginOutOfResources {
		t.Errorf("third session: status %#x", r.field16(36))
	}
	b.reconfigure(func(r *Reconfiguration) { r.Options.MaxSessions = 1 })
	i.alive()
	second.alive()
}

// A shorter ping interval applies to connections that exist.
func TestServer_Reconfigure_Ping(t *testing.T) {
	b := newBench(t, func(o *Options) { o.PingInterval = time.Hour }, nil)
	i := b.login()
	i.alive()
	b.reconfigure(func(r *Reconfiguration) {
		r.Options.PingInterval, r.Options.PingTimeout = 20*time.Millisecond, 20*time.Millisecond
	})
	r, _ := i.expect(opNopIn)
	if r.ttt() == reservedTag {
		t.Errorf("received %x, want a ping", *r)
	}
	i.expectClosed()
}

// Logins that wait for a place get it when the limit is raised.
func TestServer_Reconfigure_Logins(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxUnauthenticated, o.MaxUnauthenticatedPerAddress = 1, 1 }, nil)
	b.dial() // occupies the place
	b.wantPending(1, 0)
	i := b.dial()
	b.wantPending(1, 1)
	b.reconfigure(func(r *Reconfiguration) { r.Options.MaxUnauthenticated, r.Options.MaxUnauthenticatedPerAddress = 2, 2 })
	i.login(name, wantTarget)
	i.alive()
}

// Memory above a lowered bound is given back as it is released, and commands that wait for it
// go on. None is left at the end.
func TestServer_Reconfigure_Buffers(t *testing.T) {
	b := newBench(t, func(o *Options) { o.BufferBytes = 64 << 20 }, nil)
	b.disk.put(0, pattern(0, 2<<20))
	i := b.login()
	var reads []*bhs
	for range 24 {
		h := i.command(bitRead, 1<<20, read10(0, 2048)...)
		i.send(h, nil, nil)
		reads = append(reads, h)
	}
	eventually(t, "memory is in use", func() bool { return b.srv.BufferedBytes() > 8<<20 })
	b.reconfigure(func(r *Reconfiguration) { r.Options.BufferBytes = 1 << 20 })
	answered := map[uint32]bool{}
	for len(answered) < len(reads) {
		if r, _ := i.recv(); r.opcode() == opDataIn && r[1]&bitStatus != 0 || r.opcode() == opSCSIResponse {
			answered[r.itt()] = true
		}
	}
	eventually(t, "memory is released", func() bool { return b.srv.BufferedBytes() == 0 })
	if held := b.srv.budget.heldBytes(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
	i.alive()
	b.reconfigure(func(r *Reconfiguration) { r.Options.BufferBytes = 64 << 20 })
	i.alive()
}

// Workers above a lowered limit end with their commands.
func TestServer_Reconfigure_Workers(t *testing.T) {
	b := newBench(t, nil, nil)
	d := newGate(b.disk)
	i := b.login()
	for range 8 {
		i.send(i.command(0, 0, 0x35), nil, nil)
	}
	eventually(t, "eight commands run", func() bool { return d.running.Load() == 8 })
	b.reconfigure(func(r *Reconfiguration) { r.Options.Workers = 2 })
	for range 8 {
		i.send(i.command(0, 0, 0x35), nil, nil)
	}
	d.pass(8)
	for range 8 {
		i.expect(opSCSIResponse)
	}
	eventually(t, "two commands run", func() bool { return d.running.Load() == 2 })
	if n := d.running.Load(); n > 3 { // a reader may run one more
		t.Errorf("%d commands run", n)
	}
	d.pass(8)
	for range 8 {
		i.expect(opSCSIResponse)
	}
	i.alive()
}

// EndSession asks for a logout and then ends the session; the initiator may come back.
func TestServer_EndSession(t *testing.T) {
	b := newBench(t, nil, nil)
	i, other := b.login(), b.loginAs(testInitiator+"2")
	if err := b.srv.EndSession(i.tsih); err != nil {
		t.Fatal(err)
	}
	i.askedToLogOut()
	if err := b.srv.EndSession(i.tsih); err != nil {
		t.Errorf("once more: %v", err)
	}
	i.dropped()
	other.quiet()
	eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 1 })
	if err := b.srv.EndSession(i.tsih); !errors.Is(err, ErrNoSession) {
		t.Errorf("after its end: %v", err)
	}
	b.login().alive()
}

// A login that takes the place of a session that is to end gets a session.
func TestServer_EndSession_Replaced(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LogoutTimeout = patience }, nil)
	m := b.loginMulti(1)
	if err := b.srv.EndSession(m.conns[0].tsih); err != nil {
		t.Fatal(err)
	}
	m.conns[0].askedToLogOut()
	if _, r, _ := m.tryJoin(1); r.field16(36) != loginNoSuchSession {
		t.Errorf("status %#x", r.field16(36))
	}
	again := b.login()
	m.conns[0].expectClosed()
	again.alive()
}

// A portal that closes is not served or discovered any more. Its sessions are asked to log
// out, and those of other portals notice nothing.
func TestServer_ClosePortal(t *testing.T) {
	b := newBench(t, nil, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.srv.Serve(t.Context(), Portal{Listener: l, Group: 7}) }()
	eventually(t, "the portal is served", func() bool { return len(b.srv.conf.Load().portals) == 2 })
	here := b.login()
	i := b.dialAt(l.Addr().String())
	i.isid[5]++
	i.login(name, wantTarget)
	silent, begun := b.dialAt(l.Addr().String()), b.dialAt(l.Addr().String())
	begun.isid[5] += 2
	begun.step(csgSecurity|toOperational, name, normal, wantTarget, "AuthMethod=None")
	b.wantPending(2, 0)
	done, err := b.srv.ClosePortal(l)
	if err != nil || len(done.LoggingOut) != 1 || done.LoggingOut[0].TSIH != i.tsih {
		t.Errorf("%+v, %v", done, err)
	}
	if err := <-served; !errors.Is(err, ErrPortalClosed) {
		t.Errorf("Serve returned %v", err)
	}
	silent.expectClosed()
	begun.expectClosed()
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the portal accepts connections")
		nc.Close()
	}
	i.askedToLogOut()
	i.dropped()
	here.quiet()
	here.alive()
	if got := b.discovery().text("SendTargets=" + testTarget); got != "TargetName="+testTarget+" TargetAddress="+b.addr+",7" {
		t.Errorf("answer %q", got)
	}
	if _, err := b.srv.ClosePortal(l); !errors.Is(err, ErrPortalClosed) {
		t.Errorf("closed once more: %v", err)
	}
}

// Of a session with connections through two portals, those through the closed one leave.
func TestServer_ClosePortal_Connections(t *testing.T) {
	b := newBench(t, nil, nil)
	at := b.portals(map[uint16]string{7: "127.0.0.1:0"})[7]
	here := b.addr
	b.addr = at
	m := b.loginMulti(1)
	m.addr = here
	m.join(1)
	l := b.srv.conf.Load().portals[1].Listener
	if _, err := b.srv.ClosePortal(l); err != nil {
		t.Fatal(err)
	}
	m.conns[0].askedToLogOut()
	m.alive(1)
	m.conns[0].dropped()
	m.alive(1)
	m.sessions(1)
}
