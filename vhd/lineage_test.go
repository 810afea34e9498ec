package vhd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// TestLineage_Shared: of callers that come at the same time one reads a file.
func TestLineage_Shared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, want, key := newLineage(), &disk.Parent{Paths: []string{"p"}}, descentKey{format: disk.VHD}
		reads, proceed := 0, make(chan struct{})
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() {
				got, err := l.parentOf(t.Context(), key, func() (*disk.Parent, error) {
					reads++
					<-proceed
					return want, nil
				})
				if got != want || err != nil {
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
		synctest.Wait()
		// One that is canceled does not wait for the reader.
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.parentOf(over, key, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
		close(proceed)
		callers.Wait()
		if reads != 1 {
			t.Errorf("%d reads", reads)
		}
	})
}

// TestLineage_Forget: what was read before, or while, a file was written is not
// remembered, nor is a failure.
func TestLineage_Forget(t *testing.T) {
	l, key := newLineage(), descentKey{id: [16]byte{1}, format: disk.VHDX}
	reads := 0
	read := func(during func(), err error) {
		t.Helper()
		_, got := l.parentOf(ctx, key, func() (*disk.Parent, error) {
			reads++
			during()
			return nil, err
		})
		if !errors.Is(got, err) {
			t.Errorf("%v, want %v", got, err)
		}
	}
	nothing := func() {}
	read(nothing, blockdev.ErrCorrupt)
	read(func() { l.forget(key.id) }, nil)
	read(nothing, nil)
	read(nothing, nil)
	if reads != 3 {
		t.Errorf("%d reads, want 3", reads)
	}
	l.forget([16]byte{2})
	read(nothing, nil)
	l.forget(key.id)
	read(nothing, nil)
	if reads != 4 {
		t.Errorf("%d reads, want 4", reads)
	}
}

// children fails unless a file has just these children.
func (b *bed) hasChildren(t *testing.T, name string, want ...string) {
	t.Helper()
	got, err := b.children(ctx, name)
	must.Succeed(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("children of %s are %q, want %q", name, got, want)
	}
}

// TestManager_Children: what files say of their parents is read once, and again after
// they were written to.
func TestManager_Children(t *testing.T) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "a.vhdx", Size: 4 * mib})
	b.do(t, Request{Operation: Create, Destination: "b.vhdx", Size: 4 * mib})
	b.do(t, Request{Operation: Snapshot, Source: "a.vhdx", Destination: "child.vhdx"})
	b.hasChildren(t, "a.vhdx", "child.vhdx")
	b.hasChildren(t, "b.vhdx")
	if n := len(b.lineage.files); n != 3 {
		t.Errorf("%d files are remembered", n)
	}
	f, err := b.store.File("child.vhdx")
	must.Succeed(t, err)
	p := (&disktest.VHDX{Size: 4 * mib, Parent: `.\b.vhdx`}).Bytes()
	must.Succeed(t, f.Truncate(ctx, int64(len(p))))
	must.Succeed(t, f.WriteAt(ctx, p, 0))
	b.hasChildren(t, "b.vhdx") // the file is not read again
	// A client writes another disk to the file, which is renamed before it is done.
	end, err := b.Write("child.vhdx")
	must.Succeed(t, err)
	b.move(t, "child.vhdx", "renamed.vhdx")
	end()
	b.hasChildren(t, "a.vhdx")
	b.hasChildren(t, "b.vhdx", "renamed.vhdx")
	b.change(t, "a.vhdx", func(d *disk.Disk) { must.Succeed(t, d.WriteAt(ctx, noise(1, mib), 0)) })
	must.Succeed(t, b.store.DeleteFile(ctx, "renamed.vhdx"))
	for range 20 {
		b.do(t, Request{Operation: Snapshot, Source: "b.vhdx", Destination: "child.vhdx"})
		b.hasChildren(t, "b.vhdx", "child.vhdx")
		must.Succeed(t, b.store.DeleteFile(ctx, "child.vhdx"))
	}
	if n := len(b.lineage.files); n > 3*len(b.files()) {
		t.Errorf("%d files are remembered of %d", n, len(b.files()))
	}
}

// TestManager_Children_OtherFormat: a file that gets a name of the format that it has is
// read as that.
func TestManager_Children_OtherFormat(t *testing.T) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "a.vhd", Size: 4 * mib})
	b.do(t, Request{Operation: Create, Destination: "a.vhdx", Size: 4 * mib})
	b.do(t, Request{Operation: Snapshot, Source: "a.vhd", Destination: "child.vhd"})
	b.move(t, "child.vhd", "child.vhdx")
	b.hasChildren(t, "a.vhdx")
	b.move(t, "child.vhdx", "child.vhd")
	b.hasChildren(t, "a.vhd", "child.vhd")
}

// counted counts what is read.
type counted struct {
	blockdev.Reader
	bytes, reads int
}

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.bytes += len(p)
	c.reads++
	return c.Reader.ReadAt(ctx, p, off)
}

// TestProbe_Reads: to find the parent of a disk takes the same few reads, however large
// the disk and its tables are.
func TestProbe_Reads(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		for _, size := range []int64{4 * mib, 2000 << 30} {
			b.do(t, Request{Operation: Create, Destination: "a" + ext, Size: size, Overwrite: true})
			b.do(t, Request{Operation: Snapshot, Source: "a" + ext, Destination: "child" + ext})
			b.write(t, "child"+ext, noise(1, mib), size-mib)
			f, err := b.store.File("child" + ext)
			must.Succeed(t, err)
			c := &counted{Reader: f}
			info, err := probe(ctx, FormatOf(f.Name()), c)
			if err != nil || info.Parent == nil {
				t.Fatalf("%+v, %v", info, err)
			}
			if c.bytes > 80<<10 || c.reads > 16 {
				t.Errorf("%d bytes in %d reads for a disk of %d bytes", c.bytes, c.reads, size)
			}
			must.Succeed(t, b.store.DeleteFile(ctx, "child"+ext))
		}
	})
}

// TestManager_CheckNoChildren: the error names the children, of many only the first.
func TestManager_CheckNoChildren(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		base := "dir/a" + ext
		b.do(t, Request{Operation: Create, Destination: base, Size: 4 * mib})
		b.raw(t, "raw.img", []byte("raw"))
		must.Succeed(t, b.CheckNoChildren(ctx, base))
		for i, named := range []string{
			"c0", "c0 and c1", "c0, c1 and c2", "c0, c1, c2 and c3", "c0, c1, c2, c3 and c4", "c0, c1, c2, c3, c4 and 1 more", "c0, c1, c2, c3, c4 and 2 more",
		} {
			b.do(t, Request{Operation: Snapshot, Source: base, Destination: fmt.Sprintf("c%d%s", i, ext)})
			for n := range i + 1 {
				named = strings.Replace(named, fmt.Sprintf("c%d", n), fmt.Sprintf("c%d%s", n, ext), 1)
			}
			err := b.CheckNoChildren(ctx, base)
			if want := "file " + base + " is the parent of differencing disks: " + named + "; "; !errors.Is(err, ErrHasChildren) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		must.Succeed(t, b.CheckNoChildren(ctx, "c0"+ext), b.CheckNoChildren(ctx, "raw.img"), b.CheckNoChildren(ctx, "none"+ext), b.CheckNoChildren(ctx, ".part-x"+ext))
	})
}
