package backstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"odx/internal/kit/logs"
)

func openHere(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Options{Dir: dir, Log: logs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCopiedStore: a copy of a store is noticed at every start, until it is given an
// identity of its own, or is said to be the one that was moved.
func TestCopiedStore(t *testing.T) {
	ctx := context.Background()
	base := t.TempDir()
	first := filepath.Join(base, "first")
	s := openHere(t, first)
	v := createVolume(t, s, "v", 1<<20)
	id, volume := s.ID(), v.ID()
	if s.Moved() || id != s.HeaderID() || s.Identify(volume) != volume {
		t.Errorf("a new store: moved %t, identity %x of %x, volume %x seen as %x", s.Moved(), id, s.HeaderID(), volume, s.Identify(volume))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	renamed := filepath.Join(base, "renamed")
	if err := os.Rename(first, renamed); err != nil {
		t.Fatal(err)
	}
	if s = openHere(t, renamed); s.Moved() {
		t.Error("a directory that got another name is taken for a copy")
	}
	if _, err := SetIdentity(ctx, Options{Dir: renamed}, false); !errors.Is(err, ErrLocked) {
		t.Errorf("identity of a store that is open: %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	dup := filepath.Join(base, "copy")
	if out, err := exec.Command("cp", "-a", renamed, dup).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range 2 {
		if s = openHere(t, dup); !s.Moved() || s.ID() != id {
			t.Errorf("a copy: moved %t, identity %x, want %x", s.Moved(), s.ID(), id)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := SetIdentity(ctx, Options{Dir: dup}, true); err != nil || kept != id {
		t.Fatalf("%x, %v, want %x", kept, err, id)
	}
	if s = openHere(t, dup); s.Moved() || s.ID() != id {
		t.Errorf("a store that was moved: %t, identity %x", s.Moved(), s.ID())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := SetIdentity(ctx, Options{Dir: dup}, false)
	if err != nil {
		t.Fatal(err)
	}
	s = openHere(t, dup)
	defer s.Close()
	v, err = s.Volume("v")
	if err != nil {
		t.Fatal(err)
	}
	if s.Moved() || other == id || s.ID() != other || s.HeaderID() != id {
		t.Errorf("another identity: moved %t, %x of %x, want %x of %x", s.Moved(), s.ID(), s.HeaderID(), other, id)
	}
	if v.ID() != volume || s.Identify(volume) == volume || s.Identify(s.HeaderID()) != other {
		t.Errorf("volume %x is seen as %x, the store as %x", v.ID(), s.Identify(volume), s.Identify(s.HeaderID()))
	}
}

// TestNewIdentity_PowerCut: with the power gone at any time the store has one of
// the two identities, and opens.
func TestNewIdentity_PowerCut(t *testing.T) {
	d := newDisk()
	s := d.open(t, 16<<10)
	before := s.ID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	stop := d.cutSometimes(rng, 1, 100, anything{})
	after, err := SetIdentity(context.Background(), d.options(Options{}), false)
	cuts := stop()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[[16]byte]int)
	for _, c := range append(cuts, powerCut{disk: d}) {
		for range 2 {
			s := c.disk.open(t, 16<<10)
			seen[s.ID()]++
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(seen) != 2 || seen[before]%2 != 0 || seen[after]%2 != 0 || seen[before] == 0 || seen[after] < 4 {
		t.Errorf("%d power cuts: %v, want %x and %x, each twice in a row", len(cuts), seen, before, after)
	}
}
