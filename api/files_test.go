package api

import (
	"errors"
	"testing"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/target"
)

func TestFiles(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		fill(t, s, 8192)
		f, err := a.CreateFile(ctx, "images/a.raw", 10_001)
		if err != nil || f.Name != "images/a.raw" || f.SizeBytes != 10_001 || f.Created.IsZero() {
			t.Fatalf("made %+v, %v", f, err)
		}
		if err := a.WriteVolume(ctx, "file:images/a.raw", []byte("end"), 9_998); err != nil {
			t.Error(err)
		}
		if c, err := a.CopyFile(ctx, "file:images/a.raw", "b"); err != nil || c.SizeBytes != 10_001 || c.ID == f.ID {
			t.Errorf("copied %+v, %v", c, err)
		}
		if c, err := a.CopyFile(ctx, "src", "of a volume"); err != nil || c.SizeBytes != 64<<20 {
			t.Errorf("copied %+v, %v", c, err)
		}
		if r, err := a.ResizeFile(ctx, "images/a.raw", 5); err != nil || r.SizeBytes != 5 {
			t.Errorf("resized %+v, %v", r, err)
		}
		if r, err := a.RenameFile(ctx, "images/a.raw", "of a volume"); err != nil || r.Name != "of a volume" || r.ID != f.ID {
			t.Errorf("renamed %+v, %v", r, err)
		}
		got := make([]byte, 3)
		if err := a.ReadVolume(ctx, "file:b", got, 9_998); err != nil || string(got) != "end" {
			t.Errorf("the copy ends in %q, %v", got, err)
		}
		if err := a.DeleteFile(ctx, "b"); err != nil {
			t.Error(err)
		}
		all, err := a.Files(ctx)
		if err != nil || len(all) != 1 || all[0].Name != "of a volume" || all[0].SizeBytes != 5 {
			t.Errorf("files %+v, %v", all, err)
		}
		if v, err := a.Volumes(ctx); err != nil || len(v) != 1 {
			t.Errorf("volumes %+v, %v", v, err)
		}
	})
}

func TestFileErrors(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		if _, err := a.CreateFile(ctx, "a", 0); err != nil {
			t.Fatal(err)
		}
		create := func(name string, size int64) error { _, err := a.CreateFile(ctx, name, size); return err }
		rename := func(name, to string) error { _, err := a.RenameFile(ctx, name, to); return err }
		start := func(name string) error { _, err := a.StartFile(ctx, admin.FileStart{Name: name}); return err }
		for name, tt := range map[string]struct{ err, want error }{
			"taken":          {create("a", 0), backstore.ErrExists},
			"absolute":       {create("/a", 0), blockdev.ErrInvalid},
			"hidden":         {create(".a", 0), blockdev.ErrInvalid},
			"up":             {create("a/../b", 0), blockdev.ErrInvalid},
			"directory":      {create("a/", 0), blockdev.ErrInvalid},
			"negative":       {create("b", -1), blockdev.ErrInvalid},
			"start up":       {start("../a"), blockdev.ErrInvalid},
			"start hidden":   {start(".a"), blockdev.ErrInvalid},
			"start nothing":  {start(""), blockdev.ErrInvalid},
			"rename to up":   {rename("a", "x/../y"), blockdev.ErrInvalid},
			"rename nothing": {rename("none", "b"), backstore.ErrNotFound},
			"delete nothing": {a.DeleteFile(ctx, "none"), backstore.ErrNotFound},
			"delete up":      {a.DeleteFile(ctx, ".."), backstore.ErrNotFound},
		} {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
			}
		}
		if all, err := a.Files(ctx); err != nil || len(all) != 1 {
			t.Errorf("files %v, %v", all, err)
		}
	})
}
