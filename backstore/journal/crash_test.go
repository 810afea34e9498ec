package journal

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// history is the operations on a journal up to a crash.
type history struct {
	first                        LSN // replay starts here
	appended, written, committed LSN
	far                          bool // the files are far away: as few writes as can be
}

var errPowerOff = errors.New("power is off")

// live appends, commits, rotates and truncates until the power cut.
func live(t *testing.T, m *vfs.Mem, h history) history {
	o := small(m)
	o.First = h.first
	o.FileBytes = 12 << 10
	if h.far {
		o.NoteAfter, o.Sparse = time.Hour, true
	}
	j, err := createOpen(o, ignore)
	if err != nil {
		return h
	}
	defer j.Close()
	h.appended, h.written = j.Last(), j.Last()
	if j.Commit(ctx, j.Last()) != nil {
		return h
	}
	h.committed = j.Last()
	for i := range 45 {
		p := payload(j.Last() + 1)
		if j.Reserve(ctx, len(p)) != nil {
			return h
		}
		h.appended = j.Append(p, nil)
		if i%3 == 0 {
			if j.Commit(ctx, h.appended) != nil {
				return h
			}
			h.committed = h.appended
		}
		if i%3 < 2 {
			if j.Write(ctx, h.appended) != nil {
				return h
			}
			h.written = h.appended
		}
		if i%15 == 10 {
			first, err := j.Rotate()
			if err != nil || j.Commit(ctx, first-1) != nil {
				return h
			}
			h.first, h.committed = first, first-1
			if j.Truncate(first) != nil {
				return h
			}
		}
	}
	if j.Close() == nil {
		h.committed = h.appended
	}
	return h
}

// cutAfter cuts the power of m after a number of operations that change the disk, and
// returns their counter.
func cutAfter(m *vfs.Mem, cut int64) *atomic.Int64 {
	n := &atomic.Int64{}
	m.SetHook(func(k vfs.OpKind, _ string) error {
		if k.Changes() && n.Add(1) > cut {
			return errPowerOff
		}
		return nil
	})
	return n
}

// check opens the journal after a power cut: it must have all committed records, and
// after them only appended ones.
func check(t *testing.T, m *vfs.Mem, h history) {
	t.Helper()
	o := small(m)
	o.First = h.first
	j, last := openAt(t, o)
	if last < h.committed || last > h.appended {
		t.Errorf("replayed up to %d; committed %d, appended %d", last, h.committed, h.appended)
	}
	must.Succeed(t, j.Close())
}

// checkWritten opens the journal after the end of a process: it must have all written
// records, which are durable after a commit.
func checkWritten(t *testing.T, m *vfs.Mem, h history) {
	t.Helper()
	o := small(m)
	o.First = h.first
	j, last := openAt(t, o)
	if last < h.written || last > h.appended {
		t.Errorf("replayed up to %d; written %d, appended %d", last, h.written, h.appended)
	}
	must.Succeed(t, j.Commit(ctx, last))
	h.committed = last
	check(t, m.CrashClone(newRand(uint64(last), 1)), h)
	must.Succeed(t, j.Close())
}

// TestJournal_PowerCut cuts the power at every operation that changes the disk, then
// continues with the remaining state and cuts again. It also ends the process there,
// which loses less.
func TestJournal_PowerCut(t *testing.T) {
	t.Run("near", func(t *testing.T) { testPowerCut(t, false) })
	t.Run("far", func(t *testing.T) { testPowerCut(t, true) })
}

func testPowerCut(t *testing.T, far bool) {
	for cut := int64(0); ; cut++ {
		m := vfs.NewMem()
		n := cutAfter(m, cut)
		h := live(t, m, history{first: 1, far: far})
		whole := n.Load() <= cut
		for seed := range uint64(4) {
			rng := newRand(uint64(cut), seed)
			left := m.CrashClone(rng)
			check(t, left.CrashClone(rng), h)
			dead := m.ProcessClone()
			checkWritten(t, dead.ProcessClone(), h)
			check(t, dead.CrashClone(rng), h)
			// A second run, with a power cut at a random operation.
			cutAfter(left, int64(rng.IntN(60)))
			h2 := live(t, left, h)
			h2.committed = max(h.committed, h2.committed)
			h2.appended = max(h.appended, h2.appended)
			check(t, left.CrashClone(rng), h2)
		}
		if t.Failed() {
			t.Fatalf("power cut after %d operations", cut)
		}
		if whole {
			t.Logf("%d power cuts", n.Load())
			return
		}
	}
}

