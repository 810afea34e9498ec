package vhd

import (
	"errors"
	"slices"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
)

const mib = 1 << 20

// TestRoundTrip: raw to every format and kind and back, without moving bytes.
func TestRoundTrip(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		for name, fixed := range map[string]bool{"fixed": true, "dynamic": false} {
			t.Run(name, func(t *testing.T) {
				b := start(t)
				want := with(make([]byte, 40*mib), noise(1, 3*mib), 5*mib)
				b.raw(t, "a.raw", want)
				live := b.store.LiveBytes()
				r := b.do(t, Request{Operation: Convert, Source: "a.raw", Destination: "b" + ext, Fixed: fixed})
				if r.MovedBytes != 0 || r.MappedBytes < 3*mib || r.MappedBytes > 40*mib {
					t.Errorf("%+v", r)
				}
				b.same(t, "b"+ext, want)
				other := map[string]string{".vhd": ".vhdx", ".vhdx": ".vhd"}[ext]
				b.do(t, Request{Operation: Convert, Source: "b" + ext, Destination: "c" + other})
				b.same(t, "c"+other, want)
				b.do(t, Request{Operation: ToVolume, Source: "c" + other, Destination: "v"})
				b.do(t, Request{Operation: FromVolume, Source: "v", Destination: "d" + ext, Fixed: fixed})
				b.same(t, "d"+ext, want)
				b.do(t, Request{Operation: Convert, Source: "d" + ext, Destination: "e.img"})
				b.same(t, "e.img", want)
				if grown := b.store.LiveBytes() - live; grown > mib {
					t.Errorf("%d bytes are stored that were not", grown)
				}
			})
		}
	})
}

// TestFixedDiskOfZeros takes no space.
func TestFixedDiskOfZeros(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		b.do(t, Request{Operation: Create, Destination: "z" + ext, Size: 10 << 30, Fixed: true})
		d, err := b.Describe(ctx, "z"+ext)
		must.Succeed(t, err)
		if d.Kind != "fixed" || d.SizeBytes != 10<<30 || d.FileBytes < 10<<30 || !d.Mappable {
			t.Errorf("%+v", d)
		}
		if live := b.store.LiveBytes(); live > mib {
			t.Errorf("%d bytes are stored", live)
		}
		b.sound(t, "z"+ext)
	})
}

// TestChain: a chain of differencing disks, merged step by step and at once.
func TestChain(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		for name, into := range map[string]string{"step by step": "", "at once": "images/base" + ext} {
			t.Run(name, func(t *testing.T) {
				b := start(t)
				base, one, two := "images/base"+ext, "images/snaps/one"+ext, "two"+ext
				b.do(t, Request{Operation: Create, Destination: base, Size: 9 * mib, BlockLength: 1 * mib})
				want := make([]byte, 9*mib)
				write := func(name string, seed uint64, off, n int64) {
					p := noise(seed, n)
					b.write(t, name, p, off)
					want = with(want, p, off)
				}
				write(base, 1, 512, 3*mib)
				b.do(t, Request{Operation: Snapshot, Source: base, Destination: one})
				b.same(t, one, want)
				onlyBase := want
				write(one, 2, 2*mib+512*3, 512)
				write(one, 3, 5*mib, 2*mib+1024)
				b.do(t, Request{Operation: Snapshot, Source: one, Destination: two})
				write(two, 4, 1*mib, 4096)
				b.change(t, two, func(d *disk.Disk) { must.Succeed(t, d.Unmap(ctx, 2*mib, mib)) })
				clear(want[2*mib : 3*mib])
				b.same(t, two, want)
				b.same(t, base, onlyBase)

				d, err := b.Describe(ctx, two)
				must.Succeed(t, err)
				if !slices.Equal(d.Parents, []string{one, base}) || d.Kind != "differencing" {
					t.Errorf("%+v", d)
				}
				if d, err = b.Describe(ctx, base); err != nil || !slices.Equal(d.Children, []string{one}) {
					t.Errorf("%+v, %v", d, err)
				}
				moved := b.do(t, Request{Operation: Merge, Source: two, Destination: into}).MovedBytes
				if into == "" {
					b.same(t, one, want)
					moved += b.do(t, Request{Operation: Merge, Source: one}).MovedBytes
				}
				if got := b.files(); !slices.Equal(got, []string{base}) {
					t.Errorf("left are %v", got)
				}
				b.same(t, base, want)
				if moved > 0 {
					t.Errorf("%d bytes were moved", moved)
				}
			})
		}
	})
}

