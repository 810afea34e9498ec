package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// damageable is a store as a process that died left it.
type damageable struct {
	files map[string][]byte // by path
	older map[string][]byte // what they were some operations before
	other map[string][]byte // those of another store of the same history
	// states since the last checkpoint; the last two are those before and after
	// the last operation, whose record no mark says that it was durable.
	states []*model
	// recent are the states that may be found.
	recent []*model
}

func (m *damageable) now() *model { return m.states[len(m.states)-1] }

const damageableSectors = 1 << 20 / sector

// options are such that there are several of all files.
func (damageable) options(d *disk) Options {
	return d.options(Options{DedupUnit: 8 << 10, CacheBytes: 4 << 20, tuning: tuning{segmentBlocks: planBlocks + 8}})
}

// makeDamageable works on a store until it has several runs of metadata, segments
// and records in its journal.
func makeDamageable(t *testing.T) *damageable {
	t.Helper()
	ctx := context.Background()
	d := newDisk()
	m := &damageable{}
	s, err := Open(ctx, m.options(d))
	must.Succeed(t, err)
	defer s.Close()
	a, b := createVolume(t, s, "a", 1<<20), createVolume(t, s, "b", 1<<20)
	value := uint32(100)
	write := func(v *Volume, at, sectors int) {
		vals := make([]uint32, sectors)
		for i := range vals {
			value++
			vals[i] = value
		}
		must.Succeed(t, v.WriteAt(ctx, content(vals), int64(at)*sector))
	}
	write(a, 0, damageableSectors)
	must.Succeed(t, s.PutRecords(ctx, Record{Key: []byte("key"), Value: []byte("value")}))
	must.Succeed(t, s.Checkpoint(ctx))
	n, err := a.Snapshot(ctx, []Range{{Offset: 4096, Length: 1 << 19}}, nil)
	must.Succeed(t, err)
	write(a, 64, 256)
	must.Succeed(t, s.Checkpoint(ctx))
	_, err = b.Map(ctx, 0, n, 0, 1<<19)
	must.Succeed(t, err)
	n.Release()
	write(b, 100, 77)
	must.Succeed(t, s.PutRecords(ctx, Record{Key: []byte("other"), Value: []byte("1")}))
	_, err = s.CloneVolume(ctx, "b", "c")
	must.Succeed(t, err)
	must.Succeed(t, s.Checkpoint(ctx))
	for i := range 5 {
		if i > 0 {
			write([]*Volume{a, b}[i%2], 200*i, 16)
			must.Succeed(t, s.Flush(ctx))
		}
		now, err := readModel(s)
		must.Succeed(t, err)
		m.states = append(m.states, now)
		if i == 1 {
			m.older = files(t, d.fs, "/store")
		}
	}
	m.recent = m.states[len(m.states)-2:]
	m.files = files(t, d.fs, "/store")
	return m
}

// on returns a disk with the files, some of them replaced.
func (m *damageable) on(t *testing.T, files map[string][]byte) *disk {
	t.Helper()
	d := newDisk()
	for _, dir := range []string{"", layout.JournalDir, layout.SegmentDir, layout.CheckpointDir} {
		if err := d.fs.MkdirAll(filepath.Join("/store", dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := d.fs.MkdirAll(filepath.Dir(name)); err != nil {
			t.Fatal(err)
		}
		put(t, d.fs, name, files[name])
	}
	return d
}

// twin returns the other copy of a file, if it has one.
func twin(name string) (string, bool) {
	switch {
	case filepath.Base(name) == layout.SuperblockName && strings.Contains(name, layout.CheckpointDir):
		return "/store/" + layout.SuperblockName, true
	case filepath.Base(name) == layout.SuperblockName:
		return filepath.Join("/store", layout.CheckpointDir, layout.SuperblockName), true
	case strings.HasSuffix(name, ".rows"):
		return name + ".copy", true
	case strings.HasSuffix(name, ".rows.copy"):
		return strings.TrimSuffix(name, ".copy"), true
	}
	return "", false
}

// found is what a store with damage shows.
type found struct {
	wrong  string // what is neither right nor an error
	errors int    // reads that failed as damage
}

// look compares what a store holds with the models: each sector of each volume,
// one read for each block.
func (m *damageable) look(s *Store) (f found) {
	read := func(name string, readAt func(context.Context, []byte, int64) error, get func(*model) []uint32) {
		p := make([]byte, BlockLength)
		for block := range len(get(m.now())) * sector / BlockLength {
			err := readAt(context.Background(), p, int64(block)*BlockLength)
			if errors.Is(err, ErrCorrupt) {
				f.errors++
				continue
			}
			if err != nil {
				f.wrong = fmt.Sprintf("%s: %v", name, err)
				return
			}
			right := slices.ContainsFunc(m.recent, func(m *model) bool {
				want := get(m)[block*BlockLength/sector : (block+1)*BlockLength/sector]
				return bytes.Equal(p, content(want))
			})
			if !right {
				f.wrong = fmt.Sprintf("%s: block %d holds other data", name, block)
				return
			}
		}
	}
	for name := range m.now().volumes {
		v, err := s.Volume(name)
		if err != nil {
			f.wrong = err.Error()
			return f
		}
		read(name, v.ReadAt, func(m *model) []uint32 { return m.volumes[name] })
	}
	for id := range m.now().snapshots {
		n, err := s.Snapshot(id)
		if err != nil {
			f.wrong = err.Error()
			return f
		}
		read(fmt.Sprint("snapshot ", id), n.ReadAt, func(m *model) []uint32 { return m.snapshots[id] })
		n.Release()
	}
	for key, want := range m.now().records {
		got, err := s.GetRecord([]byte(key))
		if errors.Is(err, ErrCorrupt) {
			f.errors++
		} else if err != nil || string(got) != want {
			f.wrong = fmt.Sprintf("record %s is %q, %v", key, got, err)
		}
	}
	return f
}

// work goes on with a store: it gives things up, cleans, stores checkpoints. What
// fails must fail as damage, or because of it.
func (m *damageable) work(s *Store) error {
	ctx := context.Background()
	var errs []error
	for _, id := range snapshotIDs(s) {
		errs = append(errs, s.DeleteSnapshot(ctx, id))
	}
	errs = append(errs, s.DeleteVolume(ctx, "c"))
	if v, err := s.Volume("a"); err == nil {
		errs = append(errs, v.WriteAt(ctx, content(slices.Repeat([]uint32{7}, 64)), 1<<19))
	}
	errs = append(errs, s.Clean(ctx), s.Checkpoint(ctx))
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrCorrupt) && !metadataDamage(err) {
			return err
		}
	}
	return nil
}

