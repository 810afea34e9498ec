//go:build e2e

package copies

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const mib = 1 << 20

type rng = tokenclient.Range

// at is a range of blocks from lba on.
func at(lba uint64, blocks uint32) rng { return rng{LBA: lba, Blocks: blocks} }

// TestCopy copies ranges of every alignment from one LUN to another, and on
// one LUN, and compares both LUNs with the model afterwards, byte for byte.
func TestCopy(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib}, kit.LUN{Size: 16 * mib})
	src, dst := b.disks[0], b.disks[1]
	b.fill(src, at(0, 32768))
	b.fill(dst, at(0, 32768))
	for _, c := range []struct {
		name     string
		from, to *disk
		read     []rng
		offset   uint64
		write    []rng
	}{
		{"one block", src, dst, []rng{at(0, 8)}, 0, []rng{at(0, 8)}},
		{"aligned", src, dst, []rng{at(2048, 4096)}, 0, []rng{at(8192, 4096)}},
		{"512 bytes", src, dst, []rng{at(3, 1)}, 0, []rng{at(12345, 1)}},
		{"both 512 bytes off the 4 KiB grid by the same", src, dst, []rng{at(1001, 2000)}, 0, []rng{at(9001, 2000)}},
		{"source off the grid", src, dst, []rng{at(1003, 2000)}, 0, []rng{at(8000, 2000)}},
		{"destination off the grid", src, dst, []rng{at(1000, 2000)}, 0, []rng{at(8005, 2000)}},
		{"off the grid by different amounts", src, dst, []rng{at(1003, 2001)}, 0, []rng{at(8006, 2001)}},
		{"end of the LUN", src, dst, []rng{at(32767, 1)}, 0, []rng{at(32767, 1)}},
		{"several ranges into one", src, dst, []rng{at(0, 100), at(5000, 33), at(200, 8)}, 0, []rng{at(20000, 141)}},
		{"one range into several", src, dst, []rng{at(0, 1000)}, 0, []rng{at(21000, 1), at(22000, 900), at(20000, 99)}},
		{"several into several", src, dst, []rng{at(16, 64), at(1024, 512), at(9999, 7)}, 0, []rng{at(24000, 500), at(23000, 83)}},
		{"ranges of no blocks", src, dst, []rng{at(0, 0), at(64, 64), at(77, 0)}, 0, []rng{at(25000, 32), at(0, 0), at(25032, 32)}},
		{"offset into the ROD", src, dst, []rng{at(4096, 4096)}, 1024, []rng{at(26000, 512)}},
		{"unaligned offset into several ranges", src, dst, []rng{at(100, 100), at(700, 100)}, 51, []rng{at(27000, 149)}},
		{"last block of the ROD", src, dst, []rng{at(4096, 4096)}, 4095, []rng{at(28000, 1)}},
		{"the other way", dst, src, []rng{at(8192, 4096)}, 0, []rng{at(100, 4096)}},
		{"within one LUN", src, src, []rng{at(0, 4096)}, 0, []rng{at(16384, 4096)}},
		{"over itself", src, src, []rng{at(512, 4096)}, 0, []rng{at(512, 4096)}},
		{"overlapping, upwards", src, src, []rng{at(0, 8192)}, 0, []rng{at(1024, 8192)}},
		{"overlapping, downwards", src, src, []rng{at(1024, 8192)}, 0, []rng{at(0, 8192)}},
		{"overlapping off the grid", src, src, []rng{at(1, 8192)}, 0, []rng{at(1000, 8192)}},
		{"all of it", src, dst, []rng{at(0, 32768)}, 0, []rng{at(0, 32768)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src.t, dst.t = t, t
			token, rod := c.from.populate(tokenclient.PopulateOptions{}, c.read...)
			c.to.spend(token, rod, tokenclient.WriteTokenOptions{Offset: c.offset}, c.write...)
			src.verifyAll()
			dst.verifyAll()
		})
	}
}

// TestCopyBetweenBlockLengths copies between LUNs of 512 and of 4096 bytes a
// block: the offset counts blocks of the destination.
func TestCopyBetweenBlockLengths(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib}, kit.LUN{Size: 16 * mib, BlockSize: 4096})
	small, large := b.disks[0], b.disks[1]
	b.fill(small, at(0, 32768))
	b.fill(large, at(0, 4096))
	token, rod := small.populate(tokenclient.PopulateOptions{}, at(5, 8*100))
	large.spend(token, rod, tokenclient.WriteTokenOptions{Offset: 10}, at(7, 90))
	token, rod = large.populate(tokenclient.PopulateOptions{}, at(100, 100))
	small.spend(token, rod, tokenclient.WriteTokenOptions{Offset: 3}, at(1, 797))
	small.verifyAll()
	large.verifyAll()
}

// TestPointInTime writes over the source between populate and write: the copy
// is of the time of the populate, as often as it is made.
func TestPointInTime(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib}, kit.LUN{Size: 16 * mib})
	src, dst := b.disks[0], b.disks[1]
	b.fill(src, at(0, 8192))
	token, rod := src.populate(tokenclient.PopulateOptions{}, at(1, 8000))
	b.fill(src, at(0, 4096))
	dst.spend(token, rod, tokenclient.WriteTokenOptions{}, at(0, 8000))
	b.fill(src, at(4000, 2000))
	dst.spend(token, rod, tokenclient.WriteTokenOptions{}, at(16001, 8000))
	src.spend(token, rod, tokenclient.WriteTokenOptions{}, at(20000, 8000))
	// An ordinary write after the copy parts the two again.
	b.fill(dst, at(100, 50))
	src.verifyAll()
	dst.verifyAll()
}

