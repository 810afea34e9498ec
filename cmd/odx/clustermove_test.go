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
