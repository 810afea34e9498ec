package vfs_test

import (
	"testing"

	"odx/backstore/vfs"
	"odx/backstore/vfs/vfstest"
	"odx/internal/kit/must"
)

func TestSuite(t *testing.T) {
	inMemory := func(t *testing.T) (*vfs.Mem, string) {
		m := vfs.NewMem()
		must.Succeed(t, m.MkdirAll("/a/b"))
		return m, "/a/b"
	}
	for name, empty := range map[string]func(t *testing.T) (vfs.FS, string){
		"os":  func(t *testing.T) (vfs.FS, string) { return vfs.OS(), t.TempDir() },
		"mem": func(t *testing.T) (vfs.FS, string) { return inMemory(t) },
		"overlay": func(t *testing.T) (vfs.FS, string) {
			m, dir := inMemory(t)
			m.SetHook(func(kind vfs.OpKind, name string) error {
				if kind.Changes() {
					t.Errorf("%v of %s reaches the base", kind, name)
				}
				return nil
			})
			return vfs.Overlay(m), dir
		},
	} {
		t.Run(name, func(t *testing.T) { vfstest.Run(t, empty) })
	}
}
