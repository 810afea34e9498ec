package api

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/target"
	"odx/vhd"
	"odx/vhd/disk"
)

func TestDisks(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		fill(t, s, 8192)
		reported := 0
		r, err := a.ChangeDisk(ctx, admin.DiskRequest{Operation: vhd.FromVolume, Source: "src", Destination: "images/a.vhdx"}, func(p admin.DiskProgress) {
			reported++
			if p.Total != 64<<20 || p.Done > p.Total {
				t.Errorf("progress %+v", p)
			}
		})
		if err != nil || r.Name != "images/a.vhdx" || r.MovedBytes != 0 || r.MappedBytes == 0 || r.Duration <= 0 || reported == 0 {
			t.Fatalf("%+v, %v; reported %d times", r, err, reported)
		}
		d, err := a.Disk(ctx, "images/a.vhdx")
		if err != nil || d.Format != disk.VHDX || d.Kind != "dynamic" || d.SizeBytes != 64<<20 || d.PlacedBlocks != 1 || !d.Mappable {
			t.Errorf("%+v, %v", d, err)
		}
		if c, err := a.CheckDisk(ctx, "images/a.vhdx"); err != nil || !c.Sound {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

func TestDiskErrors(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		if _, err := a.CreateFile(ctx, "junk.vhd", 4096); err != nil {
			t.Fatal(err)
		}
		describe := func(name string) error { _, err := a.Disk(ctx, name); return err }
		change := func(r admin.DiskRequest) error { _, err := a.ChangeDisk(ctx, r, nil); return err }
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, canceled := a.ChangeDisk(ended, admin.DiskRequest{Operation: vhd.Create, Destination: "x.vhd", Size: 1 << 20}, nil)
		for name, tt := range map[string]struct{ err, want error }{
			"none":         {describe("none.vhd"), backstore.ErrNotFound},
			"no disk":      {describe("junk.vhd"), disk.ErrFormat},
			"no operation": {change(admin.DiskRequest{Operation: "fold"}), blockdev.ErrInvalid},
			"no source":    {change(admin.DiskRequest{Operation: vhd.Compact, Source: "none.vhd"}), backstore.ErrNotFound},
			"exists":       {change(admin.DiskRequest{Operation: vhd.Create, Destination: "junk.vhd", Size: 1 << 20}), backstore.ErrExists},
			"canceled":     {canceled, context.Canceled},
		} {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
			}
		}
		if c, err := a.CheckDisk(ctx, "junk.vhd"); err != nil || c.Sound || len(c.Findings) == 0 {
			t.Errorf("check: %+v, %v", c, err)
		}
	})
}

// TestRenameFile_Parent: no file takes the name of one that differencing disks are over;
// such a one can be renamed.
func TestRenameFile_Parent(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		for _, r := range []admin.DiskRequest{
			{Operation: vhd.Create, Destination: "base.vhdx", Size: 4 << 20}, {Operation: vhd.Create, Destination: "new.vhdx", Size: 4 << 20},
			{Operation: vhd.Snapshot, Source: "base.vhdx", Destination: "child.vhdx"},
		} {
			if _, err := a.ChangeDisk(ctx, r, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"new.vhdx", "child.vhdx"} {
			if _, err := a.RenameFile(ctx, name, "base.vhdx"); !errors.Is(err, vhd.ErrHasChildren) || !strings.Contains(err.Error(), "file base.vhdx is the parent of differencing disks: child.vhdx; ") {
				t.Errorf("%s in place of a parent: %v", name, err)
			}
		}
		if _, err := a.RenameFile(ctx, "base.vhdx", "Base.VHDX"); err != nil {
			t.Error(err)
		}
		if c, err := a.CheckDisk(ctx, "child.vhdx"); err != nil || !c.Sound {
			t.Errorf("the child: %+v, %v", c, err)
		}
		if _, err := a.RenameFile(ctx, "child.vhdx", "new.vhdx"); err != nil {
			t.Error(err)
		}
	})
}

// TestDeleteFile_Parent: the parent of differencing disks is deleted only after them, or
// where the client insists.
func TestDeleteFile_Parent(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		create := func() {
			t.Helper()
			for _, r := range []admin.DiskRequest{
				{Operation: vhd.Create, Destination: "base.vhdx", Size: 4 << 20}, {Operation: vhd.Snapshot, Source: "base.vhdx", Destination: "child.vhdx", Overwrite: true},
			} {
				if _, err := a.ChangeDisk(ctx, r, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		create()
		if err := a.DeleteFile(ctx, "base.vhdx"); !errors.Is(err, vhd.ErrHasChildren) {
			t.Errorf("delete: %v", err)
		}
		if c, err := a.CheckDisk(ctx, "child.vhdx"); err != nil || !c.Sound {
			t.Errorf("the child: %+v, %v", c, err)
		}
		if err := a.DeleteParent(ctx, "base.vhdx"); err != nil {
			t.Errorf("delete with force: %v", err)
		}
		if c, err := a.CheckDisk(ctx, "child.vhdx"); err != nil || c.Sound {
			t.Errorf("the child without a parent: %+v, %v", c, err)
		}
		create()
		for _, name := range []string{"child.vhdx", "base.vhdx"} {
			if err := a.DeleteFile(ctx, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := a.DeleteParent(ctx, "base.vhdx"); !errors.Is(err, backstore.ErrNotFound) {
			t.Errorf("delete again: %v", err)
		}
	})
}

// TestWritesBesideOperations: what a write that was acknowledged has written is there,
// whatever operation on the file begins concurrently.
func TestWritesBesideOperations(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		const writers, rounds, share = 4, 30, 1 << 20
		if _, err := a.CreateFile(ctx, "d.raw", writers*share); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var acknowledged [writers][]byte
		var writing, changing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for i := range rounds {
					p := bytes.Repeat([]byte{byte(1 + w), byte(1 + i)}, share/2)
					switch err := a.WriteVolume(ctx, "file:d.raw", p, int64(w)*share); {
					case err == nil:
						acknowledged[w] = p
					case !errors.Is(err, vhd.ErrBusy):
						t.Error(err)
						return
					}
				}
			})
		}
		changing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := a.ChangeDisk(ctx, admin.DiskRequest{Operation: vhd.Convert, Source: "d.raw", Destination: "d.raw"}, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
		writing.Wait()
		close(stop)
		changing.Wait()
		for w, want := range acknowledged {
			got := make([]byte, share)
			if err := a.ReadVolume(ctx, "file:d.raw", got, int64(w)*share); err != nil {
				t.Fatal(err)
			}
			if want != nil && !bytes.Equal(got, want) {
				t.Errorf("writer %d: the last write that was acknowledged is lost (%v, want %v)", w, got[:2], want[:2])
			}
		}
	})
}
