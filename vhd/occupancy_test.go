package vhd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"odx/backstore"
	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// begun starts an operation in a bubble, and returns once it waits for the writers of a
// file.
func (b *bed) begun(t *testing.T, c context.Context, name string, r Request) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := b.Do(c, r, nil)
		result <- err
	}()
	synctest.Wait()
	select {
	case err := <-result:
		t.Fatalf("%s did not wait: %v", r.Operation, err)
	default:
	}
	if o := b.Manager.files[name]; o == nil || o.idle == nil {
		t.Fatalf("%s waits for something else", r.Operation)
	}
	return result
}

// TestManager_Write: an operation waits for those who write to the file, so that what
// they write is in the new one; who comes later is refused.
func TestManager_Write(t *testing.T) {
	for name, r := range map[string]Request{
		"compact":         {Operation: Compact, Source: "d.vhdx"},
		"defrag":          {Operation: Defragment, Source: "d.vhdx"},
		"resize":          {Operation: Resize, Source: "d.vhdx", Size: 8 * mib},
		"convert":         {Operation: Convert, Source: "d.vhdx", Destination: "d.vhdx", Fixed: true},
		"snapshot":        {Operation: Snapshot, Source: "d.vhdx", Destination: "child.vhdx"},
		"merge, child":    {Operation: Merge, Source: "d.vhdx"},
		"merge, parent":   {Operation: Merge, Source: "over.vhdx"},
		"overwrite":       {Operation: Create, Destination: "d.vhdx", Size: mib, Overwrite: true},
		"over by convert": {Operation: Convert, Source: "base.vhdx", Destination: "d.vhdx", Overwrite: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testWriters(t, r) })
		})
	}
}

