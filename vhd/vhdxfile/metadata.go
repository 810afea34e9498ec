package vhdxfile

import (
	"cmp"
	"context"
	"maps"
	"math/bits"
	"slices"

	"odx/vhd/disk"
)

// metadata has the values of the metadata items (MS-VHDX 2.6.2).
type metadata struct {
	disk.Geometry
	diskID disk.GUID
	kind   disk.Kind
	parent *locator
}

// Flags of an entry of the metadata table (MS-VHDX 2.6.1.2) and of the file parameters
// (2.6.2.1).
const (
	isUser        = 1
	isVirtualDisk = 2
	isRequired    = 4

	leaveBlockAllocated = 1
	hasParent           = 2
)

// Bounds of the metadata table (MS-VHDX 2.6.1).
const (
	metadataTableLength = 64 * kib
	// metadataEntryLength is that of an entry of the table, and of its header.
	metadataEntryLength = 32
	maxItems            = 2047
	maxItemLength       = 1 * mib
)

// item is an entry of the metadata table with its data.
type item struct {
	id             disk.GUID
	offset, length uint32 // in bytes, from the start of the region
	flags          uint32
	data           []byte // of known items
}

// encode encodes the metadata region of a new file.
func (m metadata) encode() ([]byte, error) {
	flags := map[disk.Kind]uint32{disk.Fixed: leaveBlockAllocated, disk.Differencing: hasParent}[m.kind]
	u32 := func(v ...uint32) (p []byte) {
		for _, v := range v {
			p = le.AppendUint32(p, v)
		}
		return p
	}
	id := make([]byte, 16)
	putGUID(id, m.diskID)
	items := []item{
		{id: mustGUID(fileParametersItem), flags: isRequired, data: u32(uint32(m.BlockLength), flags)},
		{id: mustGUID(virtualDiskSizeItem), flags: isRequired | isVirtualDisk, data: le.AppendUint64(nil, uint64(m.Size))},
		{id: mustGUID(virtualDiskIDItem), flags: isRequired | isVirtualDisk, data: id},
		{id: mustGUID(logicalSectorSizeItem), flags: isRequired | isVirtualDisk, data: u32(uint32(m.SectorLength))},
		{id: mustGUID(physicalSectorSizeItem), flags: isRequired | isVirtualDisk, data: u32(uint32(m.PhysicalSectorLength))},
	}
	if m.parent != nil {
		data, err := m.parent.encode()
		if err != nil {
			return nil, err
		}
		items = append(items, item{id: mustGUID(parentLocatorItem), flags: isRequired, data: data})
	}
	p := make([]byte, metadataTableLength)
	copy(p, "metadata")
	le.PutUint16(p[10:], uint16(len(items)))
	for i, it := range items {
		e := p[32+32*i:]
		putGUID(e, it.id)
		le.PutUint32(e[16:], uint32(len(p)))
		le.PutUint32(e[20:], uint32(len(it.data)))
		le.PutUint32(e[24:], it.flags)
		p = append(p, it.data...)
	}
	return p, nil
}

// readMetadata reads the items of a metadata region.
func readMetadata(ctx context.Context, v *view, at region, report reporter) (metadata, error) {
	items, err := readItems(ctx, v, at)
	if err != nil {
		return metadata{}, err
	}
	lengths, known := itemLengths(), make(map[string]*item)
	for i := range items {
		it := &items[i]
		name := guidText(it.id)
		want, isKnown := lengths[name]
		switch {
		case it.flags&isUser != 0 || !isKnown:
			if it.flags&isRequired != 0 {
				return metadata{}, bad("unknown required metadata item %s", name)
			}
			continue
		case want != 0 && it.length != want:
			return metadata{}, bad("metadata item %s of %d bytes; want %d", name, it.length, want)
		}
		it.data = make([]byte, it.length)
		if err := v.readAt(ctx, it.data, at.offset+int64(it.offset)); err != nil {
			return metadata{}, err
		}
		known[name] = it
	}
	for _, name := range slices.Sorted(maps.Keys(lengths)) {
		if known[name] == nil && name != parentLocatorItem {
			return metadata{}, bad("missing metadata item %s", name)
		}
	}
	return decodeMetadata(known, report)
}

// itemLengths returns the known items with their lengths; zero is any length.
func itemLengths() map[string]uint32 {
	return map[string]uint32{
		fileParametersItem: 8, virtualDiskSizeItem: 8, virtualDiskIDItem: 16,
		logicalSectorSizeItem: 4, physicalSectorSizeItem: 4, parentLocatorItem: 0,
	}
}

