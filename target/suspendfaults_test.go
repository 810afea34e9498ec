package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// cached is a LUN over a write-back cache over the volume c0.
const cached = `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, view: ahead}
views:
  - {name: ahead, cache: {of: c0, memory: 1MiB, mode: write-back}, size: 1MiB}
`

var write1, read1 = []byte{0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0}, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}

// TestService_PrepareHandover: what a cache has is written back before the
// pause, which does not depend on it then.
func TestService_PrepareHandover(t *testing.T) {
	s, err := Start(t.Context(), parse(t, t.TempDir(), cached), logs.Discard())
	must.Succeed(t, err)
	defer stop(t, s)
	c := session(t, s, "iqn.2026-11.example:one")
	defer c.Close()
	block := random(1, 512)
	must.Succeed(t, run(t, c, write1, block))
	below := func() []byte {
		v, err := s.store.Volume("c0")
		must.Succeed(t, err)
		b := make([]byte, 512)
		err = v.ReadAt(t.Context(), b, 0)
		must.Succeed(t, err)
		return b
	}
	if bytes.Equal(below(), block) {
		t.Fatal("the cache writes through")
	}
	h, err := s.PrepareHandover(t.Context())
	must.Succeed(t, err, h.Close())
	if !bytes.Equal(below(), block) {
		t.Error("the cache has what is to be written back")
	}

	// One that cannot write back is not handed over: its data would be lost.
	full := errors.New("full")
	st := s.state.Load()
	before := st.views.closers
	st.views.closers = append(before[:1:1], viewCloser{"stuck", before[0].close, func(context.Context) error { return full }})
	if _, err := s.PrepareHandover(t.Context()); !errors.Is(err, full) {
		t.Errorf("%v, want %v", err, full)
	}
	st.views.closers = before
	must.Succeed(t, run(t, c, read1, nil))
}

// TestService_SuspendFails: a service that ends with an error is followed by another one in the
// same process; where data may be lost, initiators log in again.
func TestService_SuspendFails(t *testing.T) {
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`))
	s, err := Start(t.Context(), cfg, logs.Discard())
	must.Succeed(t, err)
	c := session(t, s, "iqn.2026-11.example:one")
	defer c.Close()
	broken := errors.New("broken")
	st := s.state.Load()
	st.views.closers = append(st.views.closers, viewCloser{"broken", func(context.Context) error { return broken }, nil})
	h, err := s.PrepareHandover(t.Context())
	must.Succeed(t, err)
	if err := s.Suspend(t.Context(), h); !errors.Is(err, broken) {
		t.Fatalf("%v, want %v", err, broken)
	}
	next, held, err := Inherit(t.Context(), cfg, logs.Discard(), h, nil)
	must.Succeed(t, err, held.Close())
	defer stop(t, next)
	if err := c.Do(t.Context(), &client.Command{CDB: read1, In: make([]byte, 512)}); err == nil {
		t.Error("the session goes on as if nothing was lost")
	}
	again := session(t, next, "iqn.2026-11.example:one")
	defer again.Close()
	must.Succeed(t, run(t, again, read1, nil))
}

// TestService_Suspend_SoftThreshold: initiators that were warned of a store that fills up are not
// warned again because another process serves.
func TestService_Suspend_SoftThreshold(t *testing.T) {
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`)+"store: {capacity: 256MiB, soft_threshold: 10}\n")
	log, said := &logs.Text{}, "above the soft threshold"
	s, err := Start(t.Context(), cfg, log.Entry())
	must.Succeed(t, err)
	c := session(t, s, "iqn.2026-11.example:one")
	defer c.Close()
	v := s.state.Load().unit("volume src").Volume()
	for n := range int64(26) {
		must.Succeed(t, v.WriteAt(t.Context(), random(uint64(n), 1<<20), n<<20))
	}
	ready := func() error { return c.Do(t.Context(), &client.Command{CDB: make([]byte, 6)}) }
	for ready() == nil { // until it has warned
	}
	for range 2 {
		next, held, err := Inherit(t.Context(), cfg, log.Entry(), suspend(t, s), nil)
		must.Succeed(t, err, held.Close())
		s = next
		must.Succeed(t, ready())
	}
	stop(t, s)
	if n := strings.Count(log.String(), said); n != 1 {
		t.Errorf("warned %d times", n)
	}
}
