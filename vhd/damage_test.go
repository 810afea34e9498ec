package vhd

import (
	"errors"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
)

// overlappingVHD is a disk of which block 1 is where block 0 is.
func overlappingVHD() (file, contents []byte) {
	c := &craftedVHD{original: 6 * mib, current: 6 * mib, blocks: map[int]craftedBlock{0: {data: noise(1, 2*mib)}}}
	file = c.file()
	copy(file[1536+4:], file[1536:1536+4])
	return file, append(append(noise(1, 2*mib), noise(1, 2*mib)...), make([]byte, 2*mib)...)
}

// TestManager_Overlap: a disk whose blocks overlap is not made one that looks sound;
// its contents can be copied, with a warning.
func TestManager_Overlap(t *testing.T) {
	b := start(t)
	file, want := overlappingVHD()
	b.raw(t, "d.vhd", file)
	for _, r := range []Request{
		{Operation: Compact}, {Operation: Defragment}, {Operation: Resize, Size: 8 * mib}, {Operation: Compact, Destination: "e.vhd"},
	} {
		r.Source = "d.vhd"
		if _, err := b.Do(ctx, r, nil); !errors.Is(err, disk.ErrFormat) || !strings.Contains(err.Error(), "block 0 and to block 1; odx vhd convert to another file copies") {
			t.Errorf("%s: %v", r.Operation, err)
		}
	}
	if _, err := b.bring(t, "d.vhd", file, "i.vhd"); !errors.Is(err, disk.ErrFormat) || !strings.Contains(err.Error(), "; import under a name of another format copies what can be read of it") {
		t.Errorf("import: %v", err)
	}
	for _, name := range []string{"i.vhdx", "i.img"} {
		result, err := b.bring(t, "d.vhd", file, name)
		must.Succeed(t, err)
		if w := result.Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "the disk that was imported: ") || !strings.HasSuffix(w[0], "; what was made shows the same bytes in both places") {
			t.Errorf("import to %s warns %q", name, w)
		}
		b.same(t, name, want)
	}
	for _, r := range []Request{
		{Operation: Convert, Destination: "c.vhdx"}, {Operation: ToVolume, Destination: "v"}, {Operation: Export, Destination: "x.img"},
	} {
		r.Source = "d.vhd"
		if w := b.do(t, r).Warnings; len(w) != 1 || !strings.Contains(w[0], "shows the same bytes in both places") {
			t.Errorf("%s warns %q", r.Operation, w)
		}
	}
	b.same(t, "c.vhdx", want)
	// A child of it cannot be merged into it, nor be merged if it is that itself.
	b.do(t, Request{Operation: Snapshot, Source: "d.vhd", Destination: "child.vhd"})
	if _, err := b.Do(ctx, Request{Operation: Merge, Source: "child.vhd"}, nil); !errors.Is(err, disk.ErrFormat) {
		t.Errorf("merge: %v", err)
	}
	if w := b.do(t, Request{Operation: Convert, Source: "child.vhd", Destination: "whole.vhd"}).Warnings; len(w) != 1 {
		t.Errorf("convert of a child warns %q", w)
	}
}

// TestManager_ImportDamage: an import says what was wrong with what came, since it is not
// to be seen any more in what was made of it.
func TestManager_ImportDamage(t *testing.T) {
	b := start(t)
	c := &craftedVHD{original: 4 * mib, current: 4 * mib, blocks: map[int]craftedBlock{0: {data: noise(1, 2*mib)}}}
	file := c.file()
	c.id = [16]byte{1}
	copy(file, c.footer()) // another disk than the footer at the end says
	for _, name := range []string{"d.vhd", "d.vhdx", "d.img"} {
		result, err := b.bring(t, "d.vhd", file, name)
		must.Succeed(t, err)
		if w := result.Warnings; len(w) != 1 || !strings.Contains(w[0], "differ (unique id)") {
			t.Errorf("%s: warnings %q", name, w)
		}
		b.same(t, name, c.contents())
	}
}

// bring imports a file.
func (b *bed) bring(t must.TB, like string, file []byte, name string) (Result, error) {
	t.Helper()
	scratch, err := b.NewScratch(ctx, like, int64(len(file)))
	must.Succeed(t, err)
	must.Succeed(t, scratch.WriteAt(ctx, file, 0))
	return b.Do(ctx, Request{Operation: Import, Source: scratch.Name(), Destination: name}, nil)
}
