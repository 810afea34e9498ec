package vhdxfile

import (
	"context"
	"fmt"

	"odx/vhd/disk"
)

// Defaults of a new disk in bytes.
const (
	defaultBlockLength    = 32 * mib
	defaultSectorLength   = 512
	defaultPhysicalLength = 4096
	newLogLength          = 1 * mib
)

// Layout of a new file in bytes. The payload follows the BAT.
const (
	newLogAt      = headerSection
	newMetadataAt = newLogAt + newLogLength
	newBATAt      = newMetadataAt + 1*mib
)

// Create creates an empty virtual disk in c, which it first truncates. After a crash
// before it returns, c is not a virtual disk. Until the disk is closed, its table
// counts toward the bound of t.
func (t *Tables) Create(ctx context.Context, c disk.Container, s disk.Spec) (*File, error) {
	m, err := newMetadata(s)
	if err != nil {
		return nil, err
	}
	items, err := m.encode()
	if err != nil {
		return nil, err
	}
	shape := tableOf(m.Geometry, m.kind)
	payload := roundUp(newBATAt+shape.length(), min(m.BlockLength, mapSpan))
	size := payload
	if m.kind == disk.Fixed {
		size += shape.blocks * m.BlockLength
	}
	for _, n := range []int64{0, size} {
		if err := c.Truncate(ctx, n); err != nil {
			return nil, fmt.Errorf("truncate the file to %d bytes: %w", n, err)
		}
	}
	if err := c.WriteAt(ctx, items, newMetadataAt); err != nil {
		return nil, fmt.Errorf("write the metadata: %w", err)
	}
	if m.kind == disk.Fixed {
		if err := writeBAT(ctx, c, shape, payload, m.BlockLength); err != nil {
			return nil, fmt.Errorf("write the block allocation table: %w", err)
		}
	}
	r := regions{bat: region{newBATAt, payload - newBATAt}, metadata: region{newMetadataAt, newBATAt - newMetadataAt}}
	if err := writeHeaders(ctx, c, r, orNew(s.ID)); err != nil {
		return nil, fmt.Errorf("write the headers: %w", err)
	}
	f, err := t.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	// The creator of the disk fills it under the initial identifiers.
	f.wrote, f.changed = true, true
	return f, nil
}

// Create is Tables.Create with a bound of 16 MiB.
func Create(ctx context.Context, c disk.Container, s disk.Spec) (*File, error) {
	return NewTables(defaultBound).Create(ctx, c, s)
}

// newMetadata validates the specification of a disk and sets the defaults.
func newMetadata(s disk.Spec) (metadata, error) {
	m := metadata{Geometry: s.Geometry, kind: s.Kind, diskID: orNew(s.DiskID)}
	for _, d := range []struct {
		value    *int64
		fallback int64
	}{{&m.BlockLength, defaultBlockLength}, {&m.SectorLength, defaultSectorLength}, {&m.PhysicalSectorLength, defaultPhysicalLength}} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if err := checkGeometry(m.Geometry); err != nil {
		return metadata{}, err
	}
	switch differencing := s.Kind == disk.Differencing; {
	case s.Kind < disk.Fixed || s.Kind > disk.Differencing:
		return metadata{}, invalid("disk kind %d", s.Kind)
	case differencing != (s.Parent != nil):
		return metadata{}, invalid("a differencing disk without a parent, nor a parent of another kind")
	case differencing:
		var err error
		if m.parent, err = newLocator(*s.Parent); err != nil {
			return metadata{}, err
		}
	}
	return m, nil
}

// orNew returns the identifier, or a random one if it is zero.
func orNew(g disk.GUID) disk.GUID {
	if g == (disk.GUID{}) {
		return newGUID()
	}
	return g
}

// writeBAT writes the BAT of a fixed disk, whose blocks are contiguous.
func writeBAT(ctx context.Context, c disk.Container, t table, payload, blockLength int64) error {
	const part = 1 << 17 // entries
	buf := make([]byte, 8*min(part, t.count))
	for first := int64(0); first < t.count; first += part {
		p := buf[:8*min(part, t.count-first)]
		clear(p)
		for n := range int64(len(p) / 8) {
			if i, r := t.at(first + n); r == ofPayload {
				le.PutUint64(p[8*n:], entry(fullyPresent, payload+i*blockLength))
			}
		}
		if err := c.WriteAt(ctx, p, newBATAt+8*first); err != nil {
			return err
		}
	}
	return nil
}

// writeHeaders writes the headers, which complete a virtual disk.
func writeHeaders(ctx context.Context, c disk.Container, r regions, id disk.GUID) error {
	for n := range 2 {
		if err := c.WriteAt(ctx, r.encode(), regionTableAt(n)); err != nil {
			return err
		}
	}
	if err := c.Barrier(ctx); err != nil {
		return err
	}
	h := header{fileWrite: newGUID(), dataWrite: id, version: 1, logLength: newLogLength, logOffset: newLogAt}
	for n := range 2 {
		h.sequence = uint64(n + 1)
		if err := c.WriteAt(ctx, h.encode(), headerAt(n)); err != nil {
			return err
		}
	}
	identifier := make([]byte, len(fileSignature)+creatorLength)
	copy(identifier, fileSignature)
	copy(identifier[len(fileSignature):], toUTF16("odx"))
	if err := c.WriteAt(ctx, identifier, 0); err != nil {
		return err
	}
	return c.Barrier(ctx)
}