// TestParentsAreNotLost: what would make children unreadable is refused.
func TestParentsAreNotLost(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		base, one, two := "base"+ext, "one"+ext, "two"+ext
		b.do(t, Request{Operation: Create, Destination: base, Size: 4 * mib})
		b.do(t, Request{Operation: Snapshot, Source: base, Destination: one})
		b.do(t, Request{Operation: Snapshot, Source: base, Destination: two})
		for name, r := range map[string]Request{
			"merge next to a sibling": {Operation: Merge, Source: one},
			"resize":                  {Operation: Resize, Source: base, Size: 8 * mib},
			"overwrite":               {Operation: Convert, Source: one, Destination: base, Overwrite: true},
			"convert in place":        {Operation: Convert, Source: base, Destination: base},
			"create over it":          {Operation: Create, Destination: base, Size: mib, Overwrite: true},
			"its own child's child":   {Operation: Snapshot, Source: one, Destination: base, Overwrite: true},
		} {
			if _, err := b.Do(ctx, r, nil); !errors.Is(err, ErrHasChildren) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Compaction and defragmentation do not change what the children know.
		b.do(t, Request{Operation: Compact, Source: base})
		b.do(t, Request{Operation: Defragment, Source: base})
		b.same(t, one, make([]byte, 4*mib))
	})
}

// TestParentChanged: a child does not show another disk's bytes as its own.
func TestParentChanged(t *testing.T) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "base.vhdx", Size: 4 * mib})
	b.do(t, Request{Operation: Snapshot, Source: "base.vhdx", Destination: "child.vhdx"})
	b.write(t, "base.vhdx", noise(1, 4096), 0)
	if _, err := b.openChain(ctx, "child.vhdx"); !errors.Is(err, disk.ErrFormat) {
		t.Errorf("parent was written to: %v", err)
	}
	findings, err := b.Check(ctx, "child.vhdx")
	if err != nil || len(findings) != 1 || findings[0].Harmless {
		t.Errorf("check: %v, %v", findings, err)
	}
	must.Succeed(t, b.store.DeleteFile(ctx, "base.vhdx"))
	if _, err := b.openChain(ctx, "child.vhdx"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("parent is missing: %v", err)
	}
}

// TestCompact: blocks of zeros and gaps go, the order stays; defragmenting sorts.
func TestCompact(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		name := "d" + ext
		b.do(t, Request{Operation: Create, Destination: name, Size: 16 * mib, BlockLength: mib})
		want := make([]byte, 16*mib)
		for i, block := range []int64{9, 3, 12, 0, 7} { // in this order in the file
			p := noise(uint64(i), mib)
			b.write(t, name, p, block*mib)
			want = with(want, p, block*mib)
		}
		b.write(t, name, make([]byte, mib), 3*mib) // zeros, but not unmapped
		clear(want[3*mib : 4*mib])
		before, err := b.Describe(ctx, name)
		must.Succeed(t, err)
		r := b.do(t, Request{Operation: Compact, Source: name})
		after, err := b.Describe(ctx, name)
		must.Succeed(t, err)
		if after.PlacedBlocks != 4 || before.PlacedBlocks != 5 || after.FragmentedBlocks == 0 {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if r.MovedBytes != 0 || r.MappedBytes != 4*mib || r.FileBytesBefore-r.FileBytes < mib || after.ID != before.ID {
			t.Errorf("%+v", r)
		}
		b.same(t, name, want)
		b.do(t, Request{Operation: Defragment, Source: name})
		if d, err := b.Describe(ctx, name); err != nil || d.FragmentedBlocks != 0 {
			t.Errorf("%+v, %v", d, err)
		}
		b.same(t, name, want)
	})
}