// TestOpen_MakesReplayedDurable: writes of a killed process are in the kernel, where
// the next process reads them. A power cut after the replay must not lose them.
func TestOpen_MakesReplayedDurable(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	addMany(t, j, 3)
	add(t, j)
	add(t, j)
	must.Succeed(t, j.Write(ctx, 5))
	j.acquire() // held to the end: j is the killed process
	defer j.release()
	k, last := openAt(t, small(m))
	if last != 5 {
		t.Errorf("replayed up to %d", last)
	}
	lsn := add(t, k)
	must.Succeed(t, k.Commit(ctx, lsn))
	for seed := range uint64(20) {
		c, last := openAt(t, small(m.CrashClone(newRand(1, seed))))
		if last != 6 {
			t.Errorf("replayed up to %d after the power cut", last)
		}
		must.Succeed(t, c.Close())
	}
}

// TestJournal_ConcurrentPowerCut cuts the power repeatedly during concurrent Appends
// and Commits.
func TestJournal_ConcurrentPowerCut(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	var stop atomic.Bool
	var appended sync.Map // LSN: payload, put after Append
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			for i := 0; !stop.Load(); i++ {
				p := fmt.Appendf(nil, "%d of %d%*s", i, w, i%700, "")
				if err := j.Reserve(ctx, len(p)); err != nil {
					t.Error(err)
					return
				}
				lsn := j.Append(p[:5], p[5:])
				appended.Store(lsn, string(p))
				if i%4 == 0 {
					if err := j.Commit(ctx, lsn); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	first := LSN(1)
	for cut := range uint64(60) {
		durable := j.Durable()
		o := small(m.CrashClone(newRand(5, cut)))
		o.First = first
		last := first - 1
		c, err := Open(ctx, o, func(r Record) error {
			if want, ok := appended.Load(r.LSN); ok && want != string(r.Payload) {
				t.Errorf("record %d is %q, want %q", r.LSN, r.Payload, want)
			}
			last = r.LSN
			return nil
		})
		must.Succeed(t, err)
		must.Succeed(t, c.Close())
		if last < durable {
			t.Errorf("record %d was durable, last found record is %d", durable, last)
		}
		if cut%5 == 4 {
			next, err := j.Rotate()
			must.Succeed(t, err)
			must.Succeed(t, j.Commit(ctx, next-1))
			must.Succeed(t, j.Truncate(next))
			first = next
		}
	}
	stop.Store(true)
	all.Wait()
}

func journalFile(t *testing.T, m *vfs.Mem, i int) string {
	t.Helper()
	return "/j/" + names(t, m)[i]
}

func spoil(t *testing.T, m *vfs.Mem, name string, off int64, p []byte) {
	t.Helper()
	f, err := m.Open(name)
	must.Succeed(t, err)
	_, err = f.WriteAt(p, off)
	must.Succeed(t, err)
	must.Succeed(t, f.Close())
}

func TestOpen_DamageIsNoTornTail(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, m *vfs.Mem)
	}{
		{"a changed byte in an early file", func(t *testing.T, m *vfs.Mem) {
			spoil(t, m, journalFile(t, m, 0), headerBlock+recordHeader+200, []byte{0xff, 0xee})
		}},
		{"a missing first file", func(t *testing.T, m *vfs.Mem) { must.Succeed(t, m.Remove(journalFile(t, m, 0))) }},
		{"a missing file", func(t *testing.T, m *vfs.Mem) { must.Succeed(t, m.Remove(journalFile(t, m, 1))) }},
		{"the header of another store", func(t *testing.T, m *vfs.Mem) {
			spoil(t, m, journalFile(t, m, 0), 0, fileHeader{store: [16]byte{9}, seq: 1, first: 1}.encode())
		}},
		{"an unknown version", func(t *testing.T, m *vfs.Mem) {
			b := fileHeader{store: store, seq: 1, first: 1}.encode()
			b[8]++
			copy(b[56:], checksum(b[:56]))
			spoil(t, m, journalFile(t, m, 0), 0, b)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := vfs.NewMem()
			j, _ := openAt(t, small(m))
			addMany(t, j, 60)
			must.Succeed(t, j.Close())
			test.spoil(t, m)
			before := fmt.Sprint(names(t, m))
			_, err := Open(ctx, small(m), ignore)
			wantErr(t, "open", err, ErrCorrupt)
			if after := fmt.Sprint(names(t, m)); after != before {
				t.Errorf("files before %s, after %s", before, after)
			}
		})
	}
}

