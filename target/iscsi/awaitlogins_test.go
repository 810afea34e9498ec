package iscsi

import (
	"context"
	"testing"
	"time"
)

// TestServer_AwaitLogins: before a handover, logins and discovery sessions come to their end
// while other sessions go on, and new connections wait.
func TestServer_AwaitLogins(t *testing.T) {
	r := newRelay(t, nil)
	i := r.login()
	i.alive()
	logging := r.dial()
	h := logging.loginRequest(stageOperational, stageOperational)
	logging.send(h, nil, text("InitiatorName="+testInitiator+"2", "TargetName="+testTarget))
	logging.recv()
	discovering := r.dial()
	discovering.login("InitiatorName="+testInitiator+"3", "SessionType=Discovery")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.srv.AwaitLogins(ctx)
	}()
	late := make(chan *initiator)
	go func() { late <- r.loginAs(testInitiator + "4") }() // no connection is refused
	waits := func(when string) {
		t.Helper()
		select {
		case <-done:
			t.Fatalf("%s: it does not wait", when)
		default:
		}
	}
	i.alive()
	waits("with a login and a discovery session")
	logging.send(logging.loginRequest(stageOperational, stageFullFeature), nil, nil)
	response, data := logging.expect(opLoginResponse)
	logging.loggedIn(response, data)
	logging.alive()
	waits("with a discovery session")
	text := discovering.request(opText)
	text[1] = bitFinal
	text.put32(20, reservedTag)
	discovering.send(text, nil, []byte("SendTargets=All\x00"))
	discovering.expect(opTextResponse)
	discovering.nc.Close()
	<-done
	connections := len(r.srv.appendConns(nil)) // also the late one, if it was accepted before
	r.handOver(grace, connections)
	logging.alive()
	i.alive()
	(<-late).alive()
}

// TestServer_AwaitLogins_Bounded: a login that does not go on is not waited for beyond the
// bound, nor when the server is shut down.
func TestServer_AwaitLogins_Bounded(t *testing.T) {
	done := make(chan struct{})
	t.Cleanup(func() { <-done }) // after that of the relay
	r := newRelay(t, nil)
	i := r.login()
	i.alive()
	silent := r.dial()
	eventually(t, "the connection is accepted", func() bool { return len(r.srv.appendConns(nil)) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r.srv.AwaitLogins(ctx)
	if ctx.Err() == nil {
		t.Error("a connection without a login was not waited for")
	}
	r.handOver(grace, 1)
	silent.expectClosed()
	i.alive()

	r.dial()
	eventually(t, "the connection is accepted", func() bool { return len(r.srv.appendConns(nil)) == 2 })
	go func() {
		defer close(done)
		r.srv.AwaitLogins(context.Background()) // the end of the test shuts the server down
	}()
}