// TestResize: what is new is zeros, also where the old end was in a block, and what
// has data is not cut off.
func TestResize(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		for _, fixed := range []bool{true, false} {
			b := start(t)
			name := "d" + ext
			b.do(t, Request{Operation: Create, Destination: name, Size: 3*mib + 512, BlockLength: mib, Fixed: fixed})
			want := noise(1, 3*mib+512)
			b.write(t, name, want, 0)
			if _, err := b.Do(ctx, Request{Operation: Resize, Source: name, Size: 3 * mib}, nil); !errors.Is(err, blockdev.ErrInvalid) {
				t.Errorf("cut data off: %v", err)
			}
			b.do(t, Request{Operation: Resize, Source: name, Size: 7 * mib})
			want = append(want, make([]byte, 7*mib-len(want))...)
			b.same(t, name, want)
			b.change(t, name, func(d *disk.Disk) { must.Succeed(t, d.Unmap(ctx, mib, 6*mib)) })
			b.do(t, Request{Operation: Resize, Source: name, Size: 2 * mib})
			clear(want[mib:])
			b.same(t, name, want[:2*mib])
		}
	})
}

// TestInUse: what is served or being changed is not changed, but can be a source.
func TestInUse(t *testing.T) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "a.vhdx", Size: 4 * mib})
	b.served["a.vhdx"] = true
	for _, r := range []Request{
		{Operation: Compact, Source: "a.vhdx"},
		{Operation: Snapshot, Source: "a.vhdx", Destination: "b.vhdx"},
		{Operation: Convert, Source: "a.vhdx", Destination: "a.vhdx"},
	} {
		if _, err := b.Do(ctx, r, nil); !errors.Is(err, errServed) {
			t.Errorf("%s: %v", r.Operation, err)
		}
	}
	s, err := b.Serve(ctx, "a.vhdx")
	must.Succeed(t, err)
	want := noise(3, 4*mib)
	must.Succeed(t, s.WriteAt(ctx, want, 0))
	b.do(t, Request{Operation: Convert, Source: "a.vhdx", Destination: "copy.vhd"})
	b.same(t, "copy.vhd", want)
	must.Succeed(t, s.Close(ctx))
	delete(b.served, "a.vhdx")
	b.do(t, Request{Operation: Snapshot, Source: "a.vhdx", Destination: "child.vhdx"})
	for _, name := range []string{"child.vhdx", "a.vhdx"} {
		b.served[name] = true
		if _, err := b.Do(ctx, Request{Operation: Merge, Source: "child.vhdx"}, nil); !errors.Is(err, errServed) {
			t.Errorf("merge while %s is served: %v", name, err)
		}
		delete(b.served, name)
	}
	b.do(t, Request{Operation: Merge, Source: "child.vhdx"})
	b.same(t, "a.vhdx", want)

	end, err := b.begin(ctx, "a.vhdx")
	must.Succeed(t, err)
	if _, err := b.Do(ctx, Request{Operation: Compact, Source: "a.vhdx"}, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("busy: %v", err)
	}
	end()
	b.do(t, Request{Operation: Compact, Source: "a.vhdx"})
}

