package gotgt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // registers "file" and "null"

	"odx/backstore/fence"
	"odx/blockdev"
)

// zeroChunk bounds the memory of Unmap, in bytes.
const zeroChunk = 1 << 20

// External is a backing store of gotgt as a volume. Like gotgt, which serves one
// logical unit to several connections, it counts on the store to bear concurrent
// access.
//
// A write in the kernel does not come back before it is done. While one is there
// whose context has ended, reads and writes of its range return blockdev.ErrBusy.
type External struct {
	path   string
	dev    *api.SCSILu
	store  api.BackingStore
	size   int64
	writes fence.Writes
}

// Open opens a backing store by gotgt's notation NAME:PATH, for example
// "file:/var/lib/disk.img".
func Open(path string) (*External, error) {
	name, rest, ok := strings.Cut(path, ":")
	if !ok || name == "" {
		return nil, fmt.Errorf("backing store %q: want NAME:PATH, for example file:/var/lib/disk.img: %w", path, blockdev.ErrInvalid)
	}
	store, err := gotgt.NewBackingStore(name)
	if err != nil {
		return nil, fmt.Errorf("backing store %q: %w", path, err)
	}
	dev := &api.SCSILu{Path: path, BlockShift: api.DefaultBlockShift}
	if err := store.Open(dev, rest); err != nil {
		return nil, fmt.Errorf("backing store %q: %w", path, err)
	}
	return &External{path: path, dev: dev, store: store, size: int64(store.Size(dev))}, nil
}

// Size returns the capacity in bytes that the store had when it was opened.
func (e *External) Size() int64 { return e.size }

// ReadAt fills p from off.
func (e *External) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := e.check(ctx, off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	if err := e.writes.Check(off, int64(len(p))); err != nil {
		return fmt.Errorf("%s: read: %w", e.path, err)
	}
	data, err := e.store.Read(off, int64(len(p)))
	if err != nil {
		return fmt.Errorf("%s: read %d bytes at %d: %w", e.path, len(p), off, err)
	}
	if copy(p, data) < len(p) {
		return fmt.Errorf("%s: read %d bytes at %d, got %d: %w", e.path, len(p), off, len(data), io.ErrUnexpectedEOF)
	}
	return nil
}

// WriteAt writes p at off.
func (e *External) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := e.check(ctx, off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	slot, err := e.writes.Begin(ctx, off, int64(len(p)))
	if err != nil {
		return fmt.Errorf("%s: write: %w", e.path, err)
	}
	err = e.store.Write(p, off)
	e.writes.End(slot)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: write %d bytes at %d: %w", e.path, len(p), off, err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errors.Join(blockdev.ErrNoSpace, err)
	}
	return err
}

// Unmap writes zeros: what a store of gotgt does on Unmap is its own affair (that
// of "file" is to do nothing), and the range has to read as zeros.
func (e *External) Unmap(ctx context.Context, off, length int64) error {
	if err := e.check(ctx, off, length); err != nil {
		return err
	}
	zeros := make([]byte, min(length, zeroChunk))
	for length > 0 {
		n := min(length, zeroChunk)
		if err := e.WriteAt(ctx, zeros[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// Flush makes every write that returned before it durable.
func (e *External) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.store.DataSync(0, e.size); err != nil {
		return fmt.Errorf("%s: flush: %w", e.path, err)
	}
	return nil
}

// Close closes the store. Nothing may use the volume any more.
func (e *External) Close() error {
	if err := e.store.Close(e.dev); err != nil {
		return fmt.Errorf("%s: close: %w", e.path, err)
	}
	return nil
}

// check refuses a range outside the store and a context that ended.
func (e *External) check(ctx context.Context, off, length int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !(blockdev.Range{Offset: off, Length: length}).In(e.size) {
		return fmt.Errorf("%s: %d bytes at %d: %w", e.path, length, off, blockdev.ErrRange)
	}
	return nil
}
