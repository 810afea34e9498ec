package vhd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
)

// rename gives a file another name.
func (b *bed) move(t must.TB, from, to string) {
	t.Helper()
	must.Succeed(t, b.store.RenameFile(ctx, from, to))
}

// TestManager_ParentNames: a parent is found although its name differs in what Windows does
// not tell apart.
func TestManager_ParentNames(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		for _, tt := range []struct{ base, child, movedTo string }{
			{"dir/base", "dir/child", "dir/BASE"},
			{"dir/base", "dir/child", "Dir/Base"},
			{"dir/base", "dir/child", `dir\base`},
			{`a\base`, "child", ""},
			{`a\base`, `a\child`, ""},
			{"base", `x\y/child`, ""},
			{`d/a\base`, "d/e/child", ""},
			{"x:y/base", "child", ""},
			{"c:base", "child", ""},
		} {
			t.Run(fmt.Sprintf("%s %s %s", tt.base, tt.child, tt.movedTo), func(t *testing.T) {
				b := start(t)
				base, child := tt.base+ext, tt.child+ext
				want := noise(1, 4*mib)
				b.do(t, Request{Operation: Create, Destination: base, Size: 4 * mib})
				b.write(t, base, want, 0)
				b.do(t, Request{Operation: Snapshot, Source: base, Destination: child})
				if tt.movedTo != "" {
					b.move(t, base, tt.movedTo+ext)
					base = tt.movedTo + ext
				}
				b.same(t, child, want)
				b.write(t, child, noise(2, mib), mib)
				d, err := b.Describe(ctx, base)
				must.Succeed(t, err)
				if len(d.Children) != 1 || d.Children[0] != child {
					t.Errorf("children are %q", d.Children)
				}
				if _, err := b.Do(ctx, Request{Operation: Resize, Source: base, Size: 8 * mib}, nil); !errors.Is(err, ErrHasChildren) {
					t.Errorf("resize of a parent: %v", err)
				}
				b.do(t, Request{Operation: Merge, Source: child})
				b.same(t, base, with(want, noise(2, mib), mib))
			})
		}
	})
}

// TestManager_ParentsAlike: of files whose names differ in case only, the one that the child
// names is its parent, and else the one with the identifier.
func TestManager_ParentsAlike(t *testing.T) {
	b := start(t)
	for i, name := range []string{"Base.vhdx", "BASE.vhdx", "base.vhdx"} {
		b.do(t, Request{Operation: Create, Destination: name, Size: 2 * mib})
		b.write(t, name, noise(uint64(i), 2*mib), 0)
	}
	b.do(t, Request{Operation: Snapshot, Source: "BASE.vhdx", Destination: "exact.vhdx"})
	b.do(t, Request{Operation: Snapshot, Source: "base.vhdx", Destination: "moved.vhdx"})
	b.move(t, "base.vhdx", "bASE.vhdx")
	b.same(t, "exact.vhdx", noise(1, 2*mib))
	b.same(t, "moved.vhdx", noise(2, 2*mib))
}

