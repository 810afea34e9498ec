//go:build e2e

package survival

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const (
	takenUnmaps = 1500
	takenBytes  = 64 << 10 // of each UNMAP
)

// TestTakenBlocks: another program takes every block of the file system as soon as it
// is free, while 64 KiB here and there are unmapped. The server goes on: each UNMAP,
// flush, read, cleaning on request, stop and start succeeds, writes come back when
// enough is unmapped, and at once when the disk has room again.
func TestTakenBlocks(t *testing.T) {
	harness.RequireODX(t)
	for _, kind := range strings.Split(*kinds, ",") {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, takenDisk)
			f := &full{t: t, dir: dir, rng: rand.New(rand.NewPCG(2, 5)), want: make([]byte, volumeBytes), client: harness.Client(t)}
			f.target = harness.ServeWith(t, kit.Settings{File: map[string]any{"data_dir": filepath.Join(dir, "store")}},
				kit.LUN{Size: volumeBytes})
			f.session = harness.Open(t, f.client, f.target.URL(0))
			for off := 0; off < volumeBytes; off += piece {
				f.writeAt(off)
			}
			f.fill()
			h := startHog(t, f.filler())
			defer func() { h.end() }() // the target must stop, and its directory be removed
			pieces := f.rng.Perm(volumeBytes / takenBytes)[:takenUnmaps]
			for i, at := range pieces {
				f.unmap(at*takenBytes, takenBytes)
				switch {
				case i%100 == 50:
					f.good("SYNCHRONIZE CACHE on a full disk", f.session.Flush)
				case i%300 == 170 && i < takenUnmaps/2 && f.hasSocket(kind):
					// What it gives to the file system is lost.
					if err := f.target.Admin(t.Context(), nil, "store", "clean"); err != nil {
						t.Fatalf("after %d UNMAPs: odx store clean: %v\n%s", i, err, f.target.LogTail(20))
					}
				case i%300 == 200:
					f.restart(i / 300)
				}
			}
			f.same()
			f.until("writes go on after UNMAPs", f.write)
			f.same()
			f.restart(0)
			h.end()
			f.until("writes go on on a disk with room", f.write)
			f.until("commands reach the server on a disk with room", func() bool {
				return f.target.Admin(t.Context(), nil, "store", "info") == nil
			})
			f.same()
		})
	}
}

// hasSocket reports whether commands reach the server. XFS makes no file, and so no
// socket, without a free block.
func (f *full) hasSocket(kind string) bool {
	_, err := os.Stat(filepath.Join(f.dir, "store", "odx.sock"))
	if err != nil && kind == "xfs" {
		f.t.Logf("not cleaned on request: %v", err)
		return false
	}
	return true
}

const takenDisk = 700 << 20

// hog is a program that takes each free block.
type hog struct {
	t    *testing.T
	name string
	stop chan struct{}
	done chan struct{}
}

func startHog(t *testing.T, name string) *hog {
	t.Helper()
	h := &hog{t: t, name: name, stop: make(chan struct{}), done: make(chan struct{})}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.done)
		defer file.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-h.stop:
				return
			case <-tick.C:
				h.take(file)
			}
		}
	}()
	return h
}

// take takes what is free.
func (h *hog) take(file *os.File) {
	for {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil || fs.Bavail == 0 {
			return
		}
		size, err := file.Seek(0, 2)
		if err != nil {
			return
		}
		n := min(int64(fs.Bavail)*fs.Bsize, 16<<20)
		for ; n >= 4096; n /= 2 {
			if err := unix.Fallocate(int(file.Fd()), 0, size, n); err == nil {
				break
			}
		}
		if n < 4096 {
			return
		}
	}
}

// end gives all blocks back.
func (h *hog) end() {
	select {
	case <-h.stop:
		return
	default:
	}
	close(h.stop)
	<-h.done
	if err := os.Remove(h.name); err != nil {
		h.t.Error(fmt.Errorf("hog: %w", err))
	}
}
