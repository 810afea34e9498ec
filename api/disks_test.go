package api

import (
	"context"
	"errors"
	"testing"

	"odx/backstore"
	"odx/target"
	"odx/vhd"
	"odx/vhd/disk"
)

func TestDisks(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a Administrator) {
		ctx := t.Context()
		fill(t, s, 8192)
		told := 0
		r, err := a.ChangeDisk(ctx, DiskRequest{Operation: vhd.FromVolume, Source: "src", Destination: "images/a.vhdx"}, func(p DiskProgress) {
			told++
			if p.Total != 64<<20 || p.Done > p.Total {
				t.Errorf("progress %+v", p)
			}
		})
		if err != nil || r.Name != "images/a.vhdx" || r.MovedBytes != 0 || r.MappedBytes == 0 || r.Duration <= 0 || told == 0 {
			t.Fatalf("%+v, %v; told %d times", r, err, told)
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
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a Administrator) {
		ctx := t.Context()
		if _, err := a.CreateFile(ctx, "junk.vhd", 4096); err != nil {
			t.Fatal(err)
		}
		describe := func(name string) error { _, err := a.Disk(ctx, name); return err }
		change := func(r DiskRequest) error { _, err := a.ChangeDisk(ctx, r, nil); return err }
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, canceled := a.ChangeDisk(ended, DiskRequest{Operation: vhd.Create, Destination: "x.vhd", Size: 1 << 20}, nil)
		for name, tt := range map[string]struct{ err, want error }{
			"none":         {describe("none.vhd"), backstore.ErrNotFound},
			"no disk":      {describe("junk.vhd"), disk.ErrFormat},
			"no operation": {change(DiskRequest{Operation: "fold"}), backstore.ErrInvalid},
			"no source":    {change(DiskRequest{Operation: vhd.Compact, Source: "none.vhd"}), backstore.ErrNotFound},
			"exists":       {change(DiskRequest{Operation: vhd.Create, Destination: "junk.vhd", Size: 1 << 20}), backstore.ErrExists},
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
