package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

const (
	minChunk = 64 << 10
	// maxChunks bounds the memory for the bitmap of copied chunks.
	maxChunks = 1 << 24
	// groupChunks is the number of chunks per record, a bit each.
	groupChunks = 4096
)

// OriginConfig describes an origin.
type OriginConfig struct {
	// Name is the name of the view, and the prefix of its records' keys.
	Name string
	Of   Device
	// Before is a volume of the store for chunks to be overwritten, of at least
	// OriginBytes(Of.Size()) bytes. The records have its copied chunks.
	Before  blockdev.Volume
	Engine  *offload.Engine
	Records Records
}

// Origin is a device with a Snapshot: before a chunk changes for the first time, it is
// copied to another volume (copy-on-write). In the store the copy is a mapping and
// moves no bytes, for writes and for copies by token.
//
// The copy, its record and the change are ordered by the store, so that after a crash
// the change exists only with the record, and the record only with the copy. A device
// outside the store is not in that order, so a change of it waits until the record is
// durable.
type Origin struct {
	OriginConfig
	chunk  int64 // bytes, a power of two
	shared bool  // Of is in the store

	// regions: shared to read the snapshot, exclusive to change the device.
	regions regions

	mu     sync.Mutex // guards copied, which changes with its region locked, too
	copied []uint64   // a bit for each chunk
	saving sync.Mutex // held while records are written: groups span regions
}

// OriginBytes returns the minimum size of the Before volume of a device of size bytes.
func OriginBytes(size int64) int64 {
	return (size + blockdev.BlockLength - 1) / blockdev.BlockLength * blockdev.BlockLength
}