// TestRefused: each mistake is named, and leaves nothing.
func TestRefused(t *testing.T) {
	b := start(t)
	b.raw(t, "junk.vhdx", noise(1, 5*mib))
	b.raw(t, "junk.vhd", noise(1, 5*mib))
	b.raw(t, "a.raw", make([]byte, 4096))
	b.do(t, Request{Operation: Create, Destination: "a.vhdx", Size: 4 * mib})
	_, err := b.store.CreateVolume(ctx, "small", 4096)
	must.Succeed(t, err)
	before := b.files()
	for name, tt := range map[string]struct {
		r    Request
		want error
	}{
		"no operation":             {Request{}, blockdev.ErrInvalid},
		"name with dots":           {Request{Operation: Create, Destination: "../x.vhd", Size: mib}, blockdev.ErrInvalid},
		"there already":            {Request{Operation: Create, Destination: "a.vhdx", Size: mib}, backstore.ErrExists},
		"no source":                {Request{Operation: Convert, Source: "none", Destination: "x.vhd"}, backstore.ErrNotFound},
		"source is no VHDX":        {Request{Operation: Convert, Source: "junk.vhdx", Destination: "x.raw"}, disk.ErrFormat},
		"source is no VHD":         {Request{Operation: Convert, Source: "junk.vhd", Destination: "x.raw"}, disk.ErrFormat},
		"merge of no child":        {Request{Operation: Merge, Source: "a.vhdx"}, blockdev.ErrInvalid},
		"merge of a raw file":      {Request{Operation: Merge, Source: "a.raw"}, blockdev.ErrInvalid},
		"child in place":           {Request{Operation: Snapshot, Source: "a.vhdx", Destination: "a.vhdx", Overwrite: true}, blockdev.ErrInvalid},
		"child of another format":  {Request{Operation: Snapshot, Source: "a.vhdx", Destination: "x.vhd"}, blockdev.ErrInvalid},
		"compact a raw file":       {Request{Operation: Compact, Source: "a.raw"}, blockdev.ErrInvalid},
		"resize to nothing":        {Request{Operation: Resize, Source: "a.vhdx"}, blockdev.ErrInvalid},
		"volume is there":          {Request{Operation: ToVolume, Source: "a.vhdx", Destination: "small"}, backstore.ErrExists},
		"volume is too small":      {Request{Operation: ToVolume, Source: "a.vhdx", Destination: "small", Overwrite: true}, blockdev.ErrInvalid},
		"no volume":                {Request{Operation: FromVolume, Source: "none", Destination: "x.vhd"}, backstore.ErrNotFound},
		"a VHD with large sectors": {Request{Operation: Create, Destination: "x.vhd", Size: mib, SectorLength: 4096}, blockdev.ErrInvalid},
		"no size":                  {Request{Operation: Create, Destination: "x.vhdx"}, blockdev.ErrInvalid},
		"half a sector":            {Request{Operation: Create, Destination: "x.vhdx", Size: 1000}, blockdev.ErrInvalid},
		"too large for VHD":        {Request{Operation: Create, Destination: "x.vhd", Size: 4 << 40}, blockdev.ErrInvalid},
		"no power of two":          {Request{Operation: Create, Destination: "x.vhdx", Size: mib, BlockLength: 3 * mib}, blockdev.ErrInvalid},
	} {
		if _, err := b.Do(ctx, tt.r, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if got := b.files(); !slices.Equal(got, before) {
		t.Errorf("files are %v, were %v", got, before)
	}
}

// TestToVolumeInPlace: a volume that is there gets the disk's contents, and zeros
// behind them.
func TestToVolumeInPlace(t *testing.T) {
	b := start(t)
	want := noise(7, 4*mib)
	b.raw(t, "a.raw", want)
	v, err := b.store.CreateVolume(ctx, "v", 6*mib)
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, noise(8, 6*mib), 0))
	b.do(t, Request{Operation: ToVolume, Source: "a.raw", Destination: "v", Overwrite: true})
	got := make([]byte, 6*mib)
	must.Succeed(t, v.ReadAt(ctx, got, 0))
	if d := difference(got, append(want, make([]byte, 2*mib)...)); d != "no difference" {
		t.Error(d)
	}
}

// TestInterrupted: what a crash left of an operation is removed.
func TestInterrupted(t *testing.T) {
	b := start(t)
	b.raw(t, tempPrefix+"x", make([]byte, 4096))
	b.restart(t)
	if got := b.files(); len(got) != 0 {
		t.Errorf("left are %v", got)
	}
}

