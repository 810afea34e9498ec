package main

import (
	"strings"
	"testing"
	"time"

	"odx/backstore/vfs/rados"
	"odx/internal/kit/must"
	"odx/pool/facts"
	"odx/pool/placement"
)

// The shards of a node go to those that can take them; where none can, also because the node itself
// is not there any more, that is an error.
func TestShared_Without(t *testing.T) {
	start := time.Now()
	store := facts.New(rados.NewTwin(func() time.Duration { return time.Since(start) }).Client())
	_, err := store.Make(3)
	must.Succeed(t, err)
	f, err := store.Update(t.Context(), func(f *facts.Facts) error {
		f.Owners[0], f.Owners[1], f.Owners[2] = facts.Owner{Node: "a"}, facts.Owner{Node: "b"}, facts.Owner{Node: "a"}
		return nil
	})
	must.Succeed(t, err)
	for name, c := range map[string]struct {
		there map[string]bool
		fails bool
	}{
		"all there":   {map[string]bool{"a": true, "b": true}, false},
		"not itself":  {map[string]bool{"b": true}, false},
		"not another": {map[string]bool{"a": true}, true},
		"no node":     {map[string]bool{}, true},
	} {
		s := &shared{cfg: sharedConfig(t), facts: f, there: c.there}
		moves, err := s.without("a")
		if c.fails != (err != nil) || err == nil && (len(moves) != 2 || moves[0] != "b" || moves[2] != "b") {
			t.Errorf("%s: %v, %v", name, moves, err)
		}
	}
}

// What can take no shards has a reason that says what to do.
func TestTakesNot(t *testing.T) {
	for want, n := range map[string]placement.Node{
		"":                    {Name: "a", Alive: true},
		"start odx serve":     {Name: "a", Drained: true},
		"cluster undrain a":   {Name: "a", Alive: true, Drained: true, Behind: true},
		"copy the file to it": {Name: "a", Alive: true, Behind: true},
	} {
		if why := takesNot(&n); !strings.Contains(why, want) || (want == "") != (why == "") {
			t.Errorf("%+v: %q, want %q", n, why, want)
		}
	}
}

// What another command has changed ends the wait for a move, and for a drain, with an error that says so.
func TestShared_Superseded(t *testing.T) {
	for _, c := range []struct {
		name   string
		owner  string
		move   string // where the facts have the shard move; "": nowhere
		drains string // the node that is drained
		want   string // of the error of a move to b
		moved  bool
		away   string // of the error of a drain of a
		left   bool
	}{
		{name: "planned", owner: "a", move: "b", drains: "a"},
		{name: "without an owner", move: "b", drains: "a"},
		{name: "done", owner: "b", drains: "a", moved: true, left: true},
		{name: "done, and no node", owner: "b", moved: true, left: true},
		{name: "elsewhere", owner: "a", move: "c", want: "to node c, not to b any more", away: "not drained any more"},
		{name: "given up", owner: "a", want: "not to move to node b any more", away: "not drained any more"},
		{name: "drained", owner: "a", move: "b", drains: "b", want: "was drained by another command", away: "not drained any more"},
	} {
		f := &facts.Facts{Owners: map[int]facts.Owner{0: {Node: c.owner}}, Moves: map[int]facts.Move{}, Drains: map[string]facts.Drain{}}
		if c.move != "" {
			f.Moves[0] = facts.Move{To: c.move}
		}
		if c.drains != "" {
			f.Drains[c.drains] = facts.Drain{}
		}
		s := &shared{facts: f, there: map[string]bool{"a": true, "b": true, "c": true}}
		is := func(what string, got bool, err error, want bool, text string) {
			t.Helper()
			if got != want || (err != nil) != (text != "") || err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %s: %t, %v, want %t, %q", c.name, what, got, err, want, text)
			}
		}
		got, err := s.movedTo(0, "b")
		is("move", got, err, c.moved, c.want)
		got, err = s.awayFrom(0, "a")
		is("drain", got, err, c.left, c.away)
	}
	s := &shared{facts: &facts.Facts{Owners: map[int]facts.Owner{0: {Node: "b"}}}}
	if is, err := s.movedTo(0, "b"); is || err != nil {
		t.Errorf("a shard of a node that is away for the moment: %t, %v", is, err)
	}
}
