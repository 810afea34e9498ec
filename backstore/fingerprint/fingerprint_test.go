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

// each runs a test with the code for each kind of CPU.
func each(t *testing.T, test func(t *testing.T, have kernels)) {
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

// TestPublishedSums: keyed_hash of test_vectors.json, which BLAKE3's authors
// publish with the reference implementation.
func TestPublishedSums(t *testing.T) {
	each(t, func(t *testing.T, have kernels) {
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

func TestSumsOfManyBlocks(t *testing.T) {
	each(t, func(t *testing.T, have kernels) {
		rng := rand.NewChaCha8([32]byte{1})
		for n := range 71 {
			key := randomKey(rng)
			memory := make([]byte, 64+n*(blockLength+1))
			rng.Read(memory)
			sums := make([][Size]byte, n)
			batch := newKey(key, have).Batch()
			// Each block begins at another distance from a word and a cache line.
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

func TestSumsOfOtherLengths(t *testing.T) {
	lengths := []int{0, 1, 64, 1024, 1025, 4095, 4096, 4097, 8192, 4096, 12288, 16384, 4096, 65536, 4096}
	each(t, func(t *testing.T, have kernels) {
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
			alone, want := key.Sum(data[i:i+n]), librarySum(secret, data[i:i+n])
			if sums[i] != want || alone != want {
				t.Errorf("%d bytes give %x in a batch and %x by themselves, not %x", n, sums[i], alone, want)
			}
		}
	})
}

// TestNothingElseIsRead puts blocks between pages that cannot be read.
func TestNothingElseIsRead(t *testing.T) {
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
	each(t, func(t *testing.T, have kernels) {
		key := newKey([Size]byte{4}, have)
		batch := key.Batch()
		var sums [batchBlocks][Size]byte
		for i := range sums {
			batch.Add(&sums[i], data[i*blockLength:(i+1)*blockLength])
		}
		batch.Flush()
		for i, sum := range sums {
			if alone := key.Sum(data[i*blockLength : (i+1)*blockLength]); sum != alone {
				t.Errorf("block %d: %x in a batch, %x by itself", i, sum, alone)
			}
		}
	})
}

func TestKeyIsSharedByMany(t *testing.T) {
	each(t, func(t *testing.T, have kernels) {
		key := newKey([Size]byte{5}, have)
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				data := bytes.Repeat([]byte{byte(g)}, 3*blockLength)
				want := librarySum(key.key, data[:blockLength])
				wantAll := librarySum(key.key, data)
				for range 50 {
					if key.Sum(data[:blockLength]) != want || key.Sum(data) != wantAll {
						t.Error("a wrong sum beside others")
					}
				}
			})
		}
		all.Wait()
	})
}

func FuzzSums(f *testing.F) {
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

func BenchmarkSums(b *testing.B) {
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