// OpenOrigin returns an origin with the copied chunks of its records.
func OpenOrigin(c OriginConfig) (*Origin, error) {
	size := c.Of.Size()
	if c.Before.Size() < OriginBytes(size) {
		return nil, fmt.Errorf("%w: view %s: the volume for overwritten data has to have %d bytes, has %d", blockdev.ErrInvalid, c.Name, size, c.Before.Size())
	}
	v := &Origin{OriginConfig: c, chunk: minChunk, shared: c.Engine.Shares(inner{c.Of})}
	for size/v.chunk > maxChunks {
		v.chunk *= 2
	}
	groups := (size/v.chunk)/groupChunks + 1
	v.copied = make([]uint64, groups*groupChunks/64)
	prefix := recordKey(c.Name, "copied/")
	err := c.Records.ScanRecords(prefix, func(key, value []byte) error {
		number := key[len(prefix):]
		if len(number) != 8 || len(value) != groupChunks/8 || binary.BigEndian.Uint64(number) >= uint64(groups) {
			return fmt.Errorf("%w: record of view %s", blockdev.ErrCorrupt, c.Name)
		}
		words := v.group(int64(binary.BigEndian.Uint64(number)))
		for i := range words {
			words[i] = binary.LittleEndian.Uint64(value[8*i:])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Origin) group(n int64) []uint64 {
	const words = groupChunks / 64
	return v.copied[n*words : (n+1)*words]
}

// hold locks the regions of the chunks of a range.
func (v *Origin) hold(off, length int64) span {
	first := off / v.chunk * v.chunk
	end := (off + length + v.chunk - 1) / v.chunk * v.chunk
	return v.regions.of(first, end-first)
}

// run returns the number of bytes from off on, at most length, in chunks that are all
// copied or all not copied.
func (v *Origin) run(off, length int64) (n int64, copied bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	is := func(chunk int64) bool { return v.copied[chunk/64]&(1<<(chunk%64)) != 0 }
	copied = is(off / v.chunk)
	for at := (off/v.chunk + 1) * v.chunk; at < off+length; at += v.chunk {
		if is(at/v.chunk) != copied {
			return at - off, copied
		}
	}
	return length, copied
}

// copier implements copying. Between volumes of the store, preserve moves no bytes.
func (v *Origin) copier(off, length int64) *offload.Engine {
	if !v.shared && length > 0 {
		if n, copied := v.run(off, length); !copied || n < length {
			return v.Engine
		}
	}
	return copierOf(v.Of, off, length)
}

// preserve copies the chunks of a range that are not copied. Their regions are locked
// exclusively.
func (v *Origin) preserve(ctx context.Context, off, length int64) error {
	first := off / v.chunk * v.chunk
	end := min((off+length+v.chunk-1)/v.chunk*v.chunk, v.Of.Size())
	any := false
	for at := first; at < end; {
		n, copied := v.run(at, end-at)
		if !copied {
			if err := v.Engine.Copy(ctx, inner{v.Of}, at, v.Before, at, n, func(int64) {}); err != nil {
				return fmt.Errorf("view %s: copy data to be overwritten: %w", v.Name, err)
			}
			if err := v.note(ctx, at, n); err != nil {
				return fmt.Errorf("view %s: record copied chunks: %w", v.Name, err)
			}
			any = true
		}
		at += n
	}
	if any && !v.shared {
		return v.Records.Flush(ctx)
	}
	return nil
}

// note records the chunks of a range as copied.
func (v *Origin) note(ctx context.Context, off, length int64) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	first, end := off/v.chunk, (off+length+v.chunk-1)/v.chunk
	for first < end {
		group := first / groupChunks
		last := min(end, (group+1)*groupChunks)
		value := make([]byte, groupChunks/8)
		for i, word := range v.group(group) { // changes with only saving held
			binary.LittleEndian.PutUint64(value[8*i:], word)
		}
		for c := first; c < last; c++ {
			value[c%groupChunks/8] |= 1 << (c % 8)
		}
		key := binary.BigEndian.AppendUint64(recordKey(v.Name, "copied/"), uint64(group))
		if err := v.Records.PutRecords(ctx, backstore.Record{Key: key, Value: value}); err != nil {
			return err
		}
		v.mu.Lock()
		for c := first; c < last; c++ {
			v.copied[c/64] |= 1 << (c % 64)
		}
		v.mu.Unlock()
		first = last
	}
	return nil
}

// Size implements Volume.
func (v *Origin) Size() int64 { return v.Of.Size() }

// Backing implements Device.
func (v *Origin) Backing() []blockdev.Volume { return v.Of.Backing() }

// Flush implements Volume.
func (v *Origin) Flush(ctx context.Context) error {
	if err := v.Before.Flush(ctx); err != nil {
		return err
	}
	return v.Of.Flush(ctx)
}

// ReadAt implements Volume.
func (v *Origin) ReadAt(ctx context.Context, p []byte, off int64) error {
	return v.Of.ReadAt(ctx, p, off)
}

// WriteAt implements Volume.
func (v *Origin) WriteAt(ctx context.Context, p []byte, off int64) error {
	held := v.hold(off, int64(len(p)))
	held.lock()
	defer held.unlock()
	if err := v.preserve(ctx, off, int64(len(p))); err != nil {
		return err
	}
	return v.Of.WriteAt(ctx, p, off)
}

// Unmap implements Volume.
func (v *Origin) Unmap(ctx context.Context, off, length int64) error {
	for length > 0 {
		n := min(length, mapStep)
		if err := v.unmapStep(ctx, off, n); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

func (v *Origin) unmapStep(ctx context.Context, off, length int64) error {
	held := v.hold(off, length)
	held.lock()
	defer held.unlock()
	if err := v.preserve(ctx, off, length); err != nil {
		return err
	}
	return v.Of.Unmap(ctx, off, length)
}

// Map implements Device.
func (v *Origin) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	length = min(length, mapStep)
	held := v.hold(dst, length)
	held.lock()
	defer held.unlock()
	if err := v.preserve(ctx, dst, length); err != nil {
		return 0, err
	}
	return v.Of.Map(ctx, dst, s, src, length)
}

// Locate implements Device.
func (v *Origin) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	return v.Of.Locate(ctx, off, length)
}

// Copied returns the number of bytes copied since the snapshot was created, in whole
// chunks.
func (v *Origin) Copied() (n int64) {
	for off, size := int64(0), v.Size(); off < size; {
		length, copied := v.run(off, size-off)
		if copied {
			n += length
		}
		off += length
	}
	return n
}

// Snapshot is a read-only view of an Origin at its creation: reads of overwritten
// chunks use their copies.
type Snapshot struct{ origin *Origin }

// NewSnapshot returns the snapshot of an origin.
func NewSnapshot(o *Origin) *Snapshot { return &Snapshot{o} }

var errSnapshot = errors.New("a snapshot is read-only")

func (v *Snapshot) readOnly() error {
	return fmt.Errorf("snapshot of view %s: %w: %w", v.origin.Name, blockdev.ErrReadOnly, errSnapshot)
}

// Size implements Volume.
func (v *Snapshot) Size() int64 { return v.origin.Size() }

// Backing implements Device.
func (v *Snapshot) Backing() []blockdev.Volume {
	return append(v.origin.Backing(), v.origin.Before)
}

// Flush implements Volume.
func (v *Snapshot) Flush(ctx context.Context) error { return v.origin.Flush(ctx) }

// ReadAt implements Volume.
func (v *Snapshot) ReadAt(ctx context.Context, p []byte, off int64) error {
	o := v.origin
	held := o.hold(off, int64(len(p)))
	held.rlock()
	defer held.runlock()
	for len(p) > 0 {
		n, copied := o.run(off, int64(len(p)))
		var from blockdev.Volume = o.Of
		if copied {
			from = o.Before
		}
		if err := from.ReadAt(ctx, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WriteAt implements Volume.
func (v *Snapshot) WriteAt(context.Context, []byte, int64) error { return v.readOnly() }

// Unmap implements Volume.
func (v *Snapshot) Unmap(context.Context, int64, int64) error { return v.readOnly() }

// Map implements Device.
func (v *Snapshot) Map(context.Context, int64, offload.Snapshot, int64, int64) (int64, error) {
	return 0, v.readOnly()
}

// Locate implements Device. The pieces are valid until the origin is written.
func (v *Snapshot) Locate(ctx context.Context, off, length int64) (all []offload.Piece, err error) {
	for length > 0 && len(all) < MaxPieces {
		n, copied := v.origin.run(off, length)
		pieces := []offload.Piece{{Volume: v.origin.Before, Offset: off, Length: n}}
		if !copied {
			if pieces, err = v.origin.Of.Locate(ctx, off, n); err != nil {
				return nil, err
			}
		}
		all = append(all, pieces...)
		for _, p := range pieces {
			off, length, n = off+p.Length, length-p.Length, n-p.Length
		}
		if n > 0 {
			break
		}
	}
	return all, nil
}