// TestDiscard: a block that is unmapped leaves the table, its space is given back at
// once, and its place is used again.
func TestDiscard(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		name := "d" + ext
		b.do(t, Request{Operation: Create, Destination: name, Size: 16 * mib, BlockLength: mib})
		empty := b.store.LiveBytes()
		want := with(make([]byte, 16*mib), noise(1, 4*mib), 2*mib)
		b.write(t, name, want[2*mib:6*mib], 2*mib)
		full, err := b.Describe(ctx, name)
		must.Succeed(t, err)
		b.change(t, name, func(d *disk.Disk) { must.Succeed(t, d.Unmap(ctx, 2*mib, 3*mib+512)) })
		clear(want[2*mib : 5*mib+512])
		b.same(t, name, want)
		d, err := b.Describe(ctx, name)
		must.Succeed(t, err)
		if full.PlacedBlocks != 4 || d.PlacedBlocks != 1 {
			t.Errorf("%d blocks have a place, before %d", d.PlacedBlocks, full.PlacedBlocks)
		}
		must.Succeed(t, b.store.Clean(ctx)) // references are given back in the background
		if live := b.store.LiveBytes() - empty; live > mib+64<<10 {
			t.Errorf("%d bytes are stored for less than 1 MiB of data", live)
		}
		b.write(t, name, noise(2, 3*mib), 10*mib)
		if d, err = b.Describe(ctx, name); err != nil || d.FileBytes != full.FileBytes {
			t.Errorf("the file has %d bytes, before %d: places were not used again; %v", d.FileBytes, full.FileBytes, err)
		}
		b.same(t, name, with(want, noise(2, 3*mib), 10*mib))
	})
}

// TestParentName: a parent is looked for where the child says, from the child's directory,
// and what is on another machine in the child's directory.
func TestParentName(t *testing.T) {
	b := start(t)
	for _, name := range []string{"a/base.vhdx", "base.vhdx", "a/b/c.vhdx", "other.vhd"} {
		b.raw(t, name, nil)
	}
	for _, tt := range []struct {
		child string
		paths []string
		want  string
	}{
		{"a/x.vhdx", []string{"./base.vhdx"}, "a/base.vhdx"},
		{"a/x.vhdx", []string{"../base.vhdx"}, "base.vhdx"},
		{"x.vhdx", []string{`.\a\b\c.vhdx`}, "a/b/c.vhdx"},
		{"a/x.vhdx", []string{"./gone.vhdx", `C:\Disks\base.vhdx`}, "a/base.vhdx"},
		{"a/x.vhdx", []string{`\\?\d:\Disks\base.vhdx`}, "a/base.vhdx"},
		{"a/x.vhdx", []string{"/srv/base.vhdx"}, "a/base.vhdx"},
		{"a/x.vhdx", []string{"c:base.vhdx"}, "a/base.vhdx"},
		{"a/x.vhdx", []string{`\\server\share\base.vhdx`}, "a/base.vhdx"},
		{"a/x.vhdx", []string{`\\?\UNC\server\share\base.vhdx`}, "a/base.vhdx"},
		{"a/x.vhdx", []string{`\\?\Volume{12345678-1234-1234-1234-123456789abc}\d\base.vhdx`}, "a/base.vhdx"},
		{"x.vhdx", []string{"../../base.vhdx"}, ""},
		{"x.vhdx", []string{"other.vhd"}, ""}, // another format
		{"x.vhdx", nil, ""},
	} {
		got, err := b.parentName(ctx, tt.child, disk.VHDX, &disk.Parent{Paths: tt.paths})
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s, %q: %s, %v, want %s", tt.child, tt.paths, got, err, tt.want)
		}
	}
	for _, tt := range [][3]string{
		{"a/x.vhd", "a/base.vhd", "./base.vhd"}, {"x.vhd", "a/base.vhd", "./a/base.vhd"}, {"a/b/x.vhd", "a/base.vhd", "../base.vhd"}, {"a/x.vhd", "b/base.vhd", "../b/base.vhd"},
	} {
		if got := relative(tt[0], tt[1]); got != tt[2] {
			t.Errorf("from %s to %s: %s, want %s", tt[0], tt[1], got, tt[2])
		}
	}
}
