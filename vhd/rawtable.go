package vhd

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/vhd/disk"
)

// rawTable is the disk.Table of a raw disk, as the parent of others: its file is the disk.
type rawTable struct {
	size int64
	c    disk.Container // nil: nothing is written
}

func rawInfo(size int64) disk.Info {
	return disk.Info{Format: disk.Raw, Kind: disk.Fixed, Geometry: disk.Geometry{
		Size: size, BlockLength: rawUnit, SectorLength: 512, PhysicalSectorLength: blockdev.BlockLength,
	}}
}

func (t *rawTable) Info() disk.Info { return rawInfo(t.size) }

// Block implements disk.Table.
func (t *rawTable) Block(_ context.Context, i int64) (disk.Block, error) {
	return disk.Block{State: disk.Full, Offset: i * rawUnit}, nil
}

// Present implements disk.Table.
func (t *rawTable) Present(_ context.Context, _, _, count int64) (disk.Bits, error) {
	bits := make(disk.Bits, (count+7)/8)
	for k := range count {
		bits.Set(k)
	}
	return bits, nil
}

func (t *rawTable) writable() error {
	if t.c == nil {
		return blockdev.ErrReadOnly
	}
	return nil
}

// SetPresent implements disk.Table.
func (t *rawTable) SetPresent(context.Context, int64, int64, int64) error { return t.writable() }

// Allocate implements disk.Table.
func (t *rawTable) Allocate(context.Context, []int64) error { return t.writable() }

// Complete implements disk.Table.
func (t *rawTable) Complete(context.Context, []int64) error { return t.writable() }

// Free implements disk.Table: the blocks stay, as zeros.
func (t *rawTable) Free(ctx context.Context, blocks []int64) error {
	if err := t.writable(); err != nil {
		return err
	}
	for _, i := range blocks {
		if err := t.c.Unmap(ctx, i*rawUnit, min(rawUnit, t.size-i*rawUnit)); err != nil {
			return fmt.Errorf("unmap block %d: %w", i, err)
		}
	}
	return nil
}

// Changing implements disk.Table.
func (t *rawTable) Changing(context.Context) error { return t.writable() }

// Close implements disk.Table.
func (t *rawTable) Close(context.Context) error { return nil }
