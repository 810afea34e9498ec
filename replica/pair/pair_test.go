package pair

import (
	"context"
	"errors"
	"strings"
	"testing"

	"odx/backstore"
	"odx/internal/kit/must"
	"odx/peer"
)

// write writes a few bytes somewhere into an object, and makes them durable.
func (s *server) write(object string) error {
	ctx := context.Background()
	v, err := s.m.lookUp(object)
	if err != nil {
		return err
	}
	rng := s.w.rng
	p := make([]byte, 1+rng.IntN(20_000))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	off := rng.Int64N(v.Size())
	if rng.IntN(3) == 0 {
		off &^= 4095
	}
	p = p[:min(int64(len(p)), v.Size()-off)]
	if rng.IntN(4) == 0 {
		err = v.Unmap(ctx, off, int64(len(p)))
	} else {
		err = v.WriteAt(ctx, p, off)
	}
	if err != nil {
		return err
	}
	return s.store.Flush(ctx)
}

// TestManager_Rounds: a volume is replicated as a whole, then what has changed; the replica
// cannot be written to, and its size follows.
func TestManager_Rounds(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 1, "a", "b")
	a, b := w.servers[0], w.servers[1]
	v, err := a.store.CreateVolume(ctx, "web", 8<<20)
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, make([]byte, 1), 0), a.write("web"), a.write("web"))
	must.Succeed(t, b.m.Start(ctx, StartRequest{Peer: "a", Source: "web", Name: "copy"}))
	if _, ok := b.sum("copy"); ok {
		t.Error("the replica is visible before it has anything")
	}
	same := func() Attempt {
		t.Helper()
		at, err := b.m.Round(ctx, "copy", RoundOptions{Keep: 2})
		must.Succeed(t, err)
		want, _ := a.sum("web")
		if got, _ := b.sum("copy"); got != want {
			t.Errorf("replica %s, source %s", got, want)
		}
		return at
	}
	same()
	must.Succeed(t, a.write("web"))
	if at := same(); at.Found > 64<<10 || at.Crossed > at.Found {
		t.Errorf("a write of at most 20 kB: %+v", at.Progress)
	}
	must.Succeed(t, v.Grow(ctx, 9<<20))
	same()
	if at := same(); at.Found != 0 {
		t.Errorf("nothing was written, and %d bytes differ", at.Found)
	}
	if err := b.write("copy"); !errors.Is(err, backstore.ErrReadOnly) {
		t.Errorf("write to a replica: %v", err)
	}
	if err := b.store.DeleteVolume(ctx, "copy"); !errors.As(err, new(*backstore.ProtectedError)) {
		t.Errorf("deletion of a replica: %v", err)
	}
	if err := a.store.DeleteVolume(ctx, "web"); !errors.As(err, new(*backstore.ProtectedError)) {
		t.Errorf("deletion of a source: %v", err)
	}
	kept := 0
	for _, v := range b.store.Volumes() {
		if v.ReadOnly() {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d snapshots are kept, not 2", kept)
	}
	must.Succeed(t, b.m.Forget(ctx, "copy", false))
	must.Succeed(t, b.write("copy"), a.store.DeleteVolume(ctx, "web"))
	for _, s := range w.servers {
		if have, _ := s.pins(); have != 0 || s.hidden() != 0 {
			t.Errorf("%s has %d snapshots and %d hidden objects after the replica was forgotten", s.name, have, s.hidden())
		}
	}
}