// testWriters begins an operation on d.vhdx while it is written to.
func testWriters(t *testing.T, r Request) {
	b := start(t)
	b.do(t, Request{Operation: Create, Destination: "base.vhdx", Size: 4 * mib, BlockLength: mib})
	switch {
	case r.Operation == Merge:
		b.do(t, Request{Operation: Snapshot, Source: "base.vhdx", Destination: "d.vhdx"})
		if r.Source == "over.vhdx" {
			b.do(t, Request{Operation: Snapshot, Source: "d.vhdx", Destination: "over.vhdx"})
		}
	default:
		b.do(t, Request{Operation: Create, Destination: "d.vhdx", Size: 4 * mib, BlockLength: mib})
	}
	end, err := b.Write("d.vhdx")
	must.Succeed(t, err)
	again, err := b.Write("d.vhdx")
	must.Succeed(t, err)
	c, cancel := context.WithCancel(ctx)
	result := b.begun(t, c, "d.vhdx", r)
	if _, err := b.Write("d.vhdx"); !errors.Is(err, ErrBusy) {
		t.Errorf("a writer that comes later: %v", err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	third, err := b.Write("d.vhdx")
	if err != nil {
		t.Fatalf("after an operation that was canceled: %v", err)
	}
	third()
	result = b.begun(t, ctx, "d.vhdx", r)
	end()
	synctest.Wait()
	select {
	case err := <-result:
		t.Fatalf("one of two writers was waited for: %v", err)
	default:
	}
	again()
	must.Succeed(t, <-result)
	if len(b.Manager.files) != 0 {
		t.Errorf("%d files are still noted", len(b.Manager.files))
	}
}

// TestManager_Scratch: two clients that bring a file of one name at once do not share
// anything, and who is killed leaves nothing that is in the way.
func TestManager_Scratch(t *testing.T) {
	b := start(t)
	begin := func(like string, p []byte) string {
		f, err := b.NewScratch(ctx, like, int64(len(p)))
		must.Succeed(t, err)
		must.Succeed(t, f.WriteAt(ctx, p, 0))
		return f.Name()
	}
	one, two := begin("a.img", noise(1, mib)), begin("a.img", noise(2, 2*mib))
	must.Succeed(t, b.Finish(ctx, Naming{Scratch: one, Name: "a.img"}))
	if err := b.Finish(ctx, Naming{Scratch: two, Name: "a.img"}); !errors.Is(err, backstore.ErrExists) {
		t.Errorf("the name is taken: %v", err)
	}
	b.same(t, "a.img", noise(1, mib))
	must.Succeed(t, b.Finish(ctx, Naming{Scratch: two, Name: "a.img", Overwrite: true}))
	b.same(t, "a.img", noise(2, 2*mib))
	for name, err := range map[string]error{
		"no scratch file": b.Finish(ctx, Naming{Scratch: "a.img", Name: "b.img"}),
		"hidden name":     b.Finish(ctx, Naming{Scratch: begin("b.img", nil), Name: ".b.img"}),
		"import of it": func() error {
			_, err := b.Do(ctx, Request{Operation: Import, Source: "a.img", Destination: "c.vhdx"}, nil)
			return err
		}(),
	} {
		if !errors.Is(err, blockdev.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := b.files(); len(got) != 2 || got[1] != "a.img" || !IsScratch(got[0]) {
		t.Errorf("left are %s", got)
	}
	b.restart(t)
	if got := fmt.Sprint(b.files()); got != "[a.img]" {
		t.Errorf("left after a start are %s", got)
	}
}

// TestManager_Scratch_Abandoned: a scratch file is removed after an hour without use,
// though no client asks for another one.
func TestManager_Scratch_Abandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		var names [3]string
		for i := range names {
			f, err := b.NewScratch(ctx, "d.vhdx", mib)
			must.Succeed(t, err)
			names[i] = f.Name()
		}
		end, err := b.Write(names[1]) // a write that takes long
		must.Succeed(t, err)
		time.Sleep(scratchIdle - time.Minute)
		b.Touch(names[2])
		time.Sleep(time.Minute + sweepPeriod)
		synctest.Wait()
		if got := b.files(); len(got) != 2 || !slices.Contains(got, names[1]) || !slices.Contains(got, names[2]) {
			t.Errorf("left of %s are %s", names, got)
		}
		end()
		time.Sleep(scratchIdle + sweepPeriod)
		synctest.Wait()
		if got := b.files(); len(got) != 0 || len(b.scratch) != 0 {
			t.Errorf("left are %s, remembered %d", got, len(b.scratch))
		}
	})
}

// TestNew_ReadOnly: what a killed client left does not keep a store from being opened for
// reading alone.
func TestNew_ReadOnly(t *testing.T) {
	m := medium{vfs.NewMem()}
	b := open(t, m)
	_, err := b.NewScratch(ctx, "d.vhdx", mib)
	must.Succeed(t, err)
	b.close(t)
	store, err := backstore.Open(ctx, backstore.Options{Dir: "/store", Log: logs.Discard(), FS: m.fs, ReadOnly: true})
	must.Succeed(t, err)
	defer func() { must.Succeed(t, store.Close()) }()
	r, err := New(ctx, Config{Store: store, Uses: servedFiles{}, Log: logs.Discard()})
	must.Succeed(t, err)
	r.Close()
}

// TestManager_ImportExport: a disk comes in and goes out by a scratch file, with its
// identity where the format is the same, over parents that count from its new place.
func TestManager_ImportExport(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		want := with(make([]byte, 8*mib), noise(1, 3*mib), mib)
		b.do(t, Request{Operation: Create, Destination: "dir/base" + ext, Size: 8 * mib})
		b.write(t, "dir/base"+ext, want[mib:4*mib], mib)
		b.do(t, Request{Operation: Snapshot, Source: "dir/base" + ext, Destination: "dir/child" + ext})
		b.write(t, "dir/child"+ext, noise(2, mib), 5*mib)
		child := with(want, noise(2, mib), 5*mib)
		out := b.do(t, Request{Operation: Export, Source: "dir/child" + ext, Destination: "x" + ext})
		b.store.DeleteFile(ctx, "dir/child"+ext)
		if _, err := b.Do(ctx, Request{Operation: Import, Source: out.Name, Destination: "dir/base" + ext}, nil); !errors.Is(err, backstore.ErrExists) {
			t.Errorf("the name is taken: %v", err)
		}
		b.do(t, Request{Operation: Import, Source: out.Name, Destination: "dir/again" + ext})
		b.same(t, "dir/again"+ext, child)
		out = b.do(t, Request{Operation: Export, Source: "dir/again" + ext, Destination: "x" + ext})
		b.do(t, Request{Operation: Import, Source: out.Name, Destination: "dir/whole.img"})
		b.same(t, "dir/whole.img", child)
		out = b.do(t, Request{Operation: Export, Source: "dir/again" + ext, Destination: "x" + ext, Fixed: true})
		b.do(t, Request{Operation: Import, Source: out.Name, Destination: "dir/again" + ext, Overwrite: true})
		b.same(t, "dir/again"+ext, child)
		if got := fmt.Sprint(b.files()); got != fmt.Sprint([]string{"dir/again" + ext, "dir/base" + ext, "dir/whole.img"}) {
			t.Errorf("files are %s", got)
		}
	})
}
