package target

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"

	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// suspend ends a service, and returns what it hands over.
func suspend(t *testing.T, s *Service) *Handed {
	t.Helper()
	h, err := s.PrepareHandover(t.Context())
	must.Succeed(t, err)
	must.Succeed(t, s.Suspend(t.Context(), h))
	return h
}

// TestService_Suspend: a suspended service continues with its sessions, its sockets and the
// lock of the store under the next epoch, also in the same process, which is the case when
// another one could not take over. This is neither a stop nor the end of an era.
func TestService_Suspend(t *testing.T) {
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`))
	s, err := Start(t.Context(), cfg, logs.Discard())
	must.Succeed(t, err)
	c := session(t, s, "iqn.2026-11.example:one")
	defer c.Close()
	portal := s.Portals()[0]
	block := random(1, 512)
	write, read := []byte{0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0}, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	must.Succeed(t, run(t, c, write, block))
	for range 3 {
		era, epoch := s.era.id, s.store.Epoch()
		h := suspend(t, s)
		// No process accepts, and no connection is refused.
		waiting, err := net.Dial("tcp", portal)
		must.Succeed(t, err)
		waiting.Close()
		if _, err := Start(t.Context(), cfg, logs.Discard()); err == nil {
			t.Fatal("the store has no owner between two services")
		}
		next, held, err := Inherit(t.Context(), cfg, logs.Discard(), h, nil)
		must.Succeed(t, err)
		must.Succeed(t, held.Close())
		if got := next.Portals()[0]; got != portal || next.era.id != era || next.store.Epoch() != epoch+1 {
			t.Errorf("portal %s, era %x, epoch %d after %s, %x, %d", got, next.era.id, next.store.Epoch(), portal, era, epoch)
		}
		in := &client.Command{CDB: read, In: make([]byte, 512)}
		if err := c.Do(t.Context(), in); err != nil || !bytes.Equal(in.In[:512], block) {
			t.Fatalf("the session went on with %v, equal %v", err, bytes.Equal(in.In[:512], block))
		}
		s = next
	}

	// A successor that is not ready ends its start; what was handed over is then there no
	// more than once.
	h := suspend(t, s)
	broken := errors.New("not ready")
	if _, _, err := Inherit(t.Context(), cfg, logs.Discard(), h, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if err := run(t, c, read, nil); err == nil {
		t.Error("a session goes on without a service")
	}
	s, err = Start(t.Context(), cfg, logs.Discard())
	must.Succeed(t, err)
	stop(t, s)
}
