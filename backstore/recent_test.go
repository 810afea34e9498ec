package backstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"odx/internal/kit/must"
)

// TestPool_ReadsAreDurable: what a client of a store in a pool has read is there for the next owner,
// also where the write of it was not flushed when it was read.
func TestPool_ReadsAreDurable(t *testing.T) {
	const at, size = 8 * BlockLength, 32 << 20
	block := func(number int) []byte {
		p := make([]byte, BlockLength)
		binary.LittleEndian.PutUint64(p, uint64(number))
		return p
	}
	readNumber := func(read func(p []byte) error) int {
		p := make([]byte, BlockLength)
		must.Succeed(t, read(p))
		return int(binary.LittleEndian.Uint64(p))
	}
	for name, change := range map[string]func(v *Volume, number int) error{
		"write":  func(v *Volume, number int) error { return v.WriteAt(t.Context(), block(number), at) },
		"atomic": func(v *Volume, number int) error { return v.WriteAtomic(t.Context(), block(number), at) },
		"long": func(v *Volume, number int) error {
			p := make([]byte, 4*MaximumAtomicWrite)
			copy(p[at:], block(number))
			return v.WriteAt(t.Context(), p, 0)
		},
		"update": func(v *Volume, number int) error {
			return v.Update(t.Context(), at, BlockLength, func(p []byte) { copy(p, block(number)) })
		},
		"copy": func(v *Volume, number int) error {
			if err := v.WriteAt(t.Context(), block(number), 0); err != nil {
				return err
			}
			n, err := v.Snapshot(t.Context(), []Range{{Length: BlockLength}}, nil)
			if err != nil {
				return err
			}
			defer n.Release()
			_, err = v.Map(t.Context(), at, n, 0, BlockLength)
			return err
		},
		"known": func(v *Volume, number int) error {
			p := block(number)
			run := Run{Length: BlockLength, Series: 9, Slots: []uint64{uint64(number)}, CRC: []uint32{crc32.Checksum(p, castagnoli)}}
			if err := v.WriteKnown(t.Context(), otherStore, p, 0, []Run{run}); err != nil {
				return err
			}
			missing, err := v.MapKnown(t.Context(), otherStore, at, []Run{run})
			if err == nil && len(missing) > 0 {
				err = fmt.Errorf("missing: %v", missing)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 7))
			p := newPool(rng)
			s, err := Open(t.Context(), p.options(p.twin.Client()))
			must.Succeed(t, err)
			v, err := s.CreateVolume(t.Context(), "v", size)
			must.Succeed(t, err)
			for number := 1; number <= 20; number++ {
				must.Succeed(t, change(v, number))
				read := map[int]func(p []byte) error{
					0: func(p []byte) error { return v.ReadAt(t.Context(), p, at) },
					1: func(p []byte) error { return v.ReadAt(t.Context(), p[:512], at) },
					2: func(p []byte) error {
						copy(p, block(number))
						mismatch, err := v.CompareAndWrite(t.Context(), block(number-1), block(0), at)
						if mismatch != 0 {
							t.Errorf("compare of another number: %d", mismatch)
						}
						return err
					},
					3: func(p []byte) error {
						n, err := v.Snapshot(t.Context(), []Range{{Offset: at, Length: BlockLength}}, nil)
						if err != nil {
							return err
						}
						defer n.Release()
						return n.ReadAt(t.Context(), p, 0)
					},
				}[number%4]
				if got := readNumber(read); got != number {
					t.Errorf("read %d, want %d", got, number)
				}
				crashed := p
				crashed.twin = p.twin.CrashClone(rng)
				next, err := Open(t.Context(), crashed.options(crashed.twin.Client()))
				must.Succeed(t, err)
				again, err := next.Volume("v")
				must.Succeed(t, err)
				if got := readNumber(func(p []byte) error { return again.ReadAt(t.Context(), p, at) }); got != number {
					t.Errorf("number %d was read, and the next owner has %d", number, got)
				}
				must.Succeed(t, next.Close())
			}
			must.Succeed(t, s.Close())
		})
	}
}
