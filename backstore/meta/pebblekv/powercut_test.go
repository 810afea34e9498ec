package pebblekv

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// TestDB_PowerCuts cuts the power at each change of a file or a name, several times, since each
// time it may keep others of the changes that are not durable: the rows can be opened, and what was
// stored is there.
func TestDB_PowerCuts(t *testing.T) {
	f := &faulty{t: t, disk: vfs.NewMem(), fault: errors.New("none")}
	must.Succeed(t, f.disk.MkdirAll(dir))
	type cut struct {
		disk          *vfs.Mem
		stored, tried int64
	}
	var mu sync.Mutex // guards what follows
	var cuts []cut
	rng := rand.New(rand.NewPCG(11, 12))
	f.disk.SetHook(func(kind vfs.OpKind, name string) error {
		if !kind.Changes() || f.stored.Load() == 0 {
			return nil
		}
		each := 2
		if strings.Contains(name, "marker.") || kind == vfs.OpSyncDir {
			each = 30 // the order of names is what counts there
		}
		mu.Lock()
		defer mu.Unlock()
		for range each {
			stored, tried := f.stored.Load(), f.tried.Load()
			cuts = append(cuts, cut{f.disk.CrashClone(rng), stored, tried})
		}
		return nil
	})
	f.work()
	f.disk.SetHook(nil)
	for i, c := range cuts {
		d, err := openRows(c.disk, journaled)
		if err != nil {
			t.Fatalf("power cut %d, after checkpoint %d: %v", i, c.stored, err)
		}
		after := f.after(c.disk, c.stored, c.tried)
		after.look(d)
		must.Succeed(t, d.Close())
		if t.Failed() {
			t.Fatalf("power cut %d", i)
		}
	}
	t.Logf("%d power cuts", len(cuts))
	if len(cuts) < 200 {
		t.Error("too few")
	}
}
