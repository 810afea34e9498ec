// Package fingerprint computes the fingerprints of extents: keyed BLAKE3. A block
// of 4 KiB has four chunks, which do not fill the vector registers of a CPU, but a
// write has many blocks. A Batch therefore hashes up to four blocks at once, with
// AVX-512 and AVX2 kernels. Other CPUs, and extents of other lengths, use the BLAKE3
// library, with the same result.
package fingerprint

import (
	"sync"

	"github.com/zeebo/blake3"
)

const (
	// Size is the length of a fingerprint.
	Size = 32

	blockLength = 4096
	batchBlocks = 4 // of a Batch
)

// kernels is the instruction set of the kernels for 4 KiB blocks.
type kernels int

const (
	none kernels = iota
	avx2
	avx512
)

// Key computes fingerprints with a key. It is safe for concurrent use.
type Key struct {
	key     [Size]byte
	kernels kernels
	hashers sync.Pool // of *blake3.Hasher with the key
}

// New returns a Key that uses the best kernels of this CPU.
func New(key [Size]byte) *Key { return newKey(key, supported()) }

func newKey(key [Size]byte, have kernels) *Key {
	hasher, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes
	}
	k := &Key{key: key, kernels: have}
	k.hashers.New = func() any { return hasher.Clone() }
	return k
}

// Sum returns the fingerprint of data.
func (k *Key) Sum(data []byte) [Size]byte {
	if !k.fast(data) {
		return k.librarySum(data)
	}
	var sums [batchBlocks][Size]byte
	var blocks [batchBlocks]*[blockLength]byte
	blocks[0] = (*[blockLength]byte)(data)
	k.sumBlocks(&sums, &blocks, 1)
	return sums[0]
}

// fast reports whether there is a kernel for data.
func (k *Key) fast(data []byte) bool { return k.kernels != none && len(data) == blockLength }

func (k *Key) librarySum(data []byte) (sum [Size]byte) {
	h := k.hashers.Get().(*blake3.Hasher)
	defer k.hashers.Put(h)
	h.Reset()
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

// sumBlocks hashes the first n of the blocks.
func (k *Key) sumBlocks(sums *[batchBlocks][Size]byte, blocks *[batchBlocks]*[blockLength]byte, n int) {
	for i := n; i < batchBlocks; i++ {
		blocks[i] = blocks[0] // fill the unused lanes; the result is discarded
	}
	k.kernels.sum(sums, &k.key, blocks, n)
}

// Batch computes many fingerprints. Between Add and the next Flush, the caller must
// not modify the data nor access the fingerprint.
type Batch struct {
	key    *Key
	blocks [batchBlocks]*[blockLength]byte
	sums   [batchBlocks]*[Size]byte
	n      int // pending blocks
}

// Batch returns an empty Batch.
func (k *Key) Batch() Batch { return Batch{key: k} }

// Add sets sum to the fingerprint of data no later than the next Flush.
func (b *Batch) Add(sum *[Size]byte, data []byte) {
	if !b.key.fast(data) {
		*sum = b.key.librarySum(data)
		return
	}
	b.blocks[b.n], b.sums[b.n] = (*[blockLength]byte)(data), sum
	if b.n++; b.n == batchBlocks {
		b.Flush()
	}
}

// Flush computes the pending fingerprints.
func (b *Batch) Flush() {
	if b.n == 0 {
		return
	}
	var sums [batchBlocks][Size]byte
	b.key.sumBlocks(&sums, &b.blocks, b.n)
	for i := range b.n {
		*b.sums[i] = sums[i]
	}
	b.n = 0
}
