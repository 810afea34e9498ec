package iscsi

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"odx/internal/kit/harness"
)

// atNode is a Director for tests.
type atNode struct {
	mu      sync.Mutex
	address string
}

func (a *atNode) set(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.address = address
}

func (a *atNode) Login() (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.address, a.address != ""
}

func (a *atNode) Discovered() []string { return []string{"192.0.2.2:3260,1", "192.0.2.1:3260,1"} }

// newDirector returns a portal that sends the initiators of a target on.
func newDirector(t *testing.T, d Director, admit Admit) (*bench, string) {
	t.Helper()
	srv, err := NewServer(DefaultOptions(), []TargetConfig{{Name: testTarget, Director: d, Admit: admit}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{tb: t, srv: srv}
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return b, b.portals(map[uint16]string{1: "127.0.0.1:0"})[1]
}

// A target without a device server needs a director.
func TestNewServer_Director(t *testing.T) {
	if _, err := NewServer(DefaultOptions(), []TargetConfig{{Name: testTarget}}); err == nil {
		t.Error("a target with neither is accepted")
	}
}

// Discovery reports what the director says, to initiators that may use the target; logins are sent
// where the target is, or have to try again.
func TestLogin_Director(t *testing.T) {
	d := &atNode{}
	b, at := newDirector(t, d, nil)
	i := b.dialAt(at)
	i.login(name, "SessionType=Discovery")
	if got, want := i.text("SendTargets=All"), "TargetName="+testTarget+" TargetAddress=192.0.2.2:3260,1 TargetAddress=192.0.2.1:3260,1"; got != want {
		t.Errorf("discovery: %q, want %q", got, want)
	}
	for _, c := range []struct {
		address string
		status  uint16
		text    string
	}{{"", loginServiceUnavailable, ""}, {"192.0.2.2:3262", loginMovedTemporarily, "TargetAddress=192.0.2.2:3262"}, {"", loginServiceUnavailable, ""}} {
		d.set(c.address)
		for _, stage := range []int{stageSecurity, stageOperational} {
			i := b.dialAt(at)
			i.send(i.loginRequest(stage, stageFullFeature), nil, text(name, wantTarget))
			r, data := i.expect(opLoginResponse)
			if r.field16(36) != c.status || lines(data) != c.text {
				t.Errorf("at %q: status %#x, %q", c.address, r.field16(36), data)
			}
			i.expectClosed()
		}
	}
}

// libiscsi follows the director to where the target is now, each time it logs in.
func TestLogin_DirectorLibiscsi(t *testing.T) {
	program := harness.Program(t, "iscsi-inq", "libiscsi-bin")
	d := &atNode{}
	_, at := newDirector(t, d, nil)
	for range 2 {
		there := newBench(t, nil, nil)
		d.set(there.addr)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, fmt.Sprintf("iscsi://%s/%s/0", at, testTarget)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "memory disk") {
			t.Errorf("libiscsi: %v\n%s", err, out)
		}
		if there.disk.attachments() == 0 {
			t.Error("no session there")
		}
	}
}

// A director's targets come and go by a reconfiguration as others do; no session of one stays that
// is sent elsewhere from now on.
func TestReconfigure_Director(t *testing.T) {
	b := newBench(t, nil, nil)
	b.login()
	next := b.configured
	next.Targets = slices.Clone(next.Targets)
	next.Targets[0].Director = &atNode{address: "192.0.2.2:3262"}
	done, err := b.srv.Reconfigure(next)
	if err != nil || len(done.LoggingOut) != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
}
