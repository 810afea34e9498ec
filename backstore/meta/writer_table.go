package meta

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/dgraph-io/badger/v4/fb"
	flatbuffers "github.com/google/flatbuffers/go"
)

// blockBytes is the length in bytes at which a block of a table ends.
const blockBytes = 16 << 10

// tableWriter encodes one table after the other, byte by byte as table.Builder of Badger
// does, whose index alone allocates 3 MiB for each table. Its buffers are reused.
type tableWriter struct {
	// bytes is the length of the keys and values of the table.
	bytes int

	out    []byte // the blocks
	start  int    // of the last block in out
	blocks []tableBlock
	// keys has the first key of each block, and offsets where the entries of the last
	// block begin in it.
	keys    []byte
	offsets []uint32
	key     []byte // the one being added
	rows    uint32
	index   *flatbuffers.Builder
	vector  []flatbuffers.UOffsetT
}

// tableBlock is a block that has ended: its place in out, and that of its first key in
// keys.
type tableBlock struct{ start, end, keyStart, keyEnd int }

// Lengths in bytes of the parts of a block, of which Badger estimates the length before
// it adds a row.
const (
	entryHeader   = 4 // length shared with the first key of the block, length of the rest
	entryEstimate = 6 // what Badger takes the header for
	valueHeader   = 3 // Meta, UserMeta, ExpiresAt, all zero
	blockTrailer  = 4 + 8 + 4
)

// add adds a row; keys ascend. The slices are copied.
func (w *tableWriter) add(key, sealed []byte) {
	w.bytes += len(key) + len(sealed)
	// Badger sorts the versions of a key from the newest on.
	w.key = binary.BigEndian.AppendUint64(append(w.key[:0], key...), math.MaxUint64-rowVersion)
	if n := len(w.offsets); n > 0 && len(w.out)-w.start+entryEstimate+len(w.key)+valueHeader+len(sealed)+4*(n+1)+blockTrailer > blockBytes {
		w.endBlock()
	}
	shared := 0
	if len(w.offsets) == 0 {
		w.blocks = append(w.blocks, tableBlock{start: w.start, keyStart: len(w.keys), keyEnd: len(w.keys) + len(w.key)})
		w.keys = append(w.keys, w.key...)
	} else {
		shared = sharedPrefix(w.key, w.firstKey(&w.blocks[len(w.blocks)-1]))
	}
	w.offsets = append(w.offsets, uint32(len(w.out)-w.start))
	w.out = binary.LittleEndian.AppendUint16(w.out, uint16(shared))
	w.out = binary.LittleEndian.AppendUint16(w.out, uint16(len(w.key)-shared))
	w.out = append(append(w.out, w.key[shared:]...), 0, 0, 0)
	w.out = append(w.out, sealed...)
	w.rows++
}

func (w *tableWriter) firstKey(b *tableBlock) []byte { return w.keys[b.keyStart:b.keyEnd] }

// sharedPrefix returns the length of the longest common prefix.
func sharedPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// endBlock ends the last block with the offsets of its entries and its checksum.
func (w *tableWriter) endBlock() {
	for _, o := range w.offsets {
		w.out = binary.LittleEndian.AppendUint32(w.out, o)
	}
	w.out = binary.BigEndian.AppendUint32(w.out, uint32(len(w.offsets)))
	w.out = appendChecksum(w.out, w.out[w.start:])
	w.blocks[len(w.blocks)-1].end = len(w.out)
	w.start, w.offsets = len(w.out), w.offsets[:0]
}

// appendChecksum appends the protocol buffer Checksum of data, a CRC-32C, and its length.
func appendChecksum(to, data []byte) []byte {
	at := len(to)
	if sum := crc32.Checksum(data, castagnoli); sum != 0 {
		to = binary.AppendUvarint(append(to, 2<<3), uint64(sum)) // field 2, a varint
	}
	return binary.BigEndian.AppendUint32(to, uint32(len(to)-at))
}

// finish returns the table, which is valid until the next add, or nil if it has no rows,
// and starts the next.
func (w *tableWriter) finish() []byte {
	if w.rows == 0 {
		return nil
	}
	w.endBlock()
	index := w.encodeIndex()
	w.out = binary.BigEndian.AppendUint32(append(w.out, index...), uint32(len(index)))
	w.out = appendChecksum(w.out, index)
	data := w.out
	w.bytes, w.out, w.start, w.blocks, w.keys, w.rows = 0, w.out[:0], 0, w.blocks[:0], w.keys[:0], 0
	return data
}

// encodeIndex returns the index: where the blocks are, and sizes. Badger writes them in
// this order, on which the bytes depend.
func (w *tableWriter) encodeIndex() []byte {
	if w.index == nil {
		w.index = flatbuffers.NewBuilder(1 << 10)
	}
	b := w.index
	b.Reset()
	w.vector = w.vector[:0]
	for i := range w.blocks {
		block := &w.blocks[i]
		key := b.CreateByteVector(w.firstKey(block))
		fb.BlockOffsetStart(b)
		fb.BlockOffsetAddKey(b, key)
		fb.BlockOffsetAddOffset(b, uint32(block.start))
		fb.BlockOffsetAddLen(b, uint32(block.end-block.start))
		w.vector = append(w.vector, fb.BlockOffsetEnd(b))
	}
	fb.TableIndexStartOffsetsVector(b, len(w.vector))
	for i := len(w.vector) - 1; i >= 0; i-- {
		b.PrependUOffsetT(w.vector[i])
	}
	offsets := b.EndVector(len(w.vector))
	bytes := uint32(len(w.out))
	fb.TableIndexStart(b)
	fb.TableIndexAddOffsets(b, offsets)
	fb.TableIndexAddMaxVersion(b, rowVersion)
	fb.TableIndexAddUncompressedSize(b, bytes)
	fb.TableIndexAddKeyCount(b, w.rows)
	fb.TableIndexAddOnDiskSize(b, bytes)
	b.Finish(fb.TableIndexEnd(b))
	index := b.FinishedBytes()
	fb.GetRootAsTableIndex(index, 0).MutateOnDiskSize(bytes + uint32(len(index)))
	return index
}
