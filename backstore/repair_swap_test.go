package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/layout"
	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// damagedForRepair makes a store that lacks a segment.
func damagedForRepair(t *testing.T) (d *disk, want map[string]string) {
	t.Helper()
	d = newDisk()
	want = repairDisk(t, d.options(repairOptions))
	all := files(t, d.fs, "/store")
	delete(all, "/store/segments/00000003.seg")
	return (&damageable{}).on(t, all), want // where all is durable
}

// TestRepair_PowerCuts cuts the power before any change of a file by a repair in
// place: the store is what it was, or is not opened until the repair has ended, or is
// the repaired one; and a repair ends well, however often that happens.
func TestRepair_PowerCuts(t *testing.T) {
	ctx := context.Background()
	d, want := damagedForRepair(t)
	rng := rand.New(rand.NewPCG(3, 4))
	stop := d.cutSometimes(rng, sample.Size(40, 16, 4), sample.Size(5, 12, 30), anything{})
	r, err := Repair(ctx, RepairOptions{Options: d.options(repairOptions)})
	cuts := stop()
	if err != nil || r.LostBytes == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	refused, opened := 0, 0
	for i, c := range append(cuts, powerCut{disk: d}) {
		what := fmt.Sprintf("power cut %d of %d", i, len(cuts))
		o := c.disk.options(repairOptions)
		s, err := Open(ctx, readOnly(o))
		switch {
		case err == nil:
			opened++
			if got, lost := readable(t, s); len(lost) == 0 || !rightButLost(got, want, lost) {
				t.Errorf("%s: the store has other data", what)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		case strings.Contains(err.Error(), "run odx store repair --in-place once more"):
			refused++
		default:
			t.Fatalf("%s: %v", what, err)
		}
		again, err := Repair(ctx, RepairOptions{Options: o})
		if err != nil {
			t.Fatalf("%s: repair again: %v", what, err)
		}
		if i < len(cuts) && !reflect.DeepEqual(again.LostBytes, r.LostBytes) && again.LostBytes != 0 {
			t.Errorf("%s: repair again finds %d lost bytes, not %d", what, again.LostBytes, r.LostBytes)
		}
		if s, err = Open(ctx, o); err != nil {
			t.Fatalf("%s: after the repair: %v", what, err)
		}
		if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
			t.Errorf("%s: %v, %v", what, findings, err)
		}
		if got, lost := readable(t, s); !rightButLost(got, want, lost) {
			t.Errorf("%s: the repaired store has other data", what)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if names, err := c.disk.fs.List("/store/" + layout.RepairDir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: left over: %v, %v", what, names, err)
		}
	}
	if refused == 0 && len(cuts) > 12 || opened < 2 { // few cuts may all miss the swap
		t.Errorf("%d cuts left a store that opens, %d one that is refused", opened, refused)
	}
	t.Logf("%d power cuts: %d opened, %d refused", len(cuts), opened, refused)
}

// rightButLost reports whether each block is right or one of those that are lost.
func rightButLost(got, want map[string]string, lost map[string][]int64) bool {
	for what, text := range want {
		now, bad := got[what], map[int64]bool{}
		if len(now) != len(text) {
			return false
		}
		for _, off := range lost[what] {
			bad[off] = true
		}
		for off := 0; off < len(text); off += BlockLength {
			end := min(off+BlockLength, len(text))
			if !bad[int64(off)] && now[off:end] != text[off:end] {
				return false
			}
		}
	}
	return true
}

// TestRepair_PowerCutsToDirectory: the damaged store stays as it is, and what is made
// of the other one is a whole store or none.
func TestRepair_PowerCutsToDirectory(t *testing.T) {
	ctx := context.Background()
	d, want := damagedForRepair(t)
	before := filesOf(t, d.fs)
	rng := rand.New(rand.NewPCG(5, 6))
	stop := d.cutSometimes(rng, sample.Size(36, 12, 3), 40, anything{})
	_, err := Repair(ctx, RepairOptions{Options: d.options(repairOptions), To: "/new"})
	cuts := stop()
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for i, c := range append(cuts, powerCut{disk: d}) {
		if after := filesOf(t, c.disk.fs); !maps.EqualFunc(before, after, bytes.Equal) {
			t.Fatalf("power cut %d: the damaged store has changed", i)
		}
		o := c.disk.options(repairOptions)
		o.Dir = "/new"
		s, err := Open(ctx, readOnly(o))
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
			d := layout.Directory{FS: c.disk.fs, Path: "/new"}
			_, again := Repair(ctx, RepairOptions{Options: c.disk.options(repairOptions), To: "/new"})
			if d.Exists(layout.UnfinishedName) && (again == nil || !strings.Contains(again.Error(), "remove it, and repair once more")) {
				t.Errorf("power cut %d: the next repair ends with %v", i, again)
			}
			continue
		}
		if err != nil {
			t.Fatalf("power cut %d: %v", i, err)
		}
		whole++
		if got, lost := readable(t, s); !rightButLost(got, want, lost) {
			t.Errorf("power cut %d: the store has other data", i)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if whole == 0 || whole > len(cuts) {
		t.Errorf("%d of %d power cuts left a whole store", whole, len(cuts))
	}
}

// TestRepair_SwapFails lets one change after the other of a repair in place fail: the
// error names the cause, what state the store is in and what to do, and the next
// repair ends well.
func TestRepair_SwapFails(t *testing.T) {
	ctx := context.Background()
	ended, step := false, sample.Size(15, 5, 5) // until it replaces something
	for fail := 0; !ended; fail += step {
		d, want := damagedForRepair(t)
		before := filesOf(t, d.fs)
		changes, in := 0, ""
		d.fs.SetHook(func(kind vfs.OpKind, name string) error {
			if !kind.Changes() || kind == vfs.OpWrite || kind == vfs.OpSync || kind == vfs.OpAllocate {
				return nil
			}
			if changes++; changes-1 != fail {
				return nil
			}
			in = name
			return &fs.PathError{Op: "change", Path: name, Err: syscall.EPERM}
		})
		_, err := Repair(ctx, RepairOptions{Options: d.options(repairOptions)})
		d.fs.SetHook(nil)
		ended = in == ""
		if err == nil {
			continue // a file that is not needed
		}
		if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), in) {
			t.Errorf("%s: %v does not name the cause", in, err)
		}
		_, tag := d.fs.Open(filepath.Join("/store", layout.RepairDir, layout.RepairedTag))
		swapping := strings.Contains(err.Error(), "The store is not opened before that is ended")
		if swapping {
			step = sample.Size(16, 4, 1)
		}
		if swapping && tag != nil && in != filepath.Join("/store", layout.RepairDir) {
			t.Errorf("%s: %v, and what was made is not there", in, err)
		}
		if after := filesOf(t, d.fs); !swapping && !maps.EqualFunc(before, after, bytes.Equal) {
			t.Errorf("%s: %v, and files have changed", in, err)
		}
		o := d.options(repairOptions)
		if _, err := Repair(ctx, RepairOptions{Options: o}); err != nil {
			t.Fatalf("%s: repair again: %v", in, err)
		}
		s, err := Open(ctx, o)
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if got, lost := readable(t, s); !rightButLost(got, want, lost) {
			t.Errorf("%s: the repaired store has other data", in)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRepair_SuperblockIsDirectory: what cannot be put in its place is found before a
// repair in place has changed anything.
func TestRepair_SuperblockIsDirectory(t *testing.T) {
	m := makeDamageable(t)
	delete(m.files, "/store/"+layout.SuperblockName)
	d := m.on(t, m.files)
	if err := d.fs.MkdirAll("/store/" + layout.SuperblockName); err != nil {
		t.Fatal(err)
	}
	before := filesOf(t, d.fs)
	_, err := Repair(context.Background(), RepairOptions{Options: m.options(d)})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "/store/store is a directory") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v, want ErrCorrupt that names the directory", err)
	}
	if after := filesOf(t, d.fs); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("files were changed")
	}
}
