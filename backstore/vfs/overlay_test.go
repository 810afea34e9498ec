package vfs

import (
	"os"
	"path/filepath"
	"testing"

	"odx/internal/kit/must"
)

// The overlay shows the base and does not modify it.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	for _, file := range []string{"kept", "changed", "removed", "renamed", "replaced"} {
		must.Succeed(t, os.WriteFile(name(file), []byte("content of "+file), 0o400))
	}
	o := Overlay(OS())
	f, err := o.Open(name("changed"))
	must.Succeed(t, err)
	_, err = f.WriteAt([]byte("CONTENT"), 0)
	must.Succeed(t, err)
	must.Succeed(t, f.Truncate(9000))
	_, err = f.WriteAt([]byte("end"), 8998)
	must.Succeed(t, err)
	must.Succeed(t, f.Close())
	must.Succeed(t, o.Remove(name("removed")))
	must.Succeed(t, o.Rename(name("renamed"), name("replaced")))
	create(t, o, name("made"), "new").Close()
	must.Succeed(t, o.MkdirAll(name("d/e")))
	create(t, o, name("d/e/f"), "deep").Close()

	names, err := o.List(dir)
	must.Succeed(t, err)
	if got := len(names); got != 5 {
		t.Errorf("names %q, want changed, d, kept, made, replaced", names)
	}
	want := make([]byte, 9001)
	copy(want, "CONTENT of changed")
	copy(want[8998:], "end")
	for file, want := range map[string]string{
		"kept": "content of kept", "changed": string(want), "replaced": "content of renamed", "made": "new", "d/e/f": "deep",
	} {
		if got := content(t, o, name(file)); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	for _, file := range []string{"kept", "changed", "removed", "renamed", "replaced"} {
		b, err := os.ReadFile(name(file))
		if err != nil || string(b) != "content of "+file {
			t.Errorf("%s below: %q, %v", file, b, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
		t.Errorf("%d files below, %v, want 5", len(entries), err)
	}
}