// readItems reads the used part of a metadata table.
func readItems(ctx context.Context, v *view, at region) ([]item, error) {
	head := make([]byte, metadataEntryLength)
	if err := v.readAt(ctx, head, at.offset); err != nil {
		return nil, err
	}
	if string(head[:8]) != "metadata" {
		return nil, bad("metadata table is damaged")
	}
	count := int(le.Uint16(head[10:]))
	if count > maxItems {
		return nil, bad("invalid metadata table with %d entries", count)
	}
	entries := make([]byte, metadataEntryLength*count)
	if err := v.readAt(ctx, entries, at.offset+metadataEntryLength); err != nil {
		return nil, err
	}
	return decodeItems(entries, at.length)
}

// decodeItems decodes the entries of a metadata table. length is that of the region in
// bytes.
func decodeItems(entries []byte, length int64) ([]item, error) {
	items := make([]item, len(entries)/metadataEntryLength)
	type key struct {
		id   disk.GUID
		user uint32
	}
	seen := make(map[key]bool)
	for i := range items {
		e := entries[metadataEntryLength*i:]
		it := item{id: getGUID(e), offset: le.Uint32(e[16:]), length: le.Uint32(e[20:]), flags: le.Uint32(e[24:])}
		k := key{it.id, it.flags & isUser}
		switch end := int64(it.offset) + int64(it.length); {
		case seen[k]:
			return nil, bad("duplicate metadata item %s", guidText(it.id))
		case it.length == 0 && it.offset == 0:
		case it.length == 0 || it.length > maxItemLength || it.offset < metadataTableLength || end > length:
			return nil, bad("metadata item %s of %d bytes at %d exceeds the region of %d bytes", guidText(it.id), it.length, it.offset, length)
		}
		seen[k] = true
		items[i] = it
	}
	sorted := slices.SortedFunc(slices.Values(items), func(a, b item) int { return cmp.Compare(a.offset, b.offset) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.length > 0 && a.offset+a.length > b.offset {
			return nil, bad("metadata items %s and %s overlap", guidText(a.id), guidText(b.id))
		}
	}
	return items, nil
}

// decodeMetadata decodes the items, whose lengths are valid.
func decodeMetadata(known map[string]*item, report reporter) (metadata, error) {
	parameters := known[fileParametersItem].data
	size := le.Uint64(known[virtualDiskSizeItem].data)
	if size > maxSize {
		return metadata{}, bad("disk of %d bytes; maximum is 64 TiB", size)
	}
	m := metadata{
		Geometry: disk.Geometry{
			Size:                 int64(size),
			BlockLength:          int64(le.Uint32(parameters)),
			SectorLength:         int64(le.Uint32(known[logicalSectorSizeItem].data)),
			PhysicalSectorLength: int64(le.Uint32(known[physicalSectorSizeItem].data)),
		},
		diskID: getGUID(known[virtualDiskIDItem].data),
		kind:   disk.Dynamic,
	}
	if err := checkGeometry(m.Geometry); err != nil {
		return metadata{}, bad("%v", err)
	}
	flags, parent := le.Uint32(parameters[4:]), known[parentLocatorItem]
	switch {
	case flags&hasParent != 0 && parent == nil:
		return metadata{}, bad("missing parent locator of the differencing disk")
	case flags&hasParent != 0:
		m.kind = disk.Differencing
		var err error
		if m.parent, err = decodeLocator(parent.data, report); err != nil {
			return metadata{}, err
		}
	case parent != nil:
		if err := report(harmless, "parent locator of a disk that is not differencing"); err != nil {
			return metadata{}, err
		}
	}
	if m.kind == disk.Dynamic && flags&leaveBlockAllocated != 0 {
		m.kind = disk.Fixed
	}
	return m, nil
}

// checkGeometry validates the geometry of a disk (MS-VHDX 2.6.2).
func checkGeometry(g disk.Geometry) error {
	sector := func(n int64) bool { return n == 512 || n == 4096 }
	switch {
	case !sector(g.SectorLength):
		return invalid("logical sectors of %d bytes; use 512 or 4096", g.SectorLength)
	case !sector(g.PhysicalSectorLength):
		return invalid("physical sectors of %d bytes; use 512 or 4096", g.PhysicalSectorLength)
	case g.BlockLength < minBlockLength || g.BlockLength > maxBlockLength || bits.OnesCount64(uint64(g.BlockLength)) != 1:
		return invalid("blocks of %d bytes; use a power of two from 1 MiB to 256 MiB", g.BlockLength)
	case g.Size <= 0 || g.Size > maxSize || g.Size%g.SectorLength != 0:
		return invalid("a disk of %d bytes; use a multiple of %d up to 64 TiB", g.Size, g.SectorLength)
	}
	return nil
}
