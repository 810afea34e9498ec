package backstore

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"

	"odx/backstore/extent"
	"odx/backstore/fingerprint"
)

// Digest computes the digest of a run of bytes: a keyed hash of the fingerprints
// of its blocks of 4 KiB, counted from its first byte, and of its length. It
// depends on the bytes and on the store's key alone, not on how they are stored,
// so where extents are just those blocks it comes from the extent table and no
// data is read. Without the key it says nothing about the bytes.
type Digest struct {
	block  *fingerprint.Key
	sum    *blake3.Hasher
	buf    [BlockLength]byte
	n      int // bytes in buf
	length uint64
}

// NewDigest returns the digest of no bytes.
func (s *Store) NewDigest() *Digest {
	var key [32]byte
	blake3.DeriveKey("odx 2026-11-22 digest of block fingerprints", s.parts.sb.FingerprintKey[:], key[:])
	sum, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes
	}
	return &Digest{block: s.parts.fingerprints, sum: sum}
}

// Write adds bytes. It returns no error.
func (d *Digest) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := copy(d.buf[d.n:], p)
		p = p[k:]
		if d.n += k; d.n == BlockLength {
			d.endBlock()
		}
	}
	return n, nil
}

// endBlock adds the fingerprint of what is in the buffer.
func (d *Digest) endBlock() {
	var fp extent.Fingerprint
	if !isZero(d.buf[:d.n]) {
		fp = d.block.Sum(d.buf[:d.n])
	}
	d.add(&fp, d.n)
	d.n = 0
}

// add adds a block of so many bytes, zeros when fp is.
func (d *Digest) add(fp *extent.Fingerprint, bytes int) {
	d.sum.Write(fp[:])
	d.length += uint64(bytes)
}

// Sum returns the digest of the bytes added so far, and ends it.
func (d *Digest) Sum() (sum [32]byte) {
	if d.n > 0 {
		d.endBlock()
	}
	d.sum.Write(binary.BigEndian.AppendUint64(nil, d.length))
	d.sum.Sum(sum[:0])
	return sum
}

// Digest returns the digest of bytes [off, off+length) of the snapshot. It reads
// data only of blocks whose fingerprint is not known: those that do not begin at
// a multiple of 4 KiB, and those of extents that are longer than a block or were
// stored without deduplication. It does not find out whether stored data is
// damaged; Scrub does.
func (n *Snapshot) Digest(ctx context.Context, off, length int64) ([32]byte, error) {
	n.held.Use()
	if !(Range{Offset: off, Length: length}).In(n.state.length) {
		return [32]byte{}, fmt.Errorf("%w: snapshot %d has %d bytes, wanted %d at %d", ErrRange, n.state.id, n.state.length, length, off)
	}
	d := n.store.NewDigest()
	for length > 0 {
		if err := ctx.Err(); err != nil {
			return [32]byte{}, err
		}
		at, piece := n.state.locate(off)
		piece = min(piece, length)
		done := min(piece, BlockLength-int64(d.n))
		var err error
		if at%BlockLength == 0 && d.n == 0 && piece >= BlockLength {
			done = min(piece, readBatch*BlockLength) &^ (BlockLength - 1)
			err = n.digestBlocks(ctx, d, at, int(done/BlockLength))
		} else {
			err = n.digestData(ctx, d, at, done)
		}
		if err != nil {
			return [32]byte{}, err
		}
		off, length = off+done, length-done
	}
	return d.Sum(), nil
}

// digestBlocks adds up to readBatch blocks from byte at of the snapshot's tree.
func (n *Snapshot) digestBlocks(ctx context.Context, d *Digest, at int64, blocks int) error {
	var slots [readBatch]extent.Slot
	var prints [readBatch]extent.Fingerprint
	s := n.store
	if err := n.state.stale.Check(uint64(at/BlockLength), uint64(blocks)); err != nil {
		return err
	}
	if err := s.parts.forest.Lookup(n.state.root, uint64(at/BlockLength), slots[:blocks]); err != nil {
		return err
	}
	if err := s.parts.extents.Fingerprints(slots[:blocks], prints[:]); err != nil {
		return err
	}
	for i := range blocks {
		if slots[i] != 0 && prints[i] == (extent.Fingerprint{}) {
			if err := n.digestData(ctx, d, at+int64(i)*BlockLength, BlockLength); err != nil {
				return err
			}
			continue
		}
		d.add(&prints[i], BlockLength)
	}
	return nil
}

// digestData adds at most a block of data from byte at of the snapshot's tree.
func (n *Snapshot) digestData(ctx context.Context, d *Digest, at, length int64) error {
	b := n.store.reader.getBlock()
	defer n.store.reader.putBlock(b)
	if err := n.store.reader.readTree(ctx, tree{snapshot: n.state}, b[:length], at); err != nil {
		return err
	}
	d.Write(b[:length])
	return nil
}
