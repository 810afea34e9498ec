package backstore

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
)

var otherStore = [16]byte{7}

// namedRun returns the run of blocks with consecutive names, of which the first is name,
// in another store.
func namedRun(name int, vals []uint32) Run {
	data := content(vals)
	r := Run{Length: int64(len(data)), Series: 9}
	for i := 0; i < len(data); i += BlockLength {
		r.Slots = append(r.Slots, uint64(1+name+i/BlockLength))
		r.CRC = append(r.CRC, crc32.Checksum(data[i:i+BlockLength], castagnoli))
	}
	return r
}

// known gives blocks of a volume content that has names in another store: new names and
// data, or names that were given before, whose blocks may be there.
func (h *history) known() {
	const perBlock = BlockLength / sector
	name := h.name()
	v, ctx := h.volume(name), context.Background()
	blocks := 1 + h.rng.IntN(40)
	at := h.rng.IntN(modelSectors/perBlock-blocks) * perBlock
	if len(h.named) == 0 || h.rng.IntN(3) == 0 {
		first, vals := len(h.named), []uint32(nil)
		for range blocks {
			h.value++
			block := slices.Repeat([]uint32{h.value%8 + h.value%3*1000}, perBlock)
			h.named, vals = append(h.named, block), append(vals, block...)
		}
		h.do(fmt.Sprintf("write known %s %d+%d", name, at, len(vals)), h.now().overwrite(name, at, vals), func(context.Context) error {
			return v.WriteKnown(ctx, otherStore, content(vals), int64(at)*sector, []Run{namedRun(first, vals)})
		})
		return
	}
	// A block at a time, each in one step.
	first := h.rng.IntN(len(h.named))
	for i, vals := range h.named[first:min(first+blocks, len(h.named))] {
		run := []Run{namedRun(first+i, vals)}
		to := int64(at+i*perBlock) * sector
		h.do(fmt.Sprintf("map known %s block %d", name, to/BlockLength), h.now().overwrite(name, at+i*perBlock, vals), func(context.Context) error {
			missing, err := v.MapKnown(ctx, otherStore, to, run)
			if err == nil && len(missing) > 0 {
				err = v.WriteKnown(ctx, otherStore, content(vals), to, run)
			}
			return err
		})
	}
}
