package initiator_test

import (
	"errors"
	"testing"
	"time"

	"odx/initiator"
)

// A session that the target asks to log out ends by a logout after its running commands, and
// takes no further ones.
func TestSession_LogoutRequested(t *testing.T) {
	f := &foreign{logoutTimeout: time.Minute}
	running, release := make(chan struct{}), make(chan struct{})
	f.delay = func(cdb []byte) {
		if cdb[0] == 0x8a { // WRITE(16)
			close(running)
			<-release
		}
	}
	d := open(t, serveForeign(t, f))
	written := make(chan error, 1)
	go func() { written <- d.WriteAt(t.Context(), make([]byte, 512), 0) }()
	<-running
	if err := f.server.EndSession(f.server.Sessions()[0].TSIH); err != nil {
		t.Fatal(err)
	}
	for { // the request is on its way
		err := d.ReadAt(t.Context(), make([]byte, 512), 0)
		if errors.Is(err, initiator.ErrLogoutRequested) {
			break
		}
		if err != nil {
			t.Fatalf("read: %v", err)
		}
	}
	close(release)
	if err := <-written; err != nil || f.volume.at(0) != 0 {
		t.Errorf("the running command: %v", err)
	}
	look, late := time.NewTicker(time.Millisecond), time.NewTimer(10*time.Second)
	defer look.Stop()
	defer late.Stop()
	for len(f.server.Sessions()) > 0 {
		select {
		case <-look.C:
		case <-late.C:
			t.Fatal("the session has not ended")
		}
	}
	if err := d.Flush(t.Context()); !errors.Is(err, initiator.ErrLogoutRequested) {
		t.Errorf("after the end: %v", err)
	}
}

// A command that the target holds longer than the time it gives ends with the session.
func TestSession_LogoutRequested_late(t *testing.T) {
	f := &foreign{}
	running, release := make(chan struct{}), make(chan struct{})
	f.delay = func(cdb []byte) {
		if cdb[0] == 0x8a {
			close(running)
			<-release
		}
	}
	d := open(t, serveForeign(t, f))
	t.Cleanup(func() { close(release) })
	written := make(chan error, 1)
	go func() { written <- d.WriteAt(t.Context(), make([]byte, 512), 0) }()
	<-running
	if err := f.server.EndSession(f.server.Sessions()[0].TSIH); err != nil {
		t.Fatal(err)
	}
	if err := <-written; !errors.Is(err, initiator.ErrLogoutRequested) {
		t.Errorf("the running command: %v", err)
	}
}
