package fingerprint

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// eachKernel runs test with every kernel that this CPU supports.
func eachKernel(t *testing.T, test func(t *testing.T, have kernels)) {
	for _, c := range []struct {
		name string
		have kernels
	}{{"the library", none}, {"AVX2", avx2}, {"AVX-512F and VL", avx512}} {
		t.Run(c.name, func(t *testing.T) {
			if c.have > supported() {
				t.Skipf("this CPU lacks %s", c.name)
			}
			test(t, c.have)
		})
	}
}

func librarySum(key [Size]byte, data []byte) (sum [Size]byte) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err)
	}
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

func randomKey(rng *rand.ChaCha8) (key [Size]byte) {
	rng.Read(key[:])
	return key
}

// The vectors are keyed_hash in test_vectors.json of the BLAKE3 reference
// implementation.
func TestKey_SumVectors(t *testing.T) {
	eachKernel(t, func(t *testing.T, have kernels) {
		key := newKey([Size]byte([]byte("whats the Elvish word for friend")), have)
		data := make([]byte, 4097)
		for i := range data {
			data[i] = byte(i % 251)
		}
		for length, want := range map[int]string{
			1024: "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
			4096: "befc660aea2f1718884cd8deb9902811d332f4fc4a38cf7c7300d597a081bfc0",
			4097: "00df940cd36bb9fa7cbbc3556744e0dbc8191401afe70520ba292ee3ca80abbc",
		} {
			if sum := key.Sum(data[:length]); hex.EncodeToString(sum[:]) != want {
				t.Errorf("%d bytes give %x, not %s", length, sum, want)
			}
		}
	})
}

func TestBatch_Blocks(t *testing.T) {
	eachKernel(t, func(t *testing.T, have kernels) {
		rng := rand.NewChaCha8([32]byte{1})
		for n := range 71 {
			key := randomKey(rng)
			memory := make([]byte, 64+n*(blockLength+1))
			rng.Read(memory)
			sums := make([][Size]byte, n)
			batch := newKey(key, have).Batch()
			// Each block has a different alignment to words and cache lines.
			block := func(i int) []byte { return memory[n%64+i*(blockLength+1):][:blockLength] }
			for i := range n {
				batch.Add(&sums[i], block(i))
			}
			batch.Flush()
			for i := range n {
				if want := librarySum(key, block(i)); sums[i] != want {
					t.Fatalf("block %d of %d: %x, not %x", i, n, sums[i], want)
				}
			}
		}
	})
}

func TestBatch_Lengths(t *testing.T) {
	lengths := []int{0, 1, 64, 1024, 1025, 4095, 4096, 4097, 8192, 4096, 12288, 16384, 4096, 65536, 4096}
	eachKernel(t, func(t *testing.T, have kernels) {
		rng := rand.NewChaCha8([32]byte{2})
		data := make([]byte, 65536+len(lengths))
		rng.Read(data)
		secret := randomKey(rng)
		key := newKey(secret, have)
		batch := key.Batch()
		sums := make([][Size]byte, len(lengths))
		for i, n := range lengths {
			batch.Add(&sums[i], data[i:i+n])
		}
		batch.Flush()
		for i, n := range lengths {
			single, want := key.Sum(data[i:i+n]), librarySum(secret, data[i:i+n])
			if sums[i] != want || single != want {
				t.Errorf("%d bytes give %x in a batch, %x from Sum, want %x", n, sums[i], single, want)
			}
		}
	})
}

// The kernels read no byte outside the blocks, which lie between two PROT_NONE
// pages.
func TestBatch_Bounds(t *testing.T) {
	const page, length = 65536, batchBlocks * blockLength
	memory, err := unix.Mmap(-1, 0, page+length+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	for _, guard := range [][]byte{memory[:page], memory[page+length:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	data := memory[page : page+length]
	rand.NewChaCha8([32]byte{3}).Read(data)
	eachKernel(t, func(t *testing.T, have kernels) {
		key := newKey([Size]byte{4}, have)
		batch := key.Batch()
		var sums [batchBlocks][Size]byte
		for i := range sums {
			batch.Add(&sums[i], data[i*blockLength:(i+1)*blockLength])
		}
		batch.Flush()
		for i, sum := range sums {
			if single := key.Sum(data[i*blockLength : (i+1)*blockLength]); sum != single {
				t.Errorf("block %d: %x in a batch, %x from Sum", i, sum, single)
			}
		}
	})
}

func TestKey_Concurrent(t *testing.T) {
	eachKernel(t, func(t *testing.T, have kernels) {
		key := newKey([Size]byte{5}, have)
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				data := bytes.Repeat([]byte{byte(g)}, 3*blockLength)
				want := librarySum(key.key, data[:blockLength])
				wantAll := librarySum(key.key, data)
				for range 50 {
					if key.Sum(data[:blockLength]) != want || key.Sum(data) != wantAll {
						t.Error("wrong sum with concurrent callers")
					}
				}
			})
		}
		all.Wait()
	})
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte("key"), []byte("data"), uint8(3), uint8(5))
	f.Add([]byte{}, []byte{0}, uint8(0), uint8(1))
	f.Add(bytes.Repeat([]byte{0xff}, Size), bytes.Repeat([]byte{0xff}, 64), uint8(63), uint8(9))
	f.Fuzz(func(t *testing.T, secret, data []byte, offset, n uint8) {
		var key [Size]byte
		copy(key[:], secret)
		memory := make([]byte, int(offset)+int(n%10)*blockLength)
		for at := 0; len(data) > 0 && at < len(memory); {
			at += copy(memory[at:], data)
		}
		blocks := memory[offset:]
		sums := make([][Size]byte, len(blocks)/blockLength)
		for have := none; have <= supported(); have++ {
			clear(sums)
			batch := newKey(key, have).Batch()
			for i := range sums {
				batch.Add(&sums[i], blocks[i*blockLength:][:blockLength])
			}
			batch.Flush()
			for i := range sums {
				if want := librarySum(key, blocks[i*blockLength:][:blockLength]); sums[i] != want {
					t.Fatalf("kernels %d, block %d of %d: %x, not %x", have, i, len(sums), sums[i], want)
				}
			}
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	data := make([]byte, 64*blockLength)
	rand.NewChaCha8([32]byte{6}).Read(data)
	for have := none; have <= supported(); have++ {
		for _, n := range []int{1, 2, 4, 64} {
			b.Run(fmt.Sprintf("%s/%d blocks", []string{"library", "AVX2", "AVX-512"}[have], n), func(b *testing.B) {
				batch := newKey([Size]byte{7}, have).Batch()
				sums := make([][Size]byte, n)
				b.SetBytes(int64(n) * blockLength)
				b.ReportAllocs()
				for b.Loop() {
					for i := range n {
						batch.Add(&sums[i], data[i*blockLength:(i+1)*blockLength])
					}
					batch.Flush()
				}
			})
		}
	}
}
