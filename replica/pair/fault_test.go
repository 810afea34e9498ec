package pair

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/must"
)

// noise fills an object with bytes that no store shares.
func (s *server) noise(object string) error {
	v, err := s.m.lookUp(object)
	if err != nil {
		return err
	}
	p := make([]byte, v.Size())
	rng := rand.NewChaCha8([32]byte{byte(s.w.rng.Uint32()), byte(s.w.rng.Uint32())})
	_, _ = rng.Read(p)
	return errors.Join(v.WriteAt(context.Background(), p, 0), s.store.Flush(context.Background()))
}

// TestManager_Round_Full: a destination that has no room says so, keeps what it had, and
// nothing of what it could not take; with room it goes on.
func TestManager_Round_Full(t *testing.T) {
	ctx := context.Background()
	a, b := following(t, 7, 64<<20, (*server).write)
	before, _ := b.sum("copy")
	must.Succeed(t, a.noise("web"))
	b.fs.SetCapacity(b.fs.Used() + 8<<20)
	if _, err := b.m.Round(ctx, "copy", RoundOptions{}); !errors.Is(err, backstore.ErrNoSpace) {
		t.Fatalf("round into a full store: %v", err)
	}
	if now, _ := b.sum("copy"); now != before {
		t.Error("the replica has changed")
	}
	if n := b.hidden(); n != 0 {
		t.Errorf("%d hidden objects are left", n)
	}
	if have, named := b.pins(); have != named || have != 1 {
		t.Errorf("%d snapshots, %d in records", have, named)
	}
	b.fs.SetCapacity(0)
	_, err := b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
	want, _ := a.sum("web")
	if got, _ := b.sum("copy"); got != want {
		t.Error("the replica is not as its source")
	}
}

// TestManager_Round_NoCommon: a source that has lost the common point is refused, and with
// Full the replica is made equal to it, without what it had of it crossing again.
func TestManager_Round_NoCommon(t *testing.T) {
	ctx := context.Background()
	a, b := following(t, 8, 4<<20, (*server).noise)
	r := a.only() // as a restored copy of the store has it: without the point
	p := r.Common
	r.Common = nil
	must.Succeed(t, a.m.drop(ctx, r, p))
	must.Succeed(t, a.write("web"))
	before, _ := b.sum("copy")
	if _, err := b.m.Round(ctx, "copy", RoundOptions{}); !errors.Is(err, ErrNoCommon) {
		t.Fatalf("round without a common point: %v", err)
	}
	if now, _ := b.sum("copy"); now != before {
		t.Error("the replica has changed")
	}
	at, err := b.m.Round(ctx, "copy", RoundOptions{Full: true})
	must.Succeed(t, err)
	want, _ := a.sum("web")
	if got, _ := b.sum("copy"); got != want || at.Crossed > 64<<10 {
		t.Errorf("equal: %v; %d bytes crossed, of which at most 20 kB are new", got == want, at.Crossed)
	}
}

// TestManager_Run: replicas of plans are started and brought up to date, and paused ones are
// not.
func TestManager_Run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w := newWorld(t, 9, "a", "b")
	a, b := w.servers[0], w.servers[1]
	for _, name := range []string{"web", "db"} {
		_, err := a.store.CreateVolume(ctx, name, 1<<20)
		must.Succeed(t, err)
		must.Succeed(t, a.write(name))
	}
	soon := func(t time.Time) time.Time { return t.Add(10 * time.Millisecond) }
	came := make(chan string, 100)
	b.m.SetCallbacks(func(object string) { came <- object }, nil)
	b.m.SetPlans([]Plan{
		{StartRequest: StartRequest{Peer: "a", Source: "web", Name: "web"}, Next: soon, BytesPerSecond: 100 << 20},
		{StartRequest: StartRequest{Peer: "a", Source: "db", Name: "db"}, Next: soon, Paused: true},
		{StartRequest: StartRequest{Peer: "none", Source: "x", Name: "x"}, Next: soon, Lag: time.Minute},
	})
	done := make(chan struct{})
	go func() { b.m.Run(ctx); close(done) }()
	if object := <-came; object != "web" {
		t.Errorf("%s came", object)
	}
	b.m.SetPlans([]Plan{{StartRequest: StartRequest{Peer: "a", Source: "db", Name: "db"}, Next: soon}})
	for object := range came {
		if object == "db" {
			break
		}
	}
	cancel()
	<-done
}
