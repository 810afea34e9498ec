package backstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"odx/backstore/layout"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/owner"
)

// A store that is not this process's any more answers nothing and writes nothing, and
// another process finds all that was acknowledged.
func TestStore_Lost(t *testing.T) {
	ctx, d := context.Background(), newDisk()
	claim := func(place owner.Driver) *owner.Owner {
		o, err := owner.Claim(ctx, place)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	place := owner.NewMemory(0, 0, 0, nil)
	open := func(o *owner.Owner) (*Store, *Volume) {
		s, err := Open(ctx, d.options(Options{Owner: o}))
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Volume("v")
		if errors.Is(err, ErrNotFound) {
			v, err = s.CreateVolume(ctx, "v", 1<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s, v
	}
	first := claim(place)
	old, v := open(first)
	block := func(b byte) []byte { return bytes.Repeat([]byte{b}, BlockLength) }
	if err := errors.Join(v.WriteAt(ctx, block('a'), 0), old.WriteOut(ctx), old.Owned()); err != nil {
		t.Fatal(err)
	}

	place.Revoke() // noticed by the next renewal
	second := claim(place)
	select {
	case <-old.Lost():
	case <-time.After(time.Minute):
		t.Fatal("the loss is not noticed")
	}
	before := files(t, d.fs, "/store")
	_, created := old.CreateVolume(ctx, "w", 1<<20)
	for what, err := range map[string]error{
		"owned": old.Owned(), "read": v.ReadAt(ctx, make([]byte, 1), 0), "read of a hole": v.ReadAt(ctx, make([]byte, 1), 1<<19),
		"write": v.WriteAt(ctx, block('b'), 0), "unmap": v.Unmap(ctx, 0, BlockLength), "flush": old.Flush(ctx), "create": created,
		"checkpoint": old.Checkpoint(ctx), "clean": old.Clean(ctx), "close": old.Close(),
	} {
		if !errors.Is(err, owner.ErrLost) {
			t.Errorf("%s: %v, want an ErrLost", what, err)
		}
	}
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("files have changed")
	}

	now, v := open(second)
	got := make([]byte, BlockLength)
	if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, block('a')) {
		t.Errorf("%q, %v", got[0], err)
	}
	if now.Epoch() != 2 || old.Epoch() != 1 {
		t.Errorf("epochs %d and %d", old.Epoch(), now.Epoch())
	}
	if err := errors.Join(now.Owned(), now.Close()); err != nil {
		t.Error(err)
	}
	<-now.Lost()
}

// TestOptions_Owner: Open takes over a claim, and releases it where it fails. What claims
// the store more than once refuses one, and leaves it.
func TestOptions_Owner(t *testing.T) {
	ctx, d := t.Context(), newDisk()
	must.Succeed(t, d.open(t, 4<<10).Close())
	place := owner.NewMemory(0, 0, 0, nil)
	claim, err := owner.Claim(ctx, place)
	must.Succeed(t, err)
	o := d.options(Options{Owner: claim})
	before := files(t, d.fs, "/store")
	_, upgrade := Upgrade(ctx, o)
	_, identity := SetIdentity(ctx, o, true)
	_, repair := Repair(ctx, RepairOptions{Options: o})
	for what, err := range map[string]error{
		"upgrade": upgrade, "identity": identity, "repair": repair,
		"dump": Dump(ctx, o, nil, func(DumpItem) error { return nil }),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	must.Succeed(t, claim.Check())
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("files have changed")
	}
	for what, change := range map[string]func(o *Options){
		"wrong options": func(o *Options) { o.DedupUnit = 5 },
		"no access": func(o *Options) {
			o.FS = denied{FS: d.fs, change: func(string) error { return fs.ErrPermission }}
		},
		"no store": func(o *Options) { o.Dir, o.ReadOnly = "/none", true },
	} {
		claim, err := owner.Claim(ctx, owner.NewMemory(0, 0, 0, nil))
		must.Succeed(t, err)
		o := d.options(Options{Owner: claim})
		change(&o)
		if _, err := Open(ctx, o); err == nil || !errors.Is(claim.Check(), owner.ErrLost) {
			t.Errorf("%s: %v, and the claim: %v", what, err, claim.Check())
		}
	}
}

// TestOwn_OtherFormat: a store of another format is refused before it is claimed, which
// would change the file of the lock.
func TestOwn_OtherFormat(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "store")
	o := Options{Dir: dir, Log: logs.Discard(), CacheBytes: 4 << 20}
	s, err := Open(ctx, o)
	must.Succeed(t, err)
	later := s.parts.sb.Encode(layout.FormatVersion + 1)
	must.Succeed(t, s.Close())
	for _, in := range layout.Superblocks(dir) {
		must.Succeed(t, os.WriteFile(filepath.Join(in, layout.SuperblockName), later, 0o600))
	}
	length := func() int64 {
		info, err := os.Stat(filepath.Join(dir, layout.LockName))
		must.Succeed(t, err)
		return info.Size()
	}
	before := length()
	_, open := Open(ctx, o)
	_, upgrade := Upgrade(ctx, o)
	_, identity := SetIdentity(ctx, o, true)
	for what, err := range map[string]error{"open": open, "upgrade": upgrade, "identity": identity} {
		if _, is := errors.AsType[*layout.FormatError](err); !is {
			t.Errorf("%s: %v, want a FormatError", what, err)
		}
	}
	if after := length(); after != before {
		t.Errorf("epoch %d, was %d", after, before)
	}
}

// TestRepair_Lost: a repair changes nothing once the damaged store is another's.
func TestRepair_Lost(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(repairOptions))
	for _, to := range []string{"", "/new"} {
		m := repair{o: RepairOptions{Options: d.options(repairOptions), To: to}, result: &Repaired{}}
		must.Succeed(t, m.o.setDefaults())
		m.fsys = m.o.FS
		must.Succeed(t, m.open(t.Context()), m.from.life.owner.Release())
		before := d.fs.ProcessClone()
		for what, err := range map[string]error{
			"run": m.run(t.Context()), "mark": m.noteRepaired(), "swap": m.swapAll(), "remove": m.removeMade(),
			"copy": m.copySegments(t.Context()), "prepare": m.prepareSwap(),
		} {
			if !errors.Is(err, owner.ErrLost) {
				t.Errorf("to %q, %s: %v, want ErrLost", to, what, err)
			}
		}
		for _, dir := range []string{"/store", "/store/repairing", "/new"} {
			if !maps.EqualFunc(files(t, before, dir), files(t, d.fs, dir), bytes.Equal) {
				t.Errorf("to %q: files in %s have changed", to, dir)
			}
		}
		_ = m.close(nil)
	}
}
