package format2

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"odx/internal/kit/must"
	"odx/internal/kit/oldstores"
)

// TestOpen_Damaged: each damaged or missing file of the metadata gives an error that
// names it, or has no effect, and never ends the process.
func TestOpen_Damaged(t *testing.T) {
	stores := oldstores.Stores(t)
	i := slices.IndexFunc(stores, func(s oldstores.Store) bool { return s.Name == "format2-dirty" })
	dir := filepath.Join(stores[i].Unpack(t), "data")
	files, err := os.ReadDir(filepath.Join(dir, directory))
	must.Succeed(t, err)
	tables := 0
	for _, f := range files {
		if filepath.Ext(f.Name()) == ".sst" {
			tables++
		}
		damageFile(t, dir, f.Name())
	}
	if tables == 0 {
		t.Error("the store has no table")
	}
}

// damageFile opens the metadata with one file damaged in several ways.
func damageFile(t *testing.T, dir, name string) {
	path := filepath.Join(dir, directory, name)
	whole, err := os.ReadFile(path)
	must.Succeed(t, err)
	isTable := filepath.Ext(name) == ".sst"
	try := func(what string, b []byte) {
		t.Helper()
		must.Succeed(t, os.WriteFile(path, b, 0o600))
		db, err := Open(dir, t.TempDir(), nil)
		if err == nil {
			err = db.Close()
			if isTable {
				t.Errorf("%s %s was opened", name, what)
			}
		}
		if isTable && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s %s: %v, want %v", name, what, err, ErrDamaged)
		}
	}
	n := len(whole)
	lengths, places := []int{0, 19, n / 3, n - 1}, []int{5, n / 3}
	if isTable {
		lengths, places = append(lengths, 3, n-40, n-5, n-4), append(places, 0, n/2, n-30, n-9, n-6, n-1)
	}
	for _, length := range lengths {
		if length >= 0 && length < n {
			try(fmt.Sprintf("cut to %d of %d bytes", length, n), whole[:length])
		}
	}
	for _, at := range places {
		if at >= 0 && at < n {
			b := append([]byte{}, whole...)
			b[at] ^= 0x41
			try(fmt.Sprintf("changed at %d of %d", at, n), b)
		}
	}
	must.Succeed(t, os.Remove(path))
	if db, err := Open(dir, t.TempDir(), nil); err == nil {
		must.Succeed(t, db.Close())
		if isTable {
			t.Errorf("%s is missing, and the metadata was opened", name)
		}
	}
	must.Succeed(t, os.WriteFile(path, whole, 0o600))
}