// TestOpen_TornTail damages records that were not durable at many offsets: Open replays
// the records before the damage and continues after them, even if valid records follow.
func TestOpen_TornTail(t *testing.T) {
	base := vfs.NewMem()
	o := small(base)
	o.FileBytes = 64 << 10
	j, _ := openAt(t, o)
	first, err := j.Rotate()
	must.Succeed(t, err)
	must.Succeed(t, j.Truncate(first))
	ends := []int64{headerBlock} // of the records
	for range 12 {
		lsn := add(t, j)
		if lsn == 3 {
			must.Succeed(t, j.Commit(ctx, lsn))
		}
		ends = append(ends, ends[lsn-1]+recordLength(len(payload(lsn))))
	}
	must.Succeed(t, j.Write(ctx, 12))
	const durable = 3
	for off := ends[durable]; off < ends[12]; off += 40 {
		m := base.ProcessClone()
		spoil(t, m, lastFile(t, m), off, bytes.Repeat([]byte{0xa5}, 8))
		k, last := openAt(t, small(m))
		whole := 0
		for whole < 12 && ends[whole+1] <= off {
			whole++
		}
		// Padding bytes are not covered by the CRC.
		if last != LSN(whole) && ends[whole+1]-off > 8 {
			t.Fatalf("damage at %d: replayed up to %d, want %d", off, last, whole)
		}
		next := add(t, k)
		must.Succeed(t, k.Close())
		k, last = openAt(t, small(m))
		if last != next {
			t.Fatalf("damage at %d: replayed up to %d, want %d", off, last, next)
		}
		must.Succeed(t, k.Close())
	}
}

// lastFile is the name of the newest file that has a header.
func lastFile(t *testing.T, m *vfs.Mem) string {
	t.Helper()
	s, err := newSurvey(ctx, small(m))
	must.Succeed(t, err)
	return s.chain[len(s.chain)-1].name
}

// TestJournal_WriteDuringSync: Write does not wait for a sync, and a write that fails
// during a sync loses no record.
func TestJournal_WriteDuringSync(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	must.Succeed(t, j.Commit(ctx, add(t, j))) // the file exists
	begun, goOn := make(chan bool), make(chan bool)
	var all sync.WaitGroup
	defer all.Wait()
	for _, fails := range []bool{false, true} {
		m.SetHook(func(k vfs.OpKind, name string) error {
			if k == vfs.OpSync && !isSpareName(filepath.Base(name)) {
				begun <- true
				<-goOn
			}
			return nil
		})
		first := add(t, j)
		result := make(chan error, 1)
		all.Go(func() { result <- j.Commit(ctx, first) })
		<-begun
		second := add(t, j)
		if fails {
			m.SetHook(failing(errPowerOff, vfs.OpWrite))
			wantErr(t, "write", j.Write(ctx, second), errPowerOff)
		} else {
			must.Succeed(t, j.Write(ctx, second))
			checkWritten(t, m.ProcessClone(), history{first: 1, appended: second, written: second})
		}
		m.SetHook(nil)
		if d := j.Durable(); d >= first {
			t.Errorf("durable up to %d during the sync of %d", d, first)
		}
		goOn <- true
		if err := <-result; (err != nil) != fails {
			t.Errorf("commit: %v", err)
		}
		must.Succeed(t, j.Commit(ctx, second))
		check(t, m.CrashClone(newRand(3, 3)), history{first: 1, appended: second, committed: second})
	}
}

// TestOpen_ErrCut: if a power cut lost the data that a record refers to, the journal
// ends before the record and continues there.
func TestOpen_ErrCut(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	for range 4 {
		must.Succeed(t, j.Commit(ctx, add(t, j)))
	}
	for range 4 {
		add(t, j)
	}
	must.Succeed(t, j.Write(ctx, 8))
	left := m.ProcessClone()
	for range 2 {
		replayed := LSN(0)
		k, err := Open(ctx, small(left), func(r Record) error {
			if r.LSN >= 7 {
				return fmt.Errorf("extent of record %d: %w", r.LSN, ErrCut)
			}
			if r.Durable != (r.LSN <= 4) {
				t.Errorf("record %d, durable: %v", r.LSN, r.Durable)
			}
			replayed = r.LSN
			return nil
		})
		must.Succeed(t, err)
		must.Succeed(t, k.Commit(ctx, replayed))
		if replayed != 6 || k.Last() != 6 || k.Durable() != 6 {
			t.Errorf("replayed up to %d, last %d, durable %d", replayed, k.Last(), k.Durable())
		}
		must.Succeed(t, k.Close())
	}
	_, err := Open(ctx, small(m.ProcessClone()), func(r Record) error {
		if r.LSN == 3 {
			return ErrCut
		}
		return nil
	})
	if err == nil {
		t.Error("a durable record was cut off")
	}
}
