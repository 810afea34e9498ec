package fingerprint

import "golang.org/x/sys/cpu"

func supported() kernels {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL:
		return avx512
	case cpu.X86.HasAVX2:
		return avx2
	}
	return none
}

// sum hashes at least the first n blocks.
func (k kernels) sum(sums *[batchBlocks][Size]byte, key *[Size]byte, blocks *[batchBlocks]*[blockLength]byte, n int) {
	if k == avx512 && n > 2 {
		fourAVX512(sums, key, blocks)
		return
	}
	for i := 0; i < n; i += 2 {
		two := (*[2][Size]byte)(sums[i:])
		if k == avx512 {
			twoAVX512(two, key, blocks[i], blocks[i+1])
		} else {
			twoAVX2(two, key, blocks[i], blocks[i+1])
		}
	}
}

// The kernels hash several blocks at once, with the four chunks of a block in
// adjacent lanes.

//go:noescape
func fourAVX512(sums *[batchBlocks][Size]byte, key *[Size]byte, blocks *[batchBlocks]*[blockLength]byte)

//go:noescape
func twoAVX512(sums *[2][Size]byte, key *[Size]byte, a, b *[blockLength]byte)

//go:noescape
func twoAVX2(sums *[2][Size]byte, key *[Size]byte, a, b *[blockLength]byte)