// TestManager_Forget_Source: a source that forgets a replica lets go of all that it keeps for it,
// and the replica says that it is an orphan, at once or after its next round.
func TestManager_Forget_Source(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		off  bool // the replica's server does not answer
	}{{"reachable", false}, {"away", true}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := following(t, 5, 1<<20, (*server).write)
			b.off = c.off
			must.Succeed(t, a.m.Forget(ctx, "copy", false))
			b.off = false
			if have, _ := a.pins(); have != 0 {
				t.Errorf("the source keeps %d snapshots", have)
			}
			if b.only().Orphan == c.off {
				t.Errorf("the replica says orphan %t", !c.off)
			}
			if _, err := b.m.Round(ctx, "copy", RoundOptions{}); !errors.Is(err, ErrNoPair) {
				t.Errorf("a round of an orphan: %v", err)
			}
			found, err := b.m.Troubles(ctx)
			must.Succeed(t, err)
			if !b.only().Orphan || !strings.Contains(found["copy"], "odx replicate forget copy") {
				t.Errorf("%+v, troubles %q", b.only(), found)
			}
			must.Succeed(t, b.m.Forget(ctx, "copy", false), b.write("copy"))
		})
	}
}

// TestManager_Failover: the planned way over and back loses nothing; each side is served as
// its role says, with one identity at a time.
func TestManager_Failover(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 2, "a", "b")
	a, b := w.servers[0], w.servers[1]
	v, err := a.store.CreateVolume(ctx, "web", 1<<20)
	must.Succeed(t, err)
	identity := v.ID()
	must.Succeed(t, a.write("web"), b.m.Start(ctx, StartRequest{Peer: "a", Source: "web", Name: "copy"}))
	if err := b.failover("copy", true, RoundOptions{}); !errors.Is(err, ErrRole) {
		t.Errorf("failover before the first round: %v", err)
	}
	must.Succeed(t, a.write("web"))
	serves := func(s *server, object string, want Serving, out bool) {
		t.Helper()
		got, err := s.m.Serving(object)
		must.Succeed(t, err)
		if got.ReadOnly != want.ReadOnly || (got.Out != nil) != out || want.Identity != [16]byte{} && got.Identity != want.Identity {
			t.Errorf("%s serves %s as %+v", s.name, object, got)
		}
		if got.ReadOnly && got.Identity == identity {
			t.Errorf("the replica %s has the identity of the source", object)
		}
	}
	a.alone = true
	if err := b.failover("copy", false, RoundOptions{}); !errors.Is(err, backstore.ErrNotFound) || a.only().Role != Source || b.only().Role != Replica {
		t.Errorf("failover from a source that could not follow: %v, %s, %s", err, a.only().Role, b.only().Role)
	}
	a.alone = false
	must.Succeed(t, b.failover("copy", false, RoundOptions{}))
	serves(b, "copy", Serving{Identity: identity}, false)
	serves(a, "web", Serving{ReadOnly: true}, false) // nothing was lost, so it follows by itself
	want, _ := a.sum("web")
	if got, _ := b.sum("copy"); got != want {
		t.Errorf("after a planned failover %s, before it %s", got, want)
	}
	must.Succeed(t, b.write("copy"))
	if err := a.write("web"); !errors.Is(err, backstore.ErrReadOnly) {
		t.Errorf("write to the former source: %v", err)
	}
	_, err = a.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
	must.Succeed(t, b.write("copy"), a.failback("copy", FailbackOptions{}))
	want, _ = b.sum("copy")
	if got, _ := a.sum("web"); got != want {
		t.Errorf("after the failback %s, before it %s", got, want)
	}
	serves(a, "web", Serving{Identity: identity}, false)
	serves(b, "copy", Serving{ReadOnly: true}, false)
	must.Succeed(t, a.write("web"))
	_, err = b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
}

