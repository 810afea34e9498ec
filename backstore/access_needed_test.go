package backstore

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/internal/kit/logs"
	"odx/internal/kit/sample"
)

// TestHarmlessNames: what has the name of a file of the store, and is none and not needed,
// is no finding of a check, and nothing that a repair has lost.
func TestHarmlessNames(t *testing.T) {
	for what, put := range map[string]func(name string) error{
		"directory": func(name string) error { return os.MkdirAll(filepath.Join(name, "sub"), 0o700) },
		"pipe":      func(name string) error { return syscall.Mkfifo(name, 0o600) },
	} {
		for i, base := range []string{"journal/spare-1.journal", "journal/3fffffffffffffff.journal", "segments/00000050.seg", "segments/00000050.spare"} {
			if (i+len(what))%sample.Size(4, 2, 1) > 0 {
				continue
			}
			t.Run(what+" "+base, func(t *testing.T) {
				ctx := t.Context()
				o := repairOptions
				o.Dir, o.Log = filepath.Join(t.TempDir(), "store"), logs.Discard()
				want := repairDisk(t, o)
				if err := put(filepath.Join(o.Dir, base)); err != nil {
					t.Fatal(err)
				}
				s, err := Open(ctx, readOnly(o))
				if err != nil {
					t.Fatal(err)
				}
				if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
					t.Errorf("check: %q, %v", findings, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				for _, to := range []string{o.Dir + ".to", ""} {
					r, err := Repair(ctx, RepairOptions{Options: o, To: to})
					if err != nil || len(r.Lost) > 0 || r.LostBytes > 0 {
						t.Errorf("repair to %q: %+v, %v", to, r.Lost, err)
					}
				}
				if s, err = Open(ctx, o); err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if got, lost := readable(t, s); len(lost) > 0 || !maps.Equal(got, want) {
					t.Errorf("%v is lost", lost)
				}
			})
		}
	}
}

// TestRescue_Permission: a store is not shown without a file of the journal that it needs
// and that may not be opened, and a check of one with such files finds nothing wrong.
func TestRescue_Permission(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(repairOptions))
	o := readOnly(d.options(repairOptions))
	o.FS = denied{FS: d.fs, open: noAccess(".journal")}
	s, err := Open(t.Context(), o)
	if err == nil {
		s.Close()
		t.Fatal("a store opens without its journal")
	}
	if text := err.Error(); !strings.Contains(text, ".journal") || !strings.Contains(text, whoami()) || !strings.Contains(text, "chown") || strings.Contains(text, "corrupt") {
		t.Errorf("the journal: %v", err)
	}
	o.FS = denied{FS: d.fs, open: noAccess("00000001.seg")}
	if s, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	findings, err := s.Check(t.Context())
	if !errors.Is(err, fs.ErrPermission) || len(findings) > 0 || !strings.Contains(err.Error(), "00000001.seg") || !strings.Contains(err.Error(), whoami()) {
		t.Errorf("check without a segment: %q, %v", findings, err)
	}
}

// TestRepair_SparesMayNotBeRead: nothing is in spare files.
func TestRepair_SparesMayNotBeRead(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(repairOptions))
	for _, name := range []string{"/store/segments/00000077.spare", "/store/journal/spare7.journal"} {
		f, err := d.fs.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, to := range []string{"/new", ""} {
		o := d.options(repairOptions)
		o.FS = denied{FS: d.fs, open: noAccess(".spare", "spare7.journal")}
		if r, err := Repair(t.Context(), RepairOptions{Options: o, To: to}); err != nil || len(r.Lost) > 0 {
			t.Errorf("repair to %q: %+v, %v", to, r.Lost, err)
		}
	}
}
