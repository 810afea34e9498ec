package backstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// sector is the unit of the model: what initiators write.
const sector = 512

// disk is what outlives a store in a test: its files.
type disk struct {
	fs *vfs.Mem
	// cutMu is held while power is cut.
	cutMu sync.Mutex
}

func newDisk() *disk { return &disk{fs: vfs.NewMem()} }

// crash returns a disk that a power cut at this instant may leave.
func (d *disk) crash(rng *rand.Rand) *disk { return &disk{fs: d.fs.CrashClone(rng)} }

// requireSound requires that every reference of a store is right.
func requireSound(t testing.TB, s *Store) {
	t.Helper()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Errorf("check: %v %v", findings, err)
	}
}

// overRestart calls check with a store of d, and after it is closed with the same one again,
// which it closes.
func overRestart(t testing.TB, d *disk, s *Store, check func(s *Store)) {
	t.Helper()
	check(s)
	must.Succeed(t, s.Close())
	s = d.open(t, 4<<10)
	check(s)
	must.Succeed(t, s.Close())
}

func (d *disk) open(tb testing.TB, unit int) *Store {
	tb.Helper()
	s, err := Open(context.Background(), d.options(Options{DedupUnit: unit, CacheBytes: 4 << 20}))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// options are o with what makes a store use the disk, and with little memory where o
// says nothing: to make the default ready takes longer than most tests.
func (d *disk) options(o Options) Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 4 << 20
	}
	if o.Engine == nil {
		o.Engine = testEngine
	}
	o.Dir, o.Log, o.FS, o.tuning.reserveBytes = "/store", logs.Discard(), d.fs, 1<<20
	return o
}

// fill writes the content that a sector with this value has.
func fill(p []byte, value uint32) {
	binary.LittleEndian.PutUint32(p, value)
	for n := 4; n < len(p); n *= 2 { // for the race detector each access by itself is dear
		copy(p[n:], p[:n])
	}
}

func content(values []uint32) []byte {
	p := make([]byte, len(values)*sector)
	for i, v := range values {
		fill(p[i*sector:(i+1)*sector], v)
	}
	return p
}

// values reads sectors back; a sector that no write can have produced is -1.
func values(p []byte) []int64 {
	out := make([]int64, len(p)/sector)
	for i := range out {
		b := p[i*sector : (i+1)*sector]
		out[i] = int64(binary.LittleEndian.Uint32(b))
		if !bytes.Equal(b[4:], b[:sector-4]) {
			out[i] = -1
		}
	}
	return out
}

// model is the plain twin of a store.
type model struct {
	volumes   map[string][]uint32 // by name, that of a file after a slash: the value of each sector
	snapshots map[uint64][]uint32 // by id: the values of its ranges, end to end
	records   map[string]string
}

func newModel() *model {
	return &model{volumes: map[string][]uint32{}, snapshots: map[uint64][]uint32{}, records: map[string]string{}}
}

// clone returns a copy; slices are shared and replaced, never changed.
func (m *model) clone() *model {
	return &model{volumes: maps.Clone(m.volumes), snapshots: maps.Clone(m.snapshots), records: maps.Clone(m.records)}
}

// overwrite returns the model with sectors of a volume replaced.
func (m *model) overwrite(volume string, at int, with []uint32) *model {
	next := m.clone()
	v := slices.Clone(m.volumes[volume])
	copy(v[at:], with)
	next.volumes[volume] = v
	return next
}

// readModel returns what a store holds.
func readModel(s *Store) (*model, error) {
	m := newModel()
	for _, v := range s.catalog.all() {
		found, err := readSectors(v.ReadAt, v.Size())
		if err != nil {
			return nil, fmt.Errorf("%v: %w", v, err)
		}
		name := v.Name()
		if v.IsFile() {
			name = "/" + name
		}
		m.volumes[name] = found
	}
	for _, id := range snapshotIDs(s) {
		n, err := s.Snapshot(id)
		if err != nil {
			return nil, err
		}
		found, err := readSectors(n.ReadAt, n.Length())
		n.Release()
		if err != nil {
			return nil, fmt.Errorf("snapshot %d: %w", id, err)
		}
		m.snapshots[id] = found
	}
	return m, s.ScanRecords(nil, func(key, value []byte) error {
		again, err := s.GetRecord(key)
		if err != nil || !bytes.Equal(again, value) {
			return fmt.Errorf("record %s is %q in a scan and %q by itself: %v", key, value, again, err)
		}
		m.records[string(key)] = string(value)
		return nil
	})
}

func readSectors(readAt func(context.Context, []byte, int64) error, length int64) ([]uint32, error) {
	out := make([]uint32, 0, length/sector)
	p := make([]byte, min(length, 256<<10))
	for off := int64(0); off < length; off += int64(len(p)) {
		p = p[:min(int64(len(p)), length-off)]
		if err := readAt(context.Background(), p, off); err != nil {
			return nil, err
		}
		for _, v := range values(p) {
			if v < 0 {
				return nil, fmt.Errorf("sector %d holds what was never written", len(out))
			}
			out = append(out, uint32(v))
		}
	}
	return out, nil
}

func snapshotIDs(s *Store) (ids []uint64) {
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	for id, st := range s.catalog.snapshots {
		if !st.deleted {
			ids = append(ids, id)
		}
	}
	return ids
}

// differs says where what was found is not what the model says, "" if nowhere.
// Sectors may have the value of either model: an operation between the two is
// not one step where it is large or unaligned.
func (m *model) differs(found, or *model) string {
	if got, want := slices.Sorted(maps.Keys(found.volumes)), slices.Sorted(maps.Keys(m.volumes)); !slices.Equal(got, want) {
		return fmt.Sprintf("volumes %q, want %q", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(found.snapshots)), slices.Sorted(maps.Keys(m.snapshots)); !slices.Equal(got, want) {
		return fmt.Sprintf("snapshots %d, want %d", got, want)
	}
	if !maps.Equal(found.records, m.records) {
		return fmt.Sprintf("records %q, want %q", found.records, m.records)
	}
	for name, want := range m.volumes {
		if diff := sectorsDiffer(found.volumes[name], want, or.volumes[name]); diff != "" {
			return fmt.Sprintf("volume %s: %s", name, diff)
		}
	}
	for id, want := range m.snapshots {
		if diff := sectorsDiffer(found.snapshots[id], want, nil); diff != "" {
			return fmt.Sprintf("snapshot %d: %s", id, diff)
		}
	}
	return ""
}

func sectorsDiffer(found, want, or []uint32) string {
	if len(found) != len(want) {
		return fmt.Sprintf("%d sectors, want %d", len(found), len(want))
	}
	for i, got := range found {
		if got != want[i] && (len(or) != len(want) || got != or[i]) {
			return fmt.Sprintf("sector %d holds %d, want %d", i, got, want[i])
		}
	}
	return ""
}
