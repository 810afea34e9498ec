// Package offloadtest has an in-memory twin of the extent store, for tests of the copy
// engine and of what copies with it: volumes and snapshots are plain byte slices, Map
// copies. It keeps the store's promises about atomic steps and durability: Crash
// returns the store as a power cut would leave it.
package offloadtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/zeebo/blake3"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

// Store implements offload.Store and tokens.Store.
type Store struct {
	id        [16]byte
	mapLength atomic.Int64
	hook      atomic.Pointer[func(op string) error]

	mu       sync.Mutex
	now      state // what calls see
	durable  state // what a crash leaves
	open     int   // snapshot handles
	makeRoom func(context.Context, int64) bool
}

// state is everything that a store keeps.
type state struct {
	next      uint64
	volumes   map[string]*Volume
	snapshots map[uint64][]byte // contents are immutable
	origins   map[uint64]origin
	records   map[string][]byte
}

// origin is what a snapshot was taken of.
type origin struct {
	volume [16]byte
	ranges []blockdev.Range
}

func (s state) clone() state {
	s.origins = maps.Clone(s.origins)
	s.volumes, s.snapshots, s.records = maps.Clone(s.volumes), maps.Clone(s.snapshots), maps.Clone(s.records)
	return s
}

// NewStore returns an empty store.
func NewStore(id [16]byte) *Store {
	s := &Store{id: id}
	s.now = state{volumes: map[string]*Volume{}, snapshots: map[uint64][]byte{}, origins: map[uint64]origin{}, records: map[string][]byte{}}
	s.durable = s.now.clone()
	return s
}

// FailWith sets a hook that every method which changes the store calls first, with its
// own name. If the hook returns an error, the method returns that error and changes
// nothing. nil removes the hook. It may be set while other methods run, and is called
// by several goroutines if several change the store.
func (s *Store) FailWith(hook func(op string) error) {
	if hook == nil {
		s.hook.Store(nil)
		return
	}
	s.hook.Store(&hook)
}

// MapAtMost makes each Map stop after at most so many bytes; 0 removes the limit. It
// may be called while commands run.
func (s *Store) MapAtMost(bytes int64) { s.mapLength.Store(bytes) }

// Crash returns the store as it is after a power cut: what was not flushed is
// gone. Volumes keep what was written to them.
func (s *Store) Crash() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Store{id: s.id, now: s.durable.clone(), durable: s.durable.clone()}
	for name, v := range c.now.volumes {
		c.now.volumes[name] = &Volume{store: c, id: v.id, name: name, data: slices.Clone(v.data)}
	}
	return c
}

// Restart drops what a store keeps only in memory, as closing and opening it does.
func (s *Store) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.now.volumes {
		v.watches = nil
	}
}

// Snapshots returns how many snapshots exist, and how many handles are open.
func (s *Store) Snapshots() (exist, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.now.snapshots), s.open
}

// Records returns how many records have a key that begins with prefix.
func (s *Store) Records(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k := range s.now.records {
		if strings.HasPrefix(k, prefix) {
			n++
		}
	}
	return n
}

// NewVolume creates a volume of size bytes.
func (s *Store) NewVolume(name string, size int64) *Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.next++
	v := &Volume{store: s, name: name, data: make([]byte, size)}
	binary.BigEndian.PutUint64(v.id[:], s.now.next)
	s.now.volumes[name], s.durable.volumes[name] = v, v
	return v
}

// DeleteVolume deletes a volume; its snapshots stay.
func (s *Store) DeleteVolume(ctx context.Context, name string) error {
	s.mu.Lock()
	v := s.now.volumes[name]
	s.mu.Unlock()
	if v == nil {
		return fmt.Errorf("volume %s: %w", name, backstore.ErrNotFound)
	}
	return v.change(ctx, 0, v.Size(), func() error {
		delete(s.now.volumes, name)
		delete(s.durable.volumes, name)
		v.deleted = true
		return nil
	})
}

// Volume returns the volume of that name, nil if there is none.
func (s *Store) Volume(name string) *Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.volumes[name]
}

// Volumes returns the names of the volumes, sorted.
func (s *Store) Volumes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.now.volumes))
}

func (s *Store) fail(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if hook := s.hook.Load(); hook != nil {
		return (*hook)(op)
	}
	return nil
}

func (s *Store) put(recs []backstore.Record) {
	for _, r := range recs {
		if r.Value == nil {
			delete(s.now.records, string(r.Key))
			continue
		}
		s.now.records[string(r.Key)] = bytes.Clone(r.Value)
	}
}

// ID implements tokens.Store.
func (s *Store) ID() [16]byte { return s.id }

// WriteOut implements offload.Store. The twin has nothing that the end of a process
// loses.
func (s *Store) WriteOut(ctx context.Context) error { return s.fail(ctx, "WriteOut") }

// Flush implements tokens.Store.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.fail(ctx, "Flush"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = s.now.clone()
	return nil
}

// Snapshot implements tokens.Store.
func (s *Store) Snapshot(id uint64) (offload.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.now.snapshots[id]
	if !ok {
		return nil, fmt.Errorf("snapshot %d: %w", id, backstore.ErrNotFound)
	}
	s.open++
	return &snapshot{store: s, id: id, data: data}, nil
}

