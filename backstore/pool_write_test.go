package backstore

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"odx/backstore/meta/pebblekv"
	"odx/backstore/vfs/rados"
	"odx/internal/kit/must"
)

// TestPool_SmallWrites: a small write that is durable when it was answered waits for one operation
// of the pool, which has its record and its data; the segment gets the data of many writes at once,
// and not before. So when the process ends right after an answer, and nothing but that operation has
// arrived, the next one has the write.
func TestPool_SmallWrites(t *testing.T) {
	const (
		writes, blocks = 200, 64
		noteLength     = 24 // of a note of the journal, which follows a pause
	)
	rng := rand.New(rand.NewPCG(1, 6))
	p := newPool(rng)
	p.o = Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, Engine: pebblekv.Engine()}
	s, err := Open(t.Context(), p.options(p.twin.Client()))
	must.Succeed(t, err)
	v, err := s.CreateVolume(t.Context(), "v", blocks*BlockLength)
	must.Succeed(t, err)
	var sent, notes atomic.Int64
	p.twin.SetHook(func(object string, c *rados.Change) error {
		switch {
		case !strings.HasPrefix(object, "f."):
		case len(c.Data) == noteLength:
			notes.Add(1)
		case len(c.Data) > 0:
			sent.Add(1)
		}
		return nil
	})
	data := make([]byte, BlockLength)
	for n := range uint64(writes) {
		binary.LittleEndian.PutUint64(data, n+1)
		must.Succeed(t, v.WriteAt(t.Context(), data, int64(n%blocks)*BlockLength))
		must.Succeed(t, s.Flush(t.Context()))
		if n%20 != 0 {
			continue
		}
		crashed := p
		crashed.twin = p.twin.CrashClone(rng)
		next, err := Open(t.Context(), crashed.options(crashed.twin.Client()))
		must.Succeed(t, err)
		again, err := next.Volume("v")
		must.Succeed(t, err)
		got := make([]byte, BlockLength)
		must.Succeed(t, again.ReadAt(t.Context(), got, int64(n%blocks)*BlockLength))
		if number := binary.LittleEndian.Uint64(got); number != n+1 {
			t.Errorf("after the process ended, write %d of the block is there, want %d", number, n+1)
		}
		must.Succeed(t, next.Close())
	}
	// The data is sent 128 KiB at a time, and a record at the end of a part of the journal in two.
	if got, most := sent.Load(), int64(writes+writes/10); got > most {
		t.Errorf("%d operations for %d writes, want at most %d", got, writes, most)
	}
	if got := notes.Load(); got > writes/2 {
		t.Errorf("%d notes for %d writes, one right after the other", got, writes)
	}
	must.Succeed(t, s.Close())
}
