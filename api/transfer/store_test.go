package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"odx/admin"
	"odx/api/transfer"
	"odx/backstore"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/target"
)

// start serves a store in dir until the returned function is called.
func start(t *testing.T, dir string) (*admin.Store, func()) {
	t.Helper()
	cfg, err := conf.Parse("odx.yaml", fmt.Appendf(nil, `data_dir: %s
portals: ["127.0.0.1:0"]
targets: [{name: "iqn.2026-11.example.odx:disks", luns: [{lun: 0, volume: src, size: 4MiB}]}]
`, dir))
	if err != nil {
		t.Fatal(err)
	}
	s, err := target.Start(t.Context(), cfg, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	return s.Admin(), stop
}

// names returns the names in the store, listed and hidden.
func names(t *testing.T, a admin.Administrator) string {
	t.Helper()
	files, err := a.Files(t.Context())
	volumes, err2 := a.Volumes(t.Context())
	st, err3 := a.StoreInfo(t.Context())
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		all = append(all, "file:"+f.Name)
	}
	for _, v := range volumes {
		all = append(all, v.Name)
	}
	hidden := 0
	for _, v := range st.Volumes {
		if v.Name != "" && v.Name[0] == '.' {
			hidden++
		}
	}
	return fmt.Sprint(all, " hidden ", hidden)
}

func TestFinisher_Store(t *testing.T) {
	dir := t.TempDir()
	a, stop := start(t, dir)
	makers := map[string]func(existing transfer.Existing) (transfer.Disk, error){
		"volume": func(transfer.Existing) (transfer.Disk, error) {
			return transfer.CreateVolume(t.Context(), a, "new", 1<<20)
		},
		"file": func(e transfer.Existing) (transfer.Disk, error) {
			return transfer.CreateStoreFile(t.Context(), a, "file:images/new.raw", 1<<20, e)
		},
	}
	data := bytes.Repeat([]byte("data"), 1<<18)
	for name, create := range makers {
		empty := names(t, a)
		// A failed copy leaves nothing, whatever its cause.
		out, err := create(transfer.Refuse)
		if err != nil {
			t.Fatal(name, err)
		}
		if err := out.WriteAt(t.Context(), data, 0); err != nil {
			t.Error(name, err)
		}
		if err := out.Close(); err != nil {
			t.Error(name, err)
		}
		if got := names(t, a); got != empty {
			t.Errorf("%s: a failed copy left %s", name, got)
		}
		// Concurrent copies do not interfere; the second finds that the name exists.
		first, err := create(transfer.Refuse)
		second, err2 := create(transfer.Refuse)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(name, err)
		}
		if err := errors.Join(second.WriteAt(t.Context(), make([]byte, 1<<20), 0), first.WriteAt(t.Context(), data, 0), first.Flush(t.Context())); err != nil {
			t.Fatal(name, err)
		}
		if err := errors.Join(first.(transfer.Finisher).Finish(t.Context()), first.Close()); err != nil {
			t.Error(name, err)
		}
		if err := second.(transfer.Finisher).Finish(t.Context()); !errors.Is(err, transfer.ErrExists) && !errors.Is(err, backstore.ErrExists) {
			t.Errorf("%s: the second copy is finished, too: %v", name, err)
		}
		if err := second.Close(); err != nil {
			t.Error(name, err)
		}
	}
	for _, name := range []string{"new", "file:images/new.raw"} {
		got := make([]byte, len(data))
		if err := a.ReadVolume(t.Context(), name, got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %v, equal %v", name, err, bytes.Equal(got, data))
		}
	}
	out, err := makers["file"](transfer.Overwrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(out.(transfer.Finisher).Finish(t.Context()), out.Close()); err != nil {
		t.Error(err)
	}
	if _, err := makers["file"](transfer.Refuse); !errors.Is(err, transfer.ErrExists) {
		t.Errorf("an existing file: %v", err)
	}

	// Unfinished files of a killed process are deleted at the next start.
	whole := names(t, a)
	for name, create := range map[string]func() (transfer.Disk, error){
		"volume": func() (transfer.Disk, error) { return transfer.CreateVolume(t.Context(), a, "killed", 1<<20) },
		"file": func() (transfer.Disk, error) {
			return transfer.CreateStoreFile(t.Context(), a, "file:images/killed.raw", 1<<20, transfer.Refuse)
		},
	} {
		out, err := create()
		if err == nil {
			err = errors.Join(out.WriteAt(t.Context(), data, 0), out.Flush(t.Context()))
		}
		if err != nil {
			t.Fatal(name, err)
		}
	}
	if got := names(t, a); got == whole {
		t.Fatalf("names during two copies: only %s", got)
	}
	stop()
	a, stop = start(t, dir)
	defer stop()
	if got := names(t, a); got != whole {
		t.Errorf("names after the next start: %s, want %s", got, whole)
	}
}

// TestFinisher_ScratchNames: an administrator can neither create nor rename objects
// with scratch names.
func TestFinisher_ScratchNames(t *testing.T) {
	a, stop := start(t, t.TempDir())
	defer stop()
	for _, name := range []string{".part-x", ".part-x.vhdx"} {
		if _, err := a.CreateFile(t.Context(), name, 4096); err == nil {
			t.Errorf("file %s was created", name)
		}
		if _, err := a.CopyFile(t.Context(), "src", name); err == nil {
			t.Errorf("file %s was copied", name)
		}
	}
	if _, err := a.CreateVolume(t.Context(), ".part-x", 4096); err == nil {
		t.Error("a volume with a scratch name was created")
	}
	if _, err := a.FinishVolume(t.Context(), "src", "other"); err == nil {
		t.Error("a LUN's volume was renamed")
	}
}