// DeleteSnapshot implements offload.Store.
func (s *Store) DeleteSnapshot(ctx context.Context, id uint64, recs ...backstore.Record) error {
	if err := s.fail(ctx, "DeleteSnapshot"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.now.snapshots[id]; !ok {
		return fmt.Errorf("snapshot %d: %w", id, backstore.ErrNotFound)
	}
	delete(s.now.snapshots, id)
	delete(s.now.origins, id)
	s.put(recs)
	return nil
}

// HeldBytes implements tokens.Store: a snapshot holds the blocks of 4 KiB that have
// changed in its volume since, and shares them with no other snapshot.
func (s *Store) HeldBytes(ctx context.Context, snapshots []uint64) (backstore.Held, error) {
	h := backstore.Held{Each: make([]int64, len(snapshots))}
	if err := s.fail(ctx, "HeldBytes"); err != nil {
		return h, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range snapshots {
		h.Each[i] = s.held(id)
		h.Total += h.Each[i]
	}
	return h, nil
}

func (s *Store) held(id uint64) int64 {
	data, from := s.now.snapshots[id], s.now.origins[id]
	var source *Volume
	for _, v := range s.now.volumes {
		if v.id == from.volume {
			source = v
		}
	}
	var held int64
	for _, r := range from.ranges {
		for r.Length > 0 {
			n := min(r.Length, blockdev.BlockLength)
			if source == nil || !bytes.Equal(source.data[r.Offset:r.Offset+n], data[:n]) {
				held += n
			}
			r.Offset, r.Length, data = r.Offset+n, r.Length-n, data[n:]
		}
	}
	return held
}

// OnFull implements tokens.Store. The twin is never full; Full calls makeRoom.
func (s *Store) OnFull(makeRoom func(context.Context, int64) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom = makeRoom
}

// Full calls the function of OnFull, as a write of length bytes that does not fit does,
// and returns its result.
func (s *Store) Full(ctx context.Context, length int64) bool {
	s.mu.Lock()
	makeRoom := s.makeRoom
	s.mu.Unlock()
	return makeRoom(ctx, length)
}

// PutRecords implements offload.Store.
func (s *Store) PutRecords(ctx context.Context, recs ...backstore.Record) error {
	if err := s.fail(ctx, "PutRecords"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(recs)
	return nil
}

// GetRecord implements tokens.Store.
func (s *Store) GetRecord(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.now.records[string(key)]
	if !ok {
		return nil, fmt.Errorf("record %q: %w", key, backstore.ErrNotFound)
	}
	return bytes.Clone(v), nil
}

// ScanRecords implements offload.Store.
func (s *Store) ScanRecords(prefix []byte, fn func(key, value []byte) error) error {
	s.mu.Lock()
	records := maps.Clone(s.now.records)
	s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(records)) {
		if !strings.HasPrefix(k, string(prefix)) {
			continue
		}
		if err := fn([]byte(k), bytes.Clone(records[k])); err != nil {
			return err
		}
	}
	return nil
}

// Object implements offload.Store.
func (s *Store) Object(v blockdev.Volume) (offload.Object, bool) {
	own, ok := v.(*Volume)
	return own, ok && own.store == s
}

// ObjectByID implements tokens.Store.
func (s *Store) ObjectByID(id [16]byte) (offload.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.now.volumes {
		if v.id == id {
			return v, nil
		}
	}
	return nil, fmt.Errorf("volume %x: %w", id, backstore.ErrNotFound)
}

// Objects implements tokens.Store.
func (s *Store) Objects() []offload.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var objects []offload.Object
	for _, name := range slices.Sorted(maps.Keys(s.now.volumes)) {
		objects = append(objects, s.now.volumes[name])
	}
	return objects
}

// digest implements offload.Digest.
type digest struct{ *blake3.Hasher }

func (d digest) Sum() (sum [32]byte) {
	d.Hasher.Sum(sum[:0])
	return sum
}

// NewDigest implements tokens.Store.
func (s *Store) NewDigest() offload.Digest {
	h := blake3.New()
	h.Write(s.id[:])
	return digest{h}
}

// CreateStage implements offload.Store.
func (s *Store) CreateStage(ctx context.Context, name string, size int64) (offload.Object, error) {
	if err := s.fail(ctx, "CreateStage"); err != nil {
		return nil, err
	}
	return s.NewVolume(name, size), nil
}

// DeleteStages implements offload.Store.
func (s *Store) DeleteStages(ctx context.Context, prefix string) error {
	if err := s.fail(ctx, "DeleteStages"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.now.volumes {
		if strings.HasPrefix(name, prefix) {
			delete(s.now.volumes, name)
			delete(s.durable.volumes, name)
		}
	}
	return nil
}

// snapshot implements offload.Snapshot.
type snapshot struct {
	store *Store
	id    uint64
	data  []byte
}

func (s *snapshot) ID() uint64    { return s.id }
func (s *snapshot) Length() int64 { return int64(len(s.data)) }
func (s *snapshot) Release() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.open--
}

func (s *snapshot) Digest(ctx context.Context, off, length int64) ([32]byte, error) {
	if err := check(ctx, s.data, off, length); err != nil {
		return [32]byte{}, err
	}
	d := s.store.NewDigest()
	d.Write(s.data[off : off+length])
	return d.Sum(), nil
}

func (s *snapshot) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := check(ctx, s.data, off, int64(len(p))); err != nil {
		return err
	}
	copy(p, s.data[off:])
	return nil
}

func check(ctx context.Context, data []byte, off, length int64) error {
	if !(blockdev.Range{Offset: off, Length: length}).In(int64(len(data))) {
		return fmt.Errorf("%w: %d bytes at %d of %d", blockdev.ErrRange, length, off, len(data))
	}
	return ctx.Err()
}

// Watches returns the number of watches over the volume of that name.
func (s *Store) Watches(volume string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.now.volumes[volume].watches)
}
