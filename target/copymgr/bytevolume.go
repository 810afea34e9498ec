package copymgr

import (
	"context"

	"odx/blockdev"
)

// bytes returns the volume of a logical unit with access by bytes, not only whole
// blocks. The volumes of the store support that themselves.
func (u *logicalUnit) bytes() blockdev.Volume {
	if u.mapped.Load() {
		return u.lu.Volume()
	}
	return byteVolume{u.lu.Volume(), int64(u.lu.LogicalBlockLength())}
}

// byteVolume gives byte access to a Volume of whole blocks. A write reads, changes and
// writes the blocks at its ends: a concurrent write to the same block can be lost, as
// on any disk without such a command.
type byteVolume struct {
	blockdev.Volume
	block int64
}

// around returns the range of whole blocks that includes a range.
func (v byteVolume) around(off, length int64) (first, size int64) {
	first = off / v.block * v.block
	return first, (off+length+v.block-1)/v.block*v.block - first
}

func (v byteVolume) aligned(off, length int64) bool { return off%v.block == 0 && length%v.block == 0 }

// ReadAt implements tokens.Volume.
func (v byteVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if v.aligned(off, int64(len(p))) {
		return v.Volume.ReadAt(ctx, p, off)
	}
	first, size := v.around(off, int64(len(p)))
	buf := make([]byte, size)
	if err := v.Volume.ReadAt(ctx, buf, first); err != nil {
		return err
	}
	copy(p, buf[off-first:])
	return nil
}

// WriteAt implements tokens.Volume.
func (v byteVolume) WriteAt(ctx context.Context, p []byte, off int64) error {
	if v.aligned(off, int64(len(p))) {
		return v.Volume.WriteAt(ctx, p, off)
	}
	first, size := v.around(off, int64(len(p)))
	buf := make([]byte, size)
	if err := v.Volume.ReadAt(ctx, buf[:v.block], first); err != nil {
		return err
	}
	if last := size - v.block; last > 0 {
		if err := v.Volume.ReadAt(ctx, buf[last:], first+last); err != nil {
			return err
		}
	}
	copy(buf[off-first:], p)
	return v.Volume.WriteAt(ctx, buf, first)
}
