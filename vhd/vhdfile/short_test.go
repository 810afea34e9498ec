package vhdfile

import (
	"bytes"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// shortened is a disk of four and a half blocks, of which the last one ends in the file
// where the disk does: some writers do not store what is beyond. Blocks 0 and 4 are
// allocated.
func shortened(t *testing.T, rest ...byte) *disktest.Memory {
	t.Helper()
	f, c := made(t, spec(disk.Dynamic, 5))
	must.Succeed(t, f.Complete(t.Context(), []int64{0, 4}))
	must.Succeed(t, f.c.WriteAt(t.Context(), bytes.Repeat([]byte{'z'}, 1<<13), f.payloadAt(4)))
	must.Succeed(t, f.Close(t.Context()))
	p := c.Bytes()
	p = p[:len(p)-footerLength-1<<13]
	return disktest.New(append(p, rest...))
}

// TestOpen_ShortLastBlock: nothing of the disk is missing, so it can be read, and
// written to once the block has its length.
func TestOpen_ShortLastBlock(t *testing.T) {
	for name, rest := range map[string][]byte{"without a footer": nil, "with a footer": shortened(t).Bytes()[:footerLength]} {
		t.Run(name, func(t *testing.T) {
			c := shortened(t, rest...)
			r, err := OpenReadOnly(t.Context(), c)
			must.Succeed(t, err)
			must.Succeed(t, r.Overlap())
			f := opened(t, c)
			wantClean(t, c)
			got := make([]byte, 1<<13)
			must.Succeed(t, c.ReadAt(t.Context(), got, f.payloadAt(4)))
			if !bytes.Equal(got, bytes.Repeat([]byte{'z'}, 1<<13)) {
				t.Error("the last block has other bytes")
			}
			must.Succeed(t, f.Free(t.Context(), []int64{4}))
			must.Succeed(t, f.Complete(t.Context(), []int64{1, 2, 3, 4}))
			must.Succeed(t, f.Close(t.Context()))
			wantClean(t, c)
		})
	}
	// A sector less is a sector of the disk.
	p := shortened(t).Bytes()
	if _, err := OpenReadOnly(t.Context(), disktest.New(p[:len(p)-sectorLength])); err == nil {
		t.Error("a disk without its last sector was opened")
	}
}
