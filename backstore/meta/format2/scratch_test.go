package format2

import (
	"os"
	"path/filepath"
	"testing"
)

// TestScratch: what a killed process has left is removed by the next one; what is in
// use, and what is not a directory, stays.
func TestScratch(t *testing.T) {
	parent := t.TempDir()
	left := filepath.Join(parent, scratchPrefix+"1")
	file := filepath.Join(parent, scratchPrefix+"file")
	elsewhere := filepath.Join(t.TempDir(), "x")
	for _, dir := range []string{left, elsewhere} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(parent, scratchPrefix+"link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	first, err := newScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	second, err := newScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{left: false, first.dir: true, second.dir: true, file: true, link: true, filepath.Join(elsewhere, "MANIFEST"): true} {
		if _, err := os.Lstat(name); (err == nil) != want {
			t.Errorf("%s is there: %t, want %t", name, err == nil, want)
		}
	}
	for _, s := range []*scratch{first, second} {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(s.dir); err == nil {
			t.Errorf("%s is still there", s.dir)
		}
	}
}
