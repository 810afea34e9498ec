package rados

import (
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/backstore/vfs/vfstest"
	"odx/internal/kit/must"
	"odx/owner"
	"odx/owner/ownertest"
)

// sinceStart is a clock.
func sinceStart() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

func TestFS_Suite(t *testing.T) {
	for _, dir := range []string{"/a/b", "/a/segments"} { // files in place, and files of data
		t.Run(dir, func(t *testing.T) {
			vfstest.Run(t, func(t *testing.T) (vfs.FS, string) {
				f := New(NewTwin(sinceStart()).Client())
				must.Succeed(t, f.MkdirAll(dir))
				return f, dir
			})
		})
	}
}

func TestDriver_Suite(t *testing.T) {
	ownertest.Run(t, func(t *testing.T) owner.Driver {
		f := New(NewTwin(sinceStart()).Client())
		must.Succeed(t, f.MkdirAll("/store"))
		return f.Owner("/store")
	})
}
