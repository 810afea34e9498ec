package backstore

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore/extent"
)

// ErrNoFingerprints: the store finds no equal data by fingerprints: deduplication is off, or its
// key was lost.
var ErrNoFingerprints = errors.New("data is not found by fingerprints")

// FingerprintKey returns the key of the fingerprints by which what is written to the volume finds
// equal data of the store, and the dedup unit in bytes; or ErrNoFingerprints. Who has the key can
// tell from fingerprints of the store which data they are of.
func (v *Volume) FingerprintKey() (key [32]byte, unit int, err error) {
	if v.store.storeDuplicates.Load() || v.storeDuplicates.Load() {
		return key, 0, fmt.Errorf("%w: deduplication is off", ErrNoFingerprints)
	}
	if v.store.reader.superblockLost {
		return key, 0, fmt.Errorf("%w: the key of the store was lost", ErrNoFingerprints)
	}
	return v.store.parts.sb.FingerprintKey, v.store.DedupUnit(), nil
}

// Fingerprint is that of a range of a volume, whose bytes would make an extent.
type Fingerprint struct {
	Range
	Sum [32]byte
}

// MapAlike makes ranges of the volume equal to data of this store that has the same fingerprints,
// as a write of the data would, and returns the others. They are those of runs of the store with
// the identity from, to the same offsets; runs follow each other, and cover the ranges, which are
// in order. What is mapped is known afterwards (MapKnown).
//
// A fingerprint is a keyed hash of 256 bits: extents that have the same one are the same, as they
// are for a write. Checksums of the blocks have to be those of the runs, too.
func (v *Volume) MapAlike(ctx context.Context, from [16]byte, prints []Fingerprint, runs []Run) (missing []Range, err error) {
	length, err := checkRuns(runs)
	if err != nil || length == 0 {
		return nil, err
	}
	if err := v.checkWritable(); err != nil {
		return nil, err
	}
	if _, _, err := v.FingerprintKey(); err != nil {
		return nil, err
	}
	select { // what the last checkpoint has is found then
	case <-v.store.writer.indexLoaded:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v.mu.RLock()
	err = v.checkRange(runs[0].Off, length)
	v.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	a := alike{knownMapping: knownMapping{v: v, ctx: ctx, names: &naming{from: from, off: runs[0].Off, runs: runs}}, runs: runs}
	for i := range prints {
		if err := a.add(&prints[i]); err != nil {
			return nil, err
		}
	}
	return a.missing, a.flush()
}

// alike is one MapAlike. What was found and is not mapped yet is in local and crc: n blocks from
// byte at on.
type alike struct {
	knownMapping
	runs []Run // from the one on with the range that is next
	at   int64
	n    int
	crc  [MaxRunBlocks]uint32
}

// add finds the data of a range.
func (a *alike) add(p *Fingerprint) error {
	blocks := int(p.Length / BlockLength)
	if a.n > 0 && (a.at+int64(a.n)*BlockLength != p.Offset || a.n+blocks > len(a.local)) {
		if err := a.flush(); err != nil {
			return err
		}
	}
	id, err := a.find(p, blocks)
	if err != nil {
		return err
	}
	if id == 0 {
		if err := a.flush(); err != nil {
			return err
		}
		a.miss(p.Offset, p.Length)
		return nil
	}
	if a.n == 0 {
		a.at = p.Offset
	}
	for k := range blocks {
		a.local[a.n+k] = a.v.store.parts.extents.Slot(id, k)
	}
	a.n += blocks
	return nil
}

// find returns the extent with a fingerprint, 0 for none, and gives crc the checksums that its
// blocks have to have. Whether it still lives is found out when it is mapped; its number is never
// that of another one.
func (a *alike) find(p *Fingerprint, blocks int) (extent.ID, error) {
	s := a.v.store
	if p.Offset%BlockLength != 0 || p.Length%BlockLength != 0 || blocks == 0 || blocks > s.parts.sb.Unit || !a.checksums(p, a.crc[a.n:a.n+blocks]) {
		return 0, nil
	}
	sum := extent.Fingerprint(p.Sum)
	id := s.writer.index.Lookup(&sum)
	if id == 0 {
		return 0, nil
	}
	x, ok, err := s.parts.extents.Get(id)
	if metadataDamage(err) {
		return 0, nil // it cannot stand for anything
	}
	if err != nil {
		return 0, s.life.fail(err)
	}
	if !ok || int(x.Blocks) != blocks || x.Fingerprint != sum {
		return 0, nil
	}
	return id, nil
}

// checksums reads those of the blocks of a range from the runs, which are behind those of ranges
// before it, and reports whether they have them.
func (a *alike) checksums(p *Fingerprint, out []uint32) bool {
	for len(a.runs) > 0 && a.runs[0].Off+a.runs[0].Length <= p.Offset {
		a.runs = a.runs[1:]
	}
	off := p.Offset
	for i := 0; len(out) > 0; i++ {
		if i == len(a.runs) || off < a.runs[i].Off || !a.runs[i].Named() || (off-a.runs[i].Off)%BlockLength != 0 {
			return false
		}
		n := copy(out, a.runs[i].CRC[(off-a.runs[i].Off)/BlockLength:])
		out, off = out[n:], off+int64(n)*BlockLength
	}
	return true
}

// flush maps what was found.
func (a *alike) flush() error {
	n := a.n
	a.n = 0
	if n == 0 {
		return nil
	}
	return a.blocks(a.at, a.local[:n], a.crc[:n])
}
