package vhd

import (
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
)

// craftedDisks are disks of which a program could show other bytes than it should.
func craftedDisks() map[string]*craftedVHD {
	some := func(n int) func(int) bool { return func(sector int) bool { return sector < n } }
	odd := func(sector int) bool { return sector%3 == 1 }
	none := func(int) bool { return false }
	return map[string]*craftedVHD{
		"grown fixed":         {original: 5 * mib, current: 9 * mib, fixed: noise(1, 9*mib)},
		"shrunk fixed":        {original: 9 * mib, current: 5 * mib, fixed: noise(2, 5*mib)},
		"fixed of Virtual PC": {original: 5 * mib, current: 5 * mib, creator: "vpc ", geometry: [4]byte{0, 100, 4, 17}, fixed: noise(3, 5*mib)},
		"grown dynamic":       {original: 5 * mib, current: 9 * mib, blocks: map[int]craftedBlock{0: {data: noise(4, 2*mib)}, 4: {data: noise(5, mib)}}},
		"shrunk dynamic":      {original: 9 * mib, current: 3 * mib, blocks: map[int]craftedBlock{1: {data: noise(6, mib)}}},
		"dynamic of qemu":     {original: 5 * mib, current: 9 * mib, creator: "qemu", geometry: [4]byte{0, 100, 4, 17}, blocks: map[int]craftedBlock{4: {data: noise(7, mib)}}},
		"clear bits":          {original: 4 * mib, current: 4 * mib, blocks: map[int]craftedBlock{0: {noise(8, 2*mib), some(16)}, 1: {data: noise(9, 2*mib)}}},
		"odd bits":            {original: 5 * mib, current: 5 * mib, blocks: map[int]craftedBlock{0: {noise(10, 2*mib), odd}, 2: {noise(11, mib), some(1500)}}},
		"no bits":             {original: 4 * mib, current: 4 * mib, blocks: map[int]craftedBlock{0: {noise(12, 2*mib), none}, 1: {noise(13, 2*mib), odd}}},
	}
}

// TestManager_ForeignVHD: disks of other programs show the same bytes whatever is done
// with them.
func TestManager_ForeignVHD(t *testing.T) {
	for name, c := range craftedDisks() {
		t.Run(name, func(t *testing.T) {
			b := start(t)
			want := c.contents()
			b.raw(t, "d.vhd", c.file())
			b.same(t, "d.vhd", want)
			for _, to := range []string{"d.vhdx", "e.vhd", "d.img"} {
				b.do(t, Request{Operation: Convert, Source: "d.vhd", Destination: to})
				b.same(t, to, want)
			}
			b.do(t, Request{Operation: ToVolume, Source: "d.vhd", Destination: "v"})
			v, err := b.store.Volume("v")
			must.Succeed(t, err)
			got := make([]byte, v.Size())
			must.Succeed(t, v.ReadAt(ctx, got, 0))
			if d := difference(got, want); d != "no difference" {
				t.Errorf("volume: %s", d)
			}
			for n, o := range []Operation{Compact, Defragment} {
				to := string("fg"[n]) + ".vhd"
				b.do(t, Request{Operation: o, Source: "d.vhd", Destination: to})
				b.same(t, to, want)
				b.allBits(t, to)
			}
			b.do(t, Request{Operation: Compact, Source: "d.vhd"})
			b.same(t, "d.vhd", want)
			b.raw(t, "g2.vhd", c.file())
			b.do(t, Request{Operation: Resize, Source: "g2.vhd", Size: c.current + 4*mib})
			b.same(t, "g2.vhd", append(want, make([]byte, 4*mib)...))
		})
	}
}

// TestServed_ForeignVHD: what a LUN writes to such a disk, other programs see, too.
func TestServed_ForeignVHD(t *testing.T) {
	for name, c := range craftedDisks() {
		t.Run(name, func(t *testing.T) {
			b := start(t)
			want := c.contents()
			b.raw(t, "d.vhd", c.file())
			b.change(t, "d.vhd", func(d *disk.Disk) {
				for n, at := range []int64{16*512 - 700, mib + 100, 2*mib - 512, c.current - 3000} {
					p := noise(uint64(100+n), 2600)
					must.Succeed(t, d.WriteAt(ctx, p, at))
					copy(want[at:], p)
				}
				must.Succeed(t, d.Unmap(ctx, 4096, 8192))
				clear(want[4096:][:8192])
				got := make([]byte, len(want))
				must.Succeed(t, d.ReadAt(ctx, got, 0))
				if d := difference(got, want); d != "no difference" {
					t.Errorf("served: %s", d)
				}
			})
			b.same(t, "d.vhd", want)
		})
	}
}

// allBits fails if a block of a dynamic VHD has a sector whose bit is clear: programs
// differ in what they show there.
func (b *bed) allBits(t must.TB, name string) {
	t.Helper()
	findings, err := b.Check(ctx, name)
	must.Succeed(t, err)
	for _, f := range findings {
		if f.Text != "" && !f.Harmless || strings.Contains(f.Text, "bitmap") {
			t.Fatalf("%s: %s", name, f.Text)
		}
	}
}
