package backstore

import (
	"context"
	"fmt"
	"hash/crc32"
)

// checkRuns returns ErrInvalid if runs do not lie one after the other, or are not what
// Runs gives, and their length.
func checkRuns(runs []Run) (length int64, err error) {
	for i := range runs {
		r := &runs[i]
		if r.Off != runs[0].Off+length || r.Length <= 0 {
			return 0, fmt.Errorf("%w: run %d of %d bytes at %d does not follow the one before it", ErrInvalid, i, r.Length, r.Off)
		}
		if r.Named() && (r.Hole || len(r.CRC) != len(r.Slots) || r.Length != int64(len(r.Slots))*BlockLength) {
			return 0, fmt.Errorf("%w: run of %d bytes has %d names and %d checksums", ErrInvalid, r.Length, len(r.Slots), len(r.CRC))
		}
		if length += r.Length; length < 0 {
			return 0, fmt.Errorf("%w: the lengths of runs overflow", ErrInvalid)
		}
	}
	return length, nil
}

// appendRange adds a range to ranges in order, and joins it to the last one if it touches
// it.
func appendRange(ranges []Range, r Range) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.Offset {
		ranges[n-1].Length += r.Length
		return ranges
	}
	return append(ranges, r)
}

// MapKnown makes the volume equal, from byte off on, to runs of the store with the
// identity from, where this store has their data, and returns the ranges that it has not.
// Holes become holes. Runs follow each other; the first one goes to off.
func (v *Volume) MapKnown(ctx context.Context, from [16]byte, off int64, runs []Run) (missing []Range, err error) {
	length, err := checkRuns(runs)
	if err != nil || length == 0 {
		return nil, err
	}
	if err := v.checkWritable(); err != nil {
		return nil, err
	}
	v.mu.RLock()
	err = v.checkRange(off, length)
	v.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	for i := range runs {
		to := Range{Offset: off + runs[i].Off - runs[0].Off, Length: runs[i].Length}
		if !runs[i].Hole {
			missing = appendRange(missing, to)
			continue
		}
		if err := v.Zero(ctx, to.Offset, to.Length); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// WriteKnown is WriteAt of the bytes of runs of the store with the identity from, whose
// names this store then knows for MapKnown. Before anything is written, the checksums of
// the runs are compared with p: ErrCorrupt. Runs follow each other; the first one goes to
// off; together they are as long as p.
func (v *Volume) WriteKnown(ctx context.Context, from [16]byte, p []byte, off int64, runs []Run) error {
	length, err := checkRuns(runs)
	if err != nil {
		return err
	}
	if length != int64(len(p)) {
		return fmt.Errorf("%w: runs of %d bytes for %d bytes", ErrInvalid, length, len(p))
	}
	data := p
	for i := range runs {
		for k, want := range runs[i].CRC {
			if crc32.Checksum(data[k*BlockLength:(k+1)*BlockLength], castagnoli) != want {
				return fmt.Errorf("%w: block at byte %d of what another store sent: %w", ErrCorrupt, runs[i].Off+int64(k)*BlockLength, errCRC)
			}
		}
		data = data[runs[i].Length:]
	}
	return v.WriteAt(ctx, p, off)
}