// TestZeroToken writes the block device zero ROD token.
func TestZeroToken(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib})
	d := b.disks[0]
	b.fill(d, at(0, 32768))
	zero := make([]byte, tokenclient.TokenLength)
	copy(zero, []byte{0xff, 0xff, 0x00, 0x01, 0, 0, 0x01, 0xf8})
	for _, r := range []rng{at(8, 8), at(1000, 5), at(2048, 8192), at(32767, 1)} {
		d.spend(zero, make([]byte, int(r.Blocks)*512), tokenclient.WriteTokenOptions{}, r)
	}
	d.verifyAll()
}

// TestTwoSessions hands a token made in one session to another one of another
// initiator, which outlives it.
func TestTwoSessions(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib}, kit.LUN{Size: 16 * mib})
	src, dst := b.disks[0], b.disks[1]
	b.fill(src, at(0, 4096))
	token, rod := src.populate(tokenclient.PopulateOptions{}, at(9, 4000))
	other, err := b.client.Open(b.target.URL(1), tokenclient.OpenOptions{Initiator: "iqn.2026-11.example.odx:other", HeaderDigest: true})
	if err != nil {
		t.Fatal(err)
	}
	// What the first session asked for is nothing the second can ask about.
	_, a, err := other.TokenInformationOf(1)
	refused(t, a, err, 0x5, 0x24, 0x00)
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	dst.Session = other
	dst.spend(token, rod, tokenclient.WriteTokenOptions{}, at(100, 4000))
	dst.verifyAll()
}

// TestTokenSurvivesCrash kills the target between populate and write.
func TestTokenSurvivesCrash(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib}, kit.LUN{Size: 16 * mib})
	src, dst := b.disks[0], b.disks[1]
	b.fill(src, at(0, 16384))
	token, rod := src.populate(tokenclient.PopulateOptions{Timeout: 300}, at(3, 16000))
	b.fill(src, at(0, 8))
	a, err := src.Flush()
	good(t, a, err)
	for round := range 2 {
		if err := b.target.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := b.target.Restart(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.reopen()
		dst.spend(token, rod, tokenclient.WriteTokenOptions{}, at(uint64(4096*round), 16000))
		a, err := dst.Flush()
		good(t, a, err)
		src.verifyAll()
		dst.verifyAll()
	}
}

// TestOffload copies more than one token may hold, by following the limits the
// target reports.
func TestOffload(t *testing.T) {
	harness.RequireODX(t)
	target, client := harness.Serve(t, kit.LUN{Size: 8 << 30}, kit.LUN{Size: 8 << 30}), harness.Client(t)
	src, dst := harness.Open(t, client, target.URL(0)), harness.Open(t, client, target.URL(1))
	data := make([]byte, 4*mib)
	rand.NewChaCha8([32]byte{}).Read(data)
	at := []uint64{0, src.Blocks/2 - 4096, src.Blocks - 8192}
	for _, lba := range at {
		a, err := src.Write(bytes.NewReader(data), lba, 8192, tokenclient.WriteOptions{})
		good(t, a, err)
	}
	timings, err := src.OffloadTo(dst, 0, 0, src.Blocks)
	if err != nil {
		t.Fatal(err)
	}
	for _, lba := range at {
		var got bytes.Buffer
		a, err := dst.Read(&got, lba, 8192)
		good(t, a, err)
		if !bytes.Equal(got.Bytes(), data) {
			t.Errorf("the copy differs at block %d", lba)
		}
	}
	harness.Report(t, "offload-8GiB", fmt.Sprintf("%+v", timings))
}

// TestRandomHistory mixes writes, populates and writes using any earlier token
// of either LUN, and keeps comparing.
func TestRandomHistory(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 4 * mib}, kit.LUN{Size: 4 * mib})
	type made struct{ token, rod []byte }
	var tokens []made
	for step := range 300 {
		d := b.disks[b.rand.IntN(2)]
		r := b.randomRange(d.Blocks)
		switch op := b.rand.IntN(10); {
		case op < 3:
			b.fill(d, r)
		case op < 6 || len(tokens) == 0:
			ranges := []rng{r}
			if half := r.Blocks / 2; half > 0 { // two ranges that do not overlap
				ranges = []rng{at(r.LBA+uint64(half), r.Blocks-half), at(r.LBA, half)}
			}
			token, rod := d.populate(tokenclient.PopulateOptions{}, ranges...)
			tokens = append(tokens, made{token, rod})
		default:
			m := tokens[b.rand.IntN(len(tokens))]
			length := uint64(len(m.rod) / d.BlockLength)
			offset := b.rand.Uint64N(length)
			r.Blocks = uint32(min(uint64(r.Blocks), length-offset))
			d.spend(m.token, m.rod, tokenclient.WriteTokenOptions{Offset: offset}, r)
		}
		d.verify(r)
		if step%50 == 49 {
			b.disks[0].verifyAll()
			b.disks[1].verifyAll()
		}
	}
}

// randomRange is aligned to 4 KiB half of the time.
func (b *bench) randomRange(capacity uint64) rng {
	n := 1 + b.rand.Uint64N(capacity/4)
	lba := b.rand.Uint64N(capacity - n)
	if b.rand.IntN(2) == 0 {
		lba, n = lba&^7, (n+7)&^7
	}
	return at(lba, uint32(min(n, capacity-lba)))
}
