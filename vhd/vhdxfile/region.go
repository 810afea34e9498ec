package vhdxfile

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"odx/vhd/disk"
)

// region is a byte range of the file.
type region struct{ offset, length int64 }

// regions has the entries of the region table (MS-VHDX 2.2.3).
type regions struct {
	bat, metadata region
	// other has the unknown optional regions, which are preserved.
	other []region
	// table is the table of the file, torn has its damaged copies.
	table []byte
	torn  []int
	// differ: the copies are both valid, and not the same.
	differ bool
}

// maxRegions bounds the entries of the table (MS-VHDX 2.2.3.1).
const maxRegions = 2047

// encode encodes the table of a new file.
func (r regions) encode() []byte {
	p := make([]byte, regionTableLength)
	copy(p, "regi")
	le.PutUint32(p[8:], 2)
	at := p[16:]
	for _, e := range []struct {
		guid string
		region
	}{{batRegion, r.bat}, {metadataRegion, r.metadata}} {
		putGUID(at, mustGUID(e.guid))
		le.PutUint64(at[16:], uint64(e.offset))
		le.PutUint32(at[24:], uint32(e.length))
		le.PutUint32(at[28:], 1)
		at = at[32:]
	}
	seal(p)
	return p
}

// regionsDiffer describes a disagreement of region tables.
const regionsDiffer = "region tables differ; the first one is used"

// Disagreement returns a description of how the region tables differed when the file was
// opened, or "" if only one of them was valid or they were equal.
func (f *File) Disagreement() string {
	if f.regions.differ {
		return regionsDiffer
	}
	return ""
}

// readRegionTable returns a copy of the region table, nil if it is damaged.
func readRegionTable(ctx context.Context, v *view, n int) ([]byte, error) {
	p := make([]byte, regionTableLength)
	if err := v.readAt(ctx, p, regionTableAt(n)); err != nil || !sealed(p, "regi") {
		return nil, err
	}
	return p, nil
}

// readFirstRegions reads the first valid region table, and no other one.
func readFirstRegions(ctx context.Context, v *view, _ reporter) (regions, error) {
	for n := range 2 {
		if p, err := readRegionTable(ctx, v, n); err != nil {
			return regions{}, err
		} else if p != nil {
			return decodeRegions(p, v.size)
		}
	}
	return regions{}, errNoRegions()
}

func errNoRegions() error { return bad("both region tables are damaged") }

// readRegions reads the first valid region table, and compares it with the other one.
func readRegions(ctx context.Context, v *view, report reporter) (regions, error) {
	var table []byte
	var torn []int
	var differ bool
	for n := range 2 {
		p, err := readRegionTable(ctx, v, n)
		switch {
		case err != nil:
		case p == nil:
			torn = append(torn, n)
			err = report(harmless, "region table %d is damaged, the other one is used; open the disk for writing to repair it", n+1)
		case table == nil:
			table = p
		case !bytes.Equal(table, p):
			differ = true
			err = report(harmful, regionsDiffer)
		}
		if err != nil {
			return regions{}, err
		}
	}
	if table == nil {
		return regions{}, errNoRegions()
	}
	r, err := decodeRegions(table, v.size)
	r.table, r.torn, r.differ = table, torn, differ
	return r, err
}

// repair rewrites the damaged copies of the table.
func (r *regions) repair(ctx context.Context, c disk.Container) error {
	for _, n := range r.torn {
		if err := c.WriteAt(ctx, r.table, regionTableAt(n)); err != nil {
			return fmt.Errorf("write region table %d: %w", n+1, err)
		}
	}
	r.torn = nil
	return nil
}

func decodeRegions(p []byte, size int64) (regions, error) {
	count := le.Uint32(p[8:])
	if count > maxRegions {
		return regions{}, bad("invalid region table with %d entries", count)
	}
	var r regions
	known := map[disk.GUID]*region{mustGUID(batRegion): &r.bat, mustGUID(metadataRegion): &r.metadata}
	seen := make(map[disk.GUID]bool)
	for i := range count {
		e := p[16+32*i:]
		id, offset, length := getGUID(e), le.Uint64(e[16:]), le.Uint32(e[24:])
		switch {
		case seen[id]:
			return regions{}, bad("duplicate region %s", guidText(id))
		case known[id] == nil && le.Uint32(e[28:])&1 != 0:
			return regions{}, bad("unknown required region %s", guidText(id))
		case offset%mib != 0 || offset < headerSection || length == 0 || length%mib != 0:
			return regions{}, bad("invalid region %s of %d bytes at %d", guidText(id), length, offset)
		case offset > uint64(size) || uint64(length) > uint64(size)-offset:
			return regions{}, bad("region %s of %d bytes at %d exceeds the file of %d bytes", guidText(id), length, offset, size)
		}
		seen[id] = true
		at := region{int64(offset), int64(length)}
		if known[id] != nil {
			*known[id] = at
		} else {
			r.other = append(r.other, at)
		}
	}
	for _, id := range []string{batRegion, metadataRegion} {
		if !seen[mustGUID(id)] {
			return regions{}, bad("missing region %s", id)
		}
	}
	return r, nil
}

// all returns all regions.
func (r regions) all() []region { return append(slices.Clone(r.other), r.bat, r.metadata) }
