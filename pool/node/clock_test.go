package node

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"odx/internal/kit/must"
	"odx/pool/facts"
)

// TestNode_Clocks: moves do not go by the clocks of machines, which may be an hour apart.
func TestNode_Clocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.close()
		s.startTwo()
		to := map[string]string{"a": "b", "b": "a"}[s.owner(0)]
		s.update(func(f *facts.Facts) { f.Moves[0] = facts.Move{To: to, At: time.Now().Add(-time.Hour)} })
		time.Sleep(10 * time.Second)
		if at := s.owner(0); at != to {
			t.Errorf("a move of an hour ago is not done: shard 0 is at %s, not %s", at, to)
		}
		s.update(func(f *facts.Facts) { f.Moves[1] = facts.Move{To: "c", At: time.Now().Add(time.Hour)} })
		time.Sleep(moveLimit / 2)
		if f, err := s.facts().Load(); err != nil || len(f.Moves) != 1 {
			t.Errorf("moves %+v, %v; one is planned", f.Moves, err)
		}
		time.Sleep(moveLimit)
		if f, err := s.facts().Load(); err != nil || len(f.Moves) != 0 {
			t.Errorf("moves %+v, %v; c never was there", f.Moves, err)
		}
	})
}

// owner returns which node has a shard.
func (s *site) owner(shard int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[shard]
}

// all returns which node has each shard.
func (s *site) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.owners[:])
}

// startTwo starts a and b, which share the shards.
func (s *site) startTwo() {
	s.t.Helper()
	must.Succeed(s.t, errors.Join(s.start("a", "1"), s.start("b", "1")))
	s.await("a3 b3", begin+5*time.Second)
}

// TestNode_ClockSetBack: a node whose clock is set back an hour after its start takes the shards
// of others no later.
func TestNode_ClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.close()
		s.entered = func(n *Node) { n.started = n.started.Add(time.Hour) }
		s.startTwo()
		time.Sleep(begin)
		s.kill("b")
		s.await("a6", 8*time.Second)
	})
}

// TestNode_StartTogether: where all nodes were stopped and start with the same other configuration,
// none is refused because another one enters at the same time, or was killed just now.
func TestNode_StartTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.close()
		s.startTwo()
		s.kill("a")
		s.kill("b")
		entering, err := s.facts().Enter("c") // and its configuration does not count yet
		must.Succeed(t, err)
		go func() {
			time.Sleep(time.Second) // of the clock of the test
			_ = entering.Leave()    // as one that was refused
		}()
		must.Succeed(t, s.start("a", "2"))
		must.Succeed(t, s.start("c", "2"))
		if err := s.start("b", "3"); err == nil {
			t.Error("a node with a third configuration is not refused")
		}
	})
}
