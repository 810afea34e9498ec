//go:build !amd64

package fingerprint

func supported() kernels { return none }

func (kernels) sum(*[batchBlocks][Size]byte, *[Size]byte, *[batchBlocks]*[blockLength]byte, int) {
	panic("fingerprint: no kernel for this CPU")
}
