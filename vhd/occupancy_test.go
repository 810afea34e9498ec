package vhd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
)

// begun starts an operation, and returns once it waits for the writers of a file.
func (b *bed) begun(t *testing.T, c context.Context, name string, r Request) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := b.Do(c, r, nil)
		result <- err
	}()
	for waiting := false; !waiting; {
		select {
		case err := <-result:
			t.Fatalf("%s did not wait: %v", r.Operation, err)
		case <-time.After(time.Millisecond):
		}
		b.mu.Lock()
		waiting = b.Manager.files[name] != nil && b.Manager.files[name].idle != nil
		b.mu.Unlock()
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
		})
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
	// An abandoned scratch file is removed after an hour without use, or at a start.
	left := begin("d.vhdx", noise(3, mib))
	b.Touch(left)
	must.Succeed(t, b.dropAbandoned(ctx, time.Now().Add(-time.Hour)))
	if _, err := b.store.File(left); err != nil {
		t.Errorf("one that is in use: %v", err)
	}
	must.Succeed(t, b.dropAbandoned(ctx, time.Now().Add(time.Hour)))
	if got := fmt.Sprint(b.files()); got != "[a.img]" {
		t.Errorf("left are %s", got)
	}
	begin("d.vhdx", noise(3, mib))
	m, err := New(ctx, Config{Store: b.store, Engine: b.tokens.Engine(), Uses: b.served, Log: b.log})
	must.Succeed(t, err)
	b.Manager = m
	if got := fmt.Sprint(b.files()); got != "[a.img]" {
		t.Errorf("left after a start are %s", got)
	}
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