// worked returns what is to be found after work.
func (m *damageable) worked() *damageable {
	after := &damageable{}
	for _, x := range m.recent {
		x = x.overwrite("a", 1<<19/sector, slices.Repeat([]uint32{7}, 64))
		delete(x.volumes, "c")
		clear(x.snapshots)
		after.states = append(after.states, x)
	}
	after.recent = after.states
	return after
}

// verdict is what damage came to.
type verdict string

const (
	refused verdict = "refused"
	lost    verdict = "lost"
	nothing verdict = "cost nothing"
)

// try opens a store with damage, twice, and works on it.
func (m *damageable) try(t *testing.T, what string, files map[string][]byte, damaged ...string) verdict {
	t.Helper()
	ctx := context.Background()
	if strings.Contains(what, layout.JournalDir) && strings.Contains(what, "cut") {
		// Nothing distinguishes it from a power cut before the last records.
		m = &damageable{files: m.files, older: m.older, states: m.states, recent: m.states}
	}
	d := m.on(t, files)
	m.tryReadOnly(t, what, d)
	s, err := Open(ctx, m.options(d))
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, journal.ErrCorrupt) && !strings.Contains(err.Error(), "has format") {
			t.Fatalf("%s: refused without saying that it is damage: %v", what, err)
		}
		if !slices.ContainsFunc(damaged, func(name string) bool {
			return strings.Contains(err.Error(), name) || strings.Contains(err.Error(), filepath.Dir(name)+":")
		}) {
			t.Fatalf("%s: refused without naming the file: %v", what, err)
		}
		after := filesOf(t, d.fs)
		for name := range files {
			if !bytes.Equal(after[name], files[name]) {
				t.Fatalf("%s: refused, and %s was changed", what, name)
			}
		}
		if len(after) != len(files) {
			t.Fatalf("%s: refused, and there are %d files, not %d", what, len(after), len(files))
		}
		return refused
	}
	f := m.look(s)
	if f.wrong != "" {
		t.Fatalf("%s: %s", what, f.wrong)
	}
	if st, err := s.Stats(ctx); err != nil || f.errors > 0 && len(st.Damage) == 0 {
		t.Fatalf("%s: %d reads fail, and stats show %d things that are damaged, %v", what, f.errors, len(st.Damage), err)
	}
	if err := m.work(s); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	listed, _ := s.Damage()
	if f.errors > 0 && len(listed) == 0 {
		t.Fatalf("%s: %d reads fail, and no damage is listed", what, f.errors)
	}
	// A store that became read-only cannot be closed in order.
	if err := s.Close(); err != nil && !errors.Is(err, ErrCorrupt) && !metadataDamage(err) {
		t.Fatalf("%s: close: %v", what, err)
	}
	m.tryAgain(t, what, d, f)
	if f.errors > 0 {
		return lost
	}
	return nothing
}

// tryAgain opens a store once more that was worked on.
func (m *damageable) tryAgain(t *testing.T, what string, d *disk, f found) {
	t.Helper()
	s, err := Open(context.Background(), m.options(d))
	if err != nil {
		if f.errors == 0 || !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s: open again: %v", what, err)
		}
		return
	}
	defer s.Close()
	after := m.worked().look(s)
	if after.wrong != "" {
		t.Fatalf("%s: after working on it: %s", what, after.wrong)
	}
	if f.errors == 0 {
		if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 || after.errors > 0 {
			t.Fatalf("%s: after working on it: %v, %v, %d reads fail", what, findings, err, after.errors)
		}
	}
}

