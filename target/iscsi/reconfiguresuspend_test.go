package iscsi

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A session that was asked to log out is not handed over, whether it lost its right or was
// ended; others are, and nothing remains of the request.
func TestSuspend_LoggingOut(t *testing.T) {
	r := newRelay(t, func(o *Options) { o.LogoutTimeout = patience })
	i, other := r.login(), r.loginAs(testInitiator+"2")
	i.alive()
	other.alive()
	if err := r.srv.EndSession(i.tsih); err != nil {
		t.Fatal(err)
	}
	i.askedToLogOut()
	r.handOver(grace, 1)
	i.expectClosed()
	other.alive()
	if list := r.srv.Sessions(); len(list) != 1 || list[0].LoggingOut {
		t.Errorf("sessions %+v", list)
	}
	r.login().alive()
}

// Of a session with several connections, those that were asked to log out are not handed over.
func TestSuspend_LoggingOutConnection(t *testing.T) {
	r := newRelay(t, func(o *Options) { o.LogoutTimeout = patience })
	m := r.loginMulti(2)
	m.alive(0)
	m.alive(1)
	s := r.srv.allSessions()[0]
	s.conns[1].leave()
	m.conns[1].askedToLogOut()
	r.handOver(grace, 1)
	m.conns[1].expectClosed()
	m.alive(0)
}

// A server that was suspended is not reconfigured, and one that is being reconfigured is
// suspended afterwards. The sessions are those of the configuration that the other server has.
func TestSuspend_Reconfigure(t *testing.T) {
	r := newRelay(t, nil)
	old := r.srv
	i := r.login()
	i.alive()
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			_, err := old.Reconfigure(Reconfiguration{Options: r.options, Targets: r.targets})
			if err != nil {
				ended <- err
				return
			}
			if n == 10 {
				close(begun)
			}
		}
	}()
	<-begun
	r.handOver(grace, 1)
	if err := <-ended; !errors.Is(err, ErrSuspended) {
		t.Errorf("Reconfigure returned %v", err)
	}
	if _, err := old.Reconfigure(Reconfiguration{Options: r.options, Targets: r.targets}); !errors.Is(err, ErrSuspended) {
		t.Errorf("after Suspend: %v", err)
	}
	if _, err := old.ClosePortal(r.listener); !errors.Is(err, ErrSuspended) {
		t.Errorf("ClosePortal after Suspend: %v", err)
	}
	i.alive()
}

// A session of another process can be reconfigured, ended, and leaves with the portal at its
// address.
func TestResume_Reconfigured(t *testing.T) {
	for what, end := range map[string]func(r *relay, tsih uint16) error{
		"target": func(r *relay, _ uint16) error {
			_, err := r.srv.Reconfigure(Reconfiguration{Options: r.options})
			return err
		},
		"session": func(r *relay, tsih uint16) error { return r.srv.EndSession(tsih) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, func(o *Options) { o.LogoutTimeout = patience })
			i := r.login()
			i.alive()
			r.handOver(grace, 1)
			i.alive()
			if _, err := r.srv.Reconfigure(Reconfiguration{Options: r.options, Targets: r.targets}); err != nil {
				t.Fatal(err)
			}
			i.quiet()
			if err := end(r, i.tsih); err != nil {
				t.Fatal(err)
			}
			i.askedToLogOut()
			i.logout()
		})
	}
}

// The connections of another process leave with the portal at their address.
func TestResume_ClosePortal(t *testing.T) {
	r := newRelay(t, nil)
	at := r.portals(map[uint16]string{7: "127.0.0.1:0"})[7]
	i, other := r.login(), r.dialAt(at)
	other.isid[5]++
	other.login(name, wantTarget)
	i.alive()
	other.alive()
	r.handOver(grace, 2)
	eventually(t, "the portal is served", func() bool { return len(r.srv.conf.Load().portals) == 1 })
	l := r.listener
	done, err := r.srv.ClosePortal(l)
	if err != nil || len(done.LoggingOut) != 1 || done.LoggingOut[0].TSIH != i.tsih {
		t.Errorf("%+v, %v", done, err)
	}
	i.askedToLogOut()
	i.dropped()
	other.alive()
	if err := <-r.served; !errors.Is(err, ErrPortalClosed) {
		t.Errorf("Serve returned %v", err)
	}
	r.served <- ErrClosed // for the end of the test
}

// Shutdown does not wait for the time of an earlier request to log out, and an initiator is
// asked once.
func TestServer_Shutdown_LoggingOut(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LogoutTimeout = patience }, nil)
	i := b.login()
	if err := b.srv.EndSession(i.tsih); err != nil {
		t.Fatal(err)
	}
	i.askedToLogOut()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := b.srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("Shutdown took %v", took)
	}
	if _, _, err := i.read(); err == nil {
		t.Error("asked once more")
	}
}