// TestManager_RawParent: there are programs that make VHDs over raw disks, and say nothing of
// their identifier then.
func TestManager_RawParent(t *testing.T) {
	for _, size := range []int64{4 * mib, 6 * mib} { // of the child
		b := start(t)
		want := noise(1, 4*mib)
		b.raw(t, "dir/base.img", want)
		b.raw(t, "dir/other.img", want)
		child := &craftedVHD{original: size, current: size, parent: &craftedParent{path: `.\base.img`}, blocks: map[int]craftedBlock{1: {data: noise(2, mib)}}}
		child.blocks[1] = craftedBlock{noise(2, mib), func(sector int) bool { return sector < 100 }}
		b.raw(t, "dir/child.vhd", child.file())
		want = append(with(want, noise(2, mib)[:100*512], 2*mib), make([]byte, size-4*mib)...)
		b.same(t, "dir/child.vhd", want)
		if d, err := b.Describe(ctx, "dir/child.vhd"); err != nil || len(d.Parents) != 1 || d.Parents[0] != "dir/base.img" {
			t.Errorf("%+v, %v", d, err)
		}
		if d, err := b.Describe(ctx, "dir/base.img"); err != nil || len(d.Children) != 1 {
			t.Errorf("%+v, %v", d, err)
		}
		if _, err := b.Do(ctx, Request{Operation: Convert, Source: "dir/other.img", Destination: "dir/base.img", Overwrite: true}, nil); !errors.Is(err, ErrHasChildren) {
			t.Errorf("overwrite a parent: %v", err)
		}
		b.write(t, "dir/child.vhd", noise(3, 5000), 3*mib+100)
		want = with(want, noise(3, 5000), 3*mib+100)
		b.do(t, Request{Operation: Convert, Source: "dir/child.vhd", Destination: "whole.vhdx"})
		b.same(t, "whole.vhdx", want)
		b.do(t, Request{Operation: Merge, Source: "dir/child.vhd"})
		b.same(t, "dir/base.img", want)
		// It is in the same directory, or any disk of the store could be shown.
		for _, name := range []string{"x.vhd", "dir/sub/x.vhd", "other/x.vhd"} {
			for _, place := range []string{`.\dir\base.img`, `..\base.img`, `..\dir\base.img`} {
				child.parent.path = place
				b.raw(t, name, child.file())
				if _, err := b.Serve(ctx, name); !errors.Is(err, backstore.ErrNotFound) {
					t.Errorf("%s over %s: %v", name, place, err)
				}
				must.Succeed(t, b.store.DeleteFile(ctx, name))
			}
		}
		child.parent.path = `.\base.img`
		// One that says which parent it has cannot have a raw one.
		child.parent.id = [16]byte{1}
		b.raw(t, "dir/named.vhd", child.file())
		if _, err := b.Serve(ctx, "dir/named.vhd"); !errors.Is(err, backstore.ErrNotFound) {
			t.Errorf("a raw parent with an identifier: %v", err)
		}
	}
}

// TestManager_LongestChain: no more disks can be made over each other than can be opened.
func TestManager_LongestChain(t *testing.T) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "0.vhd", Size: mib})
	for i := range maxChain {
		b.do(t, Request{Operation: Snapshot, Source: fmt.Sprint(i, ".vhd"), Destination: fmt.Sprint(i+1, ".vhd")})
	}
	last := fmt.Sprint(maxChain, ".vhd")
	b.same(t, last, make([]byte, mib))
	b.write(t, last, noise(1, 4096), 0)
	if _, err := b.Do(ctx, Request{Operation: Snapshot, Source: last, Destination: "one more.vhd"}, nil); !errors.Is(err, blockdev.ErrInvalid) || !strings.Contains(err.Error(), "merge some of them") {
		t.Errorf("one more: %v", err)
	}
	b.do(t, Request{Operation: Merge, Source: last})
	b.do(t, Request{Operation: Snapshot, Source: fmt.Sprint(maxChain-1, ".vhd"), Destination: last})
}

// TestManager_SectorWarnings: a result warns of sectors that a guest did not see before.
func TestManager_SectorWarnings(t *testing.T) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "4k.vhdx", Size: 8 * mib, SectorLength: 4096})
	b.do(t, Request{Operation: Create, Destination: "512.vhdx", Size: 8 * mib})
	b.raw(t, "raw.img", make([]byte, mib))
	for _, tt := range []struct {
		r    Request
		warn bool
	}{
		{Request{Operation: Convert, Source: "4k.vhdx", Destination: "a.vhd"}, true},
		{Request{Operation: Convert, Source: "4k.vhdx", Destination: "a.img"}, true},
		{Request{Operation: Convert, Source: "4k.vhdx", Destination: "a.vhdx"}, false},
		{Request{Operation: Convert, Source: "4k.vhdx", Destination: "b.vhdx", SectorLength: 512}, true},
		{Request{Operation: Convert, Source: "512.vhdx", Destination: "c.vhdx", SectorLength: 4096}, true},
		{Request{Operation: Convert, Source: "512.vhdx", Destination: "d.vhd"}, false},
		{Request{Operation: Convert, Source: "raw.img", Destination: "e.vhdx", SectorLength: 4096}, false},
		{Request{Operation: Export, Source: "4k.vhdx", Destination: "x.vhd"}, true},
		{Request{Operation: ToVolume, Source: "4k.vhdx", Destination: "v"}, true},
		{Request{Operation: ToVolume, Source: "512.vhdx", Destination: "w"}, false},
	} {
		if got := b.do(t, tt.r).Warnings; (len(got) == 1) != tt.warn {
			t.Errorf("%s %s to %s: %q", tt.r.Operation, tt.r.Source, tt.r.Destination, got)
		}
	}
}
