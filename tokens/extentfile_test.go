package tokens_test

import (
	"bytes"
	"testing"

	"odx/backstore"
	"odx/internal/kit/must"
	"odx/tokens"
)

// openPlain opens a store without deduplication: live data grows by every write, so
// that it shows a copy that moves bytes.
func openPlain(t *testing.T) *extentWorld {
	t.Helper()
	w := &extentWorld{options: newDisk().options()}
	w.options.StoreDuplicates = true
	w.open(t)
	t.Cleanup(func() { w.close(t) })
	return w
}

func (w *extentWorld) createFile(t must.TB, name string, size int64) *backstore.Volume {
	t.Helper()
	f, err := w.store.CreateFile(ctx, name)
	if err == nil {
		err = f.Truncate(ctx, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Copies between files and volumes, and of renamed files, share extents and write no
// byte.
func TestFile_Copy(t *testing.T) {
	w := openPlain(t)
	spaces := map[string]func(name string) *backstore.Volume{
		"volume": func(name string) *backstore.Volume { return w.create(t, name, volumeSize, 512) },
		"file":   func(name string) *backstore.Volume { return w.createFile(t, name, volumeSize) },
		"renamed file": func(name string) *backstore.Volume {
			f := w.createFile(t, name, volumeSize)
			if err := w.store.RenameFile(ctx, name, name+" renamed"); err != nil {
				t.Fatal(err)
			}
			return f
		},
	}
	for from, newSource := range spaces {
		for to, newDestination := range spaces {
			t.Run(from+" to "+to, func(t *testing.T) {
				src, dst, dst2 := newSource(t.Name()+" src"), newDestination(t.Name()+" dst"), newDestination(t.Name()+" copy")
				data := pattern(t, src, 1)
				live := w.store.LiveBytes()
				for _, kind := range kinds {
					tok := mustRead(t, w.manager, src, ranges(0, volumeSize), tokens.ReadOptions{Type: kind.rodType})
					mustWrite(t, w.manager, tok, 0, dst, ranges(0, volumeSize), volumeSize)
				}
				if err := w.manager.Engine().Copy(ctx, src, 4096, dst2, 8192, volumeSize-8192, func(int64) {}); err != nil {
					t.Fatal(err)
				}
				if got := w.store.LiveBytes(); got != live {
					t.Errorf("%d bytes were stored by copies", got-live)
				}
				if !bytes.Equal(contents(t, dst), data) || !bytes.Equal(contents(t, dst2)[8192:], data[4096:volumeSize-4096]) {
					t.Error("wrong data")
				}
			})
		}
	}
}

// Tokens without a snapshot end when their file is truncated, replaced or deleted.
func TestFile_TokenEnds(t *testing.T) {
	for what, end := range map[string]func(s *backstore.Store, f *backstore.Volume) error{
		"cut": func(_ *backstore.Store, f *backstore.Volume) error { return f.Truncate(ctx, 4096) },
		"replaced": func(s *backstore.Store, f *backstore.Volume) error {
			if _, err := s.CreateFile(ctx, "new"); err != nil {
				return err
			}
			return s.RenameFile(ctx, "new", f.Name())
		},
		"deleted": func(s *backstore.Store, f *backstore.Volume) error { return s.DeleteFile(ctx, f.Name()) },
	} {
		t.Run(what, func(t *testing.T) {
			w := openPlain(t)
			src, dst := w.createFile(t, "src", volumeSize), w.createFile(t, "dst", volumeSize)
			data := pattern(t, src, 1)
			var toks []*tokens.Token
			for _, kind := range kinds {
				toks = append(toks, mustRead(t, w.manager, src, ranges(0, 16384), tokens.ReadOptions{Type: kind.rodType}))
			}
			if err := end(w.store, src); err != nil {
				t.Fatal(err)
			}
			for i, kind := range kinds {
				if !kind.pins {
					wantRefused(t, w.manager, toks[i], dst, tokens.ErrCancelled)
					continue
				}
				mustWrite(t, w.manager, toks[i], 0, dst, ranges(0, 16384), 16384)
				if !bytes.Equal(contents(t, dst)[:16384], data[:16384]) {
					t.Errorf("%v: wrong data", kind.rodType)
				}
			}
		})
	}
}

// The bytes of a hash token are found in a clone that is a file, too.
func TestHashToken_clonedFile(t *testing.T) {
	w := openPlain(t)
	src, dst := w.createFile(t, "src", volumeSize), w.createFile(t, "dst", volumeSize)
	data := pattern(t, src, 1)
	tok := mustRead(t, w.manager, src, ranges(0, volumeSize), tokens.ReadOptions{Type: tokens.RODTypeHash})
	if info, err := w.manager.Lookup(tok); err != nil || info.Creator.Volume != "file:src" {
		t.Errorf("the token is of %q, %v", info.Creator.Volume, err)
	}
	if _, err := w.store.CloneFile(ctx, src, "clone"); err != nil {
		t.Fatal(err)
	}
	pattern(t, src, 2)
	live := w.store.LiveBytes()
	mustWrite(t, w.manager, tok, 0, dst, ranges(0, volumeSize), volumeSize)
	if got := w.store.LiveBytes(); got != live {
		t.Errorf("%d bytes were stored by the copy", got-live)
	}
	if !bytes.Equal(contents(t, dst), data) {
		t.Error("wrong data")
	}
}
