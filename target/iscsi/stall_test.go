package iscsi

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Every function ends while the affected commands hang in the store and ignore their
// context. So do a subsequent logout and a login to the same session name.
func TestTMF_Stalled(t *testing.T) {
	for _, c := range []struct {
		name     string
		function byte
	}{
		{"ABORT TASK", tmfAbortTask},
		{"ABORT TASK SET", tmfAbortTaskSet},
		{"CLEAR TASK SET", tmfClearTaskSet},
		{"LOGICAL UNIT RESET", tmfLogicalUnitReset},
		{"TARGET WARM RESET", tmfTargetWarmReset},
		{"TARGET COLD RESET", tmfTargetColdReset},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.AbortTimeout = 20 * time.Millisecond }, nil)
			started, release := b.disk.hang()
			defer close(release)
			i := b.login()
			hung := i.command(bitWrite, memBlock, write10(0, 1)...)
			i.send(hung, nil, make([]byte, memBlock))
			<-started
			if got := i.tmfResponse(i.tmf(c.function, [8]byte{}, hung)); got != tmfComplete {
				t.Errorf("response %d", got)
			}
			if c.function == tmfTargetColdReset {
				i.expectClosed()
			} else {
				i.logout()
			}
			again := b.login()
			h := again.command(0, 0, 0x35)
			again.send(h, nil, nil)
			again.good(h)
			again.logout()
		})
	}
}

// Without task management, a session with hung commands also ends when its initiator
// logs out, logs in again or disconnects, and at Shutdown.
func TestSession_Stalled(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(b *bench, i *initiator)
	}{
		{"logout", func(_ *bench, i *initiator) { i.logout() }},
		{"login to the same session name", func(b *bench, i *initiator) {
			b.login().logout()
			i.expectClosed()
		}},
		{"connection closed", func(_ *bench, i *initiator) { i.nc.Close() }},
		{"shutdown", func(b *bench, i *initiator) {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := b.srv.Shutdown(ctx); !errors.Is(err, ErrCommandsRunning) {
				b.tb.Errorf("Shutdown: %v", err)
			}
			i.expectClosed()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.AbortTimeout = 20 * time.Millisecond }, nil)
			started, release := b.disk.hang()
			i := b.login()
			for range 3 {
				i.send(i.command(bitRead, memBlock, read10(0, 1)...), nil, nil)
				<-started
			}
			c.end(b, i)
			eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 0 })
			close(release)
			eventually(t, "the nexus is lost when the commands are back", func() bool { return b.disk.nexuses() == 0 })
		})
	}
}