// TestManager_Failover_Unplanned: the source is down while the replica takes over. When it
// comes back it is frozen and not served, what it had in addition is kept, and it gets what
// changed since.
func TestManager_Failover_Unplanned(t *testing.T) {
	ctx := context.Background()
	a, b := following(t, 3, 1<<20, (*server).write)
	must.Succeed(t, a.write("web")) // never arrives
	diverged, _ := a.sum("web")
	a.off = true
	if err := b.failover("copy", false, RoundOptions{}); !errors.Is(err, peer.ErrDown) {
		t.Errorf("planned failover without the source: %v", err)
	}
	must.Succeed(t, b.failover("copy", true, RoundOptions{}))
	must.Succeed(t, b.write("copy"))
	a.off = false
	if _, err := b.m.Round(ctx, "copy", RoundOptions{}); !errors.Is(err, ErrRole) {
		t.Errorf("a round over what has taken over: %v", err)
	}
	if now, _ := a.sum("web"); now != diverged {
		t.Error("the former source was overwritten")
	}
	if err := b.m.tell(ctx, b.only().ID); err != nil {
		t.Error(err)
	}
	if s, err := a.m.Serving("web"); err != nil || s.Out == nil {
		t.Errorf("the former source is served: %+v, %v", s, err)
	}
	if err := a.write("web"); !errors.Is(err, backstore.ErrReadOnly) {
		t.Errorf("write to the former source: %v", err)
	}
	if err := a.failover("copy", true, RoundOptions{}); !errors.Is(err, ErrRole) {
		t.Errorf("the former source takes over although the other side has later data: %v", err)
	}
	must.Succeed(t, a.failback("copy", FailbackOptions{}))
	want, _ := b.sum("copy")
	if got, _ := a.sum("web"); got != want {
		t.Errorf("after the failback %s, before it %s", got, want)
	}
	if kept, ok := a.sum("web-before-failback-2"); !ok || kept != diverged {
		t.Errorf("what the former source had: %q, not %q", kept, diverged)
	}
	must.Succeed(t, a.write("web"))
}

// TestManager_Inquire: a source that starts again asks before it is served, and is not served
// if the other side has taken over. One that gets no answer is.
func TestManager_Inquire(t *testing.T) {
	ctx := context.Background()
	a, b := following(t, 5, 1<<20, (*server).write)
	a.m.Inquire(ctx)
	if r := a.only(); r.Role != Source {
		t.Errorf("with a replica at the other side: %s", r.Role)
	}
	a.off = true
	must.Succeed(t, b.failover("copy", true, RoundOptions{}))
	a.m.Inquire(ctx)
	if r := a.only(); r.Role != Source {
		t.Errorf("without an answer: %s", r.Role)
	}
	a.off = false
	a.m.Inquire(ctx)
	if s, err := a.m.Serving("web"); err != nil || s.Out == nil || a.only().Epoch != b.only().Epoch {
		t.Errorf("a source that has heard of another one is served: %+v, %v, epoch %d", s, err, a.only().Epoch)
	}
	must.Succeed(t, b.m.tell(ctx, b.only().ID), a.failback("copy", FailbackOptions{}))
}

// only returns the only record of a server.
func (s *server) only() *record {
	s.w.t.Helper()
	all, err := s.m.records()
	must.Succeed(s.w.t, err)
	if len(all) != 1 {
		s.w.t.Fatalf("%s has %d pairs", s.name, len(all))
	}
	return all[0]
}

// TestManager_Failover_Both: both sides were made the source. Neither gives way by itself;
// the administrator says which one does.
func TestManager_Failover_Both(t *testing.T) {
	ctx := context.Background()
	a, b := following(t, 4, 1<<20, (*server).write)
	r := b.only()
	_, err := a.m.Serve(ctx, "b", Request{Op: opYield, Pair: r.ID, From: b.id, Epoch: r.Epoch})
	must.Succeed(t, err)
	a.off = true // between the two halves of a planned failover
	must.Succeed(t, b.failover("copy", true, RoundOptions{}))
	must.Succeed(t, a.failover("copy", true, RoundOptions{}))
	a.off = false
	must.Succeed(t, a.write("web"), b.write("copy"))
	wantA, _ := a.sum("web")
	wantB, _ := b.sum("copy")
	for _, s := range []*server{a, b} {
		if err := s.m.tell(ctx, r.ID); !errors.Is(err, ErrRole) {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	gotA, _ := a.sum("web")
	gotB, _ := b.sum("copy")
	if gotA != wantA || gotB != wantB {
		t.Error("a side was overwritten")
	}
	must.Succeed(t, b.failback("copy", FailbackOptions{Stay: true}))
	if got, _ := b.sum("copy"); got != wantA {
		t.Error("the side that gave way is not as the other one")
	}
	must.Succeed(t, a.write("web"))
}
