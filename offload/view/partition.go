package view

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/offload"
)

// partition is a range of a device.
type partition struct {
	of            Device
	start, length int64
}

// NewPartition returns the length bytes from start of a device.
func NewPartition(of Device, start, length int64) (Device, error) {
	if size := of.Size(); length == 0 || !(blockdev.Range{Offset: start, Length: length}).In(size) {
		return nil, fmt.Errorf("%w: partition of %d bytes at %d, on %d bytes", blockdev.ErrRange, length, start, size)
	}
	return &partition{of, start, length}, nil
}

func (v *partition) Size() int64                     { return v.length }
func (v *partition) Flush(ctx context.Context) error { return v.of.Flush(ctx) }
func (v *partition) Backing() []blockdev.Volume      { return v.of.Backing() }

func (v *partition) ReadAt(ctx context.Context, p []byte, off int64) error {
	return blockdev.Translate(v.of.ReadAt(ctx, p, v.start+off), -v.start)
}

func (v *partition) WriteAt(ctx context.Context, p []byte, off int64) error {
	return v.of.WriteAt(ctx, p, v.start+off)
}

func (v *partition) Unmap(ctx context.Context, off, length int64) error {
	return v.of.Unmap(ctx, v.start+off, length)
}

func (v *partition) copier(off, length int64) *offload.Engine {
	return copierOf(v.of, v.start+off, length)
}

func (v *partition) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	return v.of.Locate(ctx, v.start+off, length)
}

func (v *partition) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	return v.of.Map(ctx, v.start+dst, s, src, length)
}
