// Package gotgt is the one place where odx meets gotgt: Register lets a stock gotgt
// serve volumes of odx under the backing store name "odx:", Open makes any backing
// store of gotgt ("file:/path" …) a volume, and LU shows a logical unit of odx as one
// of gotgt's (api.SCSILu), whose commands are api.SCSICommand. A volume of Open shares
// no extents with anything, and a copy to or from it moves the data.
package gotgt

import (
	"context"
	"fmt"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"odx/blockdev"
)

// Name is the backing store name of our volumes in gotgt: the path of a volume
// is Name, a colon and the volume's name.
const Name = "odx"

// Volume is what gotgt needs of a volume of ours.
type Volume interface {
	blockdev.Volume
	// WriteOut has what was written outlive this process: gotgt acknowledges a
	// write when it has returned.
	WriteOut(ctx context.Context) error
}

// Register makes the volumes that open finds by name gotgt's backing store
// "odx". gotgt keeps one such table for the process, without a lock: call it
// once, before gotgt opens its logical units. The volumes stay the caller's,
// which closes them after gotgt has stopped.
func Register(open func(name string) (Volume, error)) {
	gotgt.RegisterBackingStore(Name, func() (api.BackingStore, error) {
		return &backing{open: open}, nil
	})
}

// backing is a volume of ours as an api.BackingStore. gotgt has no way to abort
// an access, hence the background contexts.
type backing struct {
	open   func(name string) (Volume, error)
	volume Volume
}

// Open finds the volume; path is its name.
func (b *backing) Open(_ *api.SCSILu, path string) error {
	v, err := b.open(path)
	if err != nil {
		return fmt.Errorf("volume %q: %w", path, err)
	}
	b.volume = v
	return nil
}

// Close makes what was written durable.
func (b *backing) Close(*api.SCSILu) error { return b.volume.Flush(context.Background()) }

// Init and Exit have nothing to do: Open and Close do it.
func (b *backing) Init(*api.SCSILu, string) error { return nil }
func (b *backing) Exit(*api.SCSILu) error         { return nil }

// Size returns the capacity in bytes.
func (b *backing) Size(*api.SCSILu) uint64 { return uint64(b.volume.Size()) }

// Read returns length bytes from offset.
func (b *backing) Read(offset, length int64) ([]byte, error) {
	p := make([]byte, length)
	if err := b.volume.ReadAt(context.Background(), p, offset); err != nil {
		return nil, err
	}
	return p, nil
}

// Write writes p at offset.
func (b *backing) Write(p []byte, offset int64) error {
	if err := b.volume.WriteAt(context.Background(), p, offset); err != nil {
		return err
	}
	return b.volume.WriteOut(context.Background())
}

// DataSync makes every write durable, whichever range is asked for.
func (b *backing) DataSync(_, _ int64) error { return b.volume.Flush(context.Background()) }

// DataAdvise takes advice on future access and has no use for it.
func (b *backing) DataAdvise(int64, int64, uint32) error { return nil }

// Unmap gives ranges back; gotgt has their offsets and lengths in bytes.
func (b *backing) Unmap(ranges []api.UnmapBlockDescriptor) error {
	for _, r := range ranges {
		if err := b.volume.Unmap(context.Background(), int64(r.Offset), int64(r.TL)); err != nil {
			return err
		}
	}
	return b.volume.WriteOut(context.Background())
}
