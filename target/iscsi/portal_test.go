package iscsi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/harness"
)

// portals serves more portals until the test ends, and returns their addresses.
func (b *bench) portals(addresses map[uint16]string) map[uint16]string {
	b.tb.Helper()
	at := map[uint16]string{}
	for group, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			b.tb.Skipf("%s cannot be used on this machine: %v", address, err)
		}
		at[group] = l.Addr().String()
		served := make(chan error, 1)
		ctx, stop := context.WithCancel(context.Background())
		go func() { served <- b.srv.Serve(ctx, Portal{Listener: l, Group: group}) }()
		eventually(b.tb, "the portal is there", func() bool {
			_, ok := b.srv.conf.Load().portal(l)
			return ok
		})
		b.tb.Cleanup(func() {
			stop()
			switch err := <-served; {
			case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrPortalClosed), errors.Is(err, ErrSuspended):
			default:
				b.tb.Errorf("Serve: %v", err)
			}
		})
	}
	return at
}

// dialAt connects to a portal.
func (b *bench) dialAt(address string) *initiator {
	b.tb.Helper()
	other := *b
	other.addr = address
	return other.dial()
}

// A target is discovered and reached only through the portals of its groups, with their
// tags. The same initiator port has a nexus per group.
func TestServer_PortalGroups(t *testing.T) {
	b := newBench(t, nil, nil) // group 7
	at := b.portals(map[uint16]string{8: "127.0.0.1:0", 9: "[::1]:0"})
	b.srv.conf.Load().targets[0].PortalGroups = []uint16{7, 9}
	b.srv.conf.Load().targets[1].PortalGroups = []uint16{8}

	i := b.dialAt(at[8])
	i.login(name, "SessionType=Discovery")
	h := i.request(opText)
	i.send(h, nil, text("SendTargets=All"))
	_, d := i.expect(opTextResponse)
	// Over IPv4, the portal with an IPv6 address is omitted.
	want := "TargetName=" + testTarget + " TargetAddress=" + b.addr + ",7 TargetName=" + testTarget + "2 TargetAddress=" + at[8] + ",8"
	if lines(d) != want {
		t.Errorf("answer %q, want %q", lines(d), want)
	}
	i = b.dialAt(at[9])
	i.login(name, "SessionType=Discovery")
	if got, want := i.text("SendTargets="+strings.ToUpper(testTarget)), "TargetName="+testTarget+" TargetAddress="+at[9]+",9"; got != want {
		t.Errorf("over IPv6: %q, want %q", got, want)
	}

	seven, nine := b.login(), b.dialAt(at[9])
	nine.login(name, wantTarget)
	if got := nine.keys["TargetPortalGroupTag"]; got != "9" {
		t.Errorf("TargetPortalGroupTag=%s", got)
	}
	seven.alive() // no reinstatement
	nine.alive()
	if n := b.disk.nexuses(); n != 2 {
		t.Errorf("%d nexuses", n)
	}
	for group, target := range map[uint16]string{8: testTarget, 9: testTarget + "2"} {
		i := b.dialAt(at[group])
		i.send(i.loginRequest(stageOperational, stageFullFeature), nil, text(name, "TargetName="+target))
		if r, _ := i.expect(opLoginResponse); r.field16(36) != loginNotFound {
			t.Errorf("%s in group %d: status %#x", target, group, r.field16(36))
		}
	}
}

// The connections of a session use one portal group.
func TestLogin_JoinOtherGroup(t *testing.T) {
	b := newBench(t, nil, nil)
	at := b.portals(map[uint16]string{8: "127.0.0.1:0"})
	m := b.loginMulti(1)
	i := b.dialAt(at[8])
	i.tsih = m.conns[0].tsih
	h := i.loginRequest(stageOperational, stageFullFeature)
	h.put16(20, 1)
	i.send(h, nil, text(name, wantTarget))
	if r, _ := i.expect(opLoginResponse); r.field16(36) != loginCannotInclude {
		t.Errorf("status %#x", r.field16(36))
	}
	m.alive(0)
}

// A login is redirected, in either initial stage.
func TestLogin_Redirect(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		b.srv.conf.Load().targets[0].Redirect = &Redirect{Address: "192.0.2.7:3260"}
		b.srv.conf.Load().targets[1].Redirect = &Redirect{Address: "[2001:db8::7]:3260", Permanent: true}
		for _, c := range []struct {
			target  string
			stage   int
			want    uint16
			address string
		}{
			{testTarget, stageOperational, loginMovedTemporarily, "192.0.2.7:3260"},
			{testTarget + "2", stageSecurity, loginMovedPermanently, "[2001:db8::7]:3260"},
		} {
			i := b.dial()
			i.send(i.loginRequest(c.stage, stageFullFeature), nil, text(name, "TargetName="+c.target, "SessionType=Normal"))
			r, d := i.expect(opLoginResponse)
			if r.field16(36) != c.want || lines(d) != "TargetAddress="+c.address {
				t.Errorf("status %#x, %q", r.field16(36), d)
			}
			i.expectClosed()
		}
	})
}

// libiscsi follows the redirect, over IPv4 and IPv6.
func TestLogin_RedirectLibiscsi(t *testing.T) {
	program := harness.Program(t, "iscsi-inq", "libiscsi-bin")
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		there := newBench(t, nil, nil)
		at := there.portals(map[uint16]string{7: address})[7]
		srv, err := NewServer(DefaultOptions(), []TargetConfig{{Name: testTarget, Redirect: &Redirect{Address: at}, DeviceServer: there.disk}})
		if err != nil {
			t.Fatal(err)
		}
		here := (&bench{tb: t, srv: srv}).portals(map[uint16]string{1: "127.0.0.1:0"})[1]
		t.Cleanup(func() {
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, fmt.Sprintf("iscsi://%s/%s/0", here, testTarget)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "memory disk") {
			t.Errorf("to %s: %v\n%s", at, err, out)
		}
		if there.disk.attachments() == 0 {
			t.Errorf("to %s: no session at the redirect address", at)
		}
	}
}