// tryReadOnly reads what there is without a change of any file.
func (m *damageable) tryReadOnly(t *testing.T, what string, d *disk) {
	t.Helper()
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind.Changes() {
			t.Errorf("%s: a store that is only read does operation %d on %s", what, kind, name)
		}
		return nil
	})
	defer d.fs.SetHook(nil)
	o := m.options(d)
	o.ReadOnly = true
	s, err := Open(context.Background(), o)
	if err != nil {
		return // not even to be read; opening it for writing says why
	}
	defer s.Close()
	listed, _ := s.Damage()
	if f := m.look(s); f.wrong != "" && len(listed) == 0 {
		t.Fatalf("%s, read only: %s", what, f.wrong)
	}
}

func filesOf(t *testing.T, fsys *vfs.Mem) map[string][]byte {
	t.Helper()
	all := files(t, fsys, "/store")
	delete(all, "/store/"+layout.LockName)
	return all
}

// TestDamage damages each file of a store in every way: never is there wrong
// data, or less data without an error, and never is live data freed.
func TestDamage(t *testing.T) {
	m := makeDamageable(t)
	m.other = makeDamageable(t).files
	delete(m.files, "/store/"+layout.LockName)
	rng := rand.New(rand.NewPCG(1, 1))
	counts := map[verdict]int{}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		other, has := twin(name)
		m.eachDamage(rng, name, func(what string, data []byte) {
			files := maps.Clone(m.files)
			set(files, name, data)
			v := m.try(t, name+" "+what, files, name)
			counts[v]++
			if has && v != nothing {
				t.Errorf("%s %s: it has a copy, and damage is %s", name, what, v)
			}
		})
		if !has || name > other {
			continue
		}
		m.eachDamage(rng, name, func(what string, data []byte) {
			files := maps.Clone(m.files)
			set(files, name, data)
			set(files, other, data)
			counts[m.try(t, name+" and its copy "+what, files, name)]++
		})
	}
	t.Logf("%v", counts)
}

// TestDamage_Several damages several blocks of several files at once.
func TestDamage_Several(t *testing.T) {
	m := makeDamageable(t)
	delete(m.files, "/store/"+layout.LockName)
	names := slices.Sorted(maps.Keys(m.files))
	counts := map[verdict]int{}
	for seed := range sample.Size[uint64](5, 40, 400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		files, damaged := maps.Clone(m.files), []string{}
		for range 2 + rng.IntN(4) {
			name := names[rng.IntN(len(names))]
			data := bytes.Clone(files[name])
			if len(data) == 0 {
				continue
			}
			for range 1 + rng.IntN(3) {
				data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
			}
			files[name] = data
			damaged = append(damaged, name)
		}
		counts[m.try(t, fmt.Sprintf("seed %d: %v", seed, damaged), files, damaged...)]++
	}
	t.Logf("%v", counts)
}

func set(files map[string][]byte, name string, data []byte) {
	if data == nil {
		delete(files, name)
	} else {
		files[name] = data
	}
}

// eachDamage calls each with a file damaged in each way: one bit in each block,
// short, empty, gone, another file.
func (m *damageable) eachDamage(rng *rand.Rand, name string, each func(what string, data []byte)) {
	data := m.files[name]
	fn := func(what string, data []byte) {
		if rng.IntN(sample.Size(4, 1, 1)) == 0 {
			each(what, data)
		}
	}
	for block := 0; block*BlockLength < len(data); block++ {
		part := data[block*BlockLength : min((block+1)*BlockLength, len(data))]
		// Most of a segment is as any other part of it, and most of a journal zeros.
		often := sample.Size(16, 8, 1)
		if strings.Contains(name, layout.SegmentDir) {
			often = sample.Size(64, 32, 1)
		} else if strings.Contains(name, layout.JournalDir) && bytes.Count(part, []byte{0}) == len(part) {
			often = sample.Size(400, 200, 1)
		}
		if block > 0 && rng.IntN(often) > 0 {
			continue
		}
		bit := rng.IntN(8 * len(part))
		flipped := bytes.Clone(data)
		flipped[block*BlockLength+bit/8] ^= 1 << (bit % 8)
		fn(fmt.Sprintf("with bit %d of block %d flipped", bit, block), flipped)
	}
	if len(data) > 0 {
		fn("cut in half", bytes.Clone(data[:len(data)/2]))
		fn("emptied", []byte{})
	}
	fn("deleted", nil)
	if other := m.other[name]; other != nil {
		fn("replaced by that of another store", other)
	}
	if old := m.older[name]; old != nil && !bytes.Equal(old, data) {
		fn("replaced by an older version of itself, and so cut", old)
	}
	for other := range m.files {
		if filepath.Dir(other) == filepath.Dir(name) && other != name && other != twinOf(name) {
			fn("replaced by "+other, bytes.Clone(m.files[other]))
			break
		}
	}
}

func twinOf(name string) string {
	other, _ := twin(name)
	return other
}
