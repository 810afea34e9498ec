//go:build e2e

package survival

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

var kinds = flag.String("kinds", "tmpfs,ext4", "the file systems, of tmpfs, ext4 and xfs")

var rounds = flag.Int("rounds", 10, "how often TestFullDisk fills the disk, on each file system")

const (
	diskBytes   = 800 << 20 // of the file system
	volumeBytes = 256 << 20
	piece       = 1 << 20
)

// TestFullDisk fills the file system of a store to its last block, again and again:
// the server never ends, starts again without a hand, serves reads, flushes and
// UNMAPs, answers writes with SPACE ALLOCATION FAILED, and takes them again after
// an UNMAP.
func TestFullDisk(t *testing.T) {
	harness.RequireODX(t)
	for _, kind := range strings.Split(*kinds, ",") {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, diskBytes)
			f := &full{t: t, dir: dir, rng: rand.New(rand.NewPCG(1, 5)), want: make([]byte, volumeBytes), client: harness.Client(t)}
			f.target = harness.ServeWith(t, kit.Settings{File: map[string]any{"data_dir": filepath.Join(dir, "store")}},
				kit.LUN{Size: volumeBytes})
			f.session = harness.Open(t, f.client, f.target.URL(0))
			defer f.empty() // the target must stop, and its directory be removed
			for round := range *rounds {
				f.round(round)
			}
			f.same()
		})
	}
}

// mount makes a file system of so many bytes: a tmpfs, or one of another kind on a
// loop device.
func mount(t *testing.T, kind string, bytes int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		harness.Missing(t, "only root can mount a file system")
	}
	dir := t.TempDir()
	args := []string{"-t", "tmpfs", "-o", fmt.Sprintf("size=%d", bytes), "none", dir}
	if kind != "tmpfs" {
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, bytes); err != nil {
			t.Fatal(err)
		}
		mkfs := map[string][]string{
			"ext4": {harness.Program(t, "mkfs.ext4", "e2fsprogs"), "-q", "-m", "0", "-F", image},
			"xfs":  {"mkfs.xfs", "-q", "-f", image},
		}[kind]
		harness.Run(t.Context(), t, mkfs[0], mkfs[1:]...)
		args = []string{"-o", "loop", image, dir}
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		harness.Missing(t, fmt.Sprintf("mount %v: %v: %s", args, err, out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

type full struct {
	t       *testing.T
	dir     string
	rng     *rand.Rand
	want    []byte
	client  *tokenclient.Client
	target  *kit.Target
	session *tokenclient.Session
}

func (f *full) filler() string { return filepath.Join(f.dir, "filler") }

// fill takes every block that is free, as another program would.
func (f *full) fill() {
	f.t.Helper()
	file, err := os.OpenFile(f.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	for n := piece; n >= 4096; {
		if _, err := file.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
	if err := file.Sync(); err != nil {
		f.t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		f.t.Fatal(err)
	}
	if free := st.Bavail * uint64(st.Bsize); free > 1<<20 {
		f.t.Logf("%d KiB are free after filling", free>>10)
	}
}

// empty gives the blocks back. The file stays: another one may not find room for its
// name.
func (f *full) empty() {
	if err := os.WriteFile(f.filler(), nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// command sends a command, again if there is a unit attention (the soft threshold).
func (f *full) command(what string, send func() (tokenclient.Answer, error)) tokenclient.Answer {
	f.t.Helper()
	for {
		a, err := send()
		if err != nil {
			f.t.Fatalf("%s: %v\n%s", what, err, f.target.LogTail(20))
		}
		if a.Status != tokenclient.CheckCondition || a.Sense.Key != 6 {
			return a
		}
	}
}

func (f *full) good(what string, send func() (tokenclient.Answer, error)) {
	f.t.Helper()
	if a := f.command(what, send); !a.Good() {
		f.t.Fatalf("%s: %v\n%s", what, a, f.target.LogTail(20))
	}
}

// write writes a piece at a random place, and reports whether there was room.
func (f *full) write() bool {
	f.t.Helper()
	return f.writeAt(f.rng.IntN(volumeBytes/piece) * piece)
}

func (f *full) writeAt(off int) bool {
	f.t.Helper()
	p := make([]byte, piece)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], f.rng.Uint64())
	}
	a := f.command("write", func() (tokenclient.Answer, error) {
		return f.session.Write(bytes.NewReader(p), uint64(off/blockLength), piece/blockLength, tokenclient.WriteOptions{})
	})
	if a.Good() {
		copy(f.want[off:], p)
		return true
	}
	if s := a.Sense; s.Key != 7 || s.ASC != 0x27 || s.ASCQ != 7 {
		f.t.Fatalf("write to a full disk: %v", a)
	}
	// A part of it may have been written.
	f.read(off, f.want[off:off+piece])
	return false
}

func (f *full) read(off int, p []byte) {
	f.t.Helper()
	var b bytes.Buffer
	f.good("read", func() (tokenclient.Answer, error) {
		b.Reset()
		return f.session.Read(&b, uint64(off/blockLength), uint64(len(p)/blockLength))
	})
	copy(p, b.Bytes())
}

func (f *full) same() {
	f.t.Helper()
	got := make([]byte, volumeBytes)
	for off := 0; off < volumeBytes; off += 8 * piece {
		f.read(off, got[off:off+8*piece])
	}
	if !bytes.Equal(got, f.want) {
		f.t.Fatal("other data is read than was written")
	}
}

// unmap unmaps a range.
func (f *full) unmap(off, length int) {
	f.t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], uint64(off/blockLength))
	binary.BigEndian.PutUint32(list[16:], uint32(length/blockLength))
	f.good("UNMAP on a full disk", func() (tokenclient.Answer, error) {
		return f.session.Command([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0)
	})
	clear(f.want[off : off+length])
}

func (f *full) round(n int) {
	f.t.Helper()
	f.empty()
	f.until("writes work on a disk with room", f.write)
	for range 2 * volumeBytes / piece {
		f.write()
	}
	f.fill()
	for range 4 { // what is left, and then nothing
		f.write()
	}
	f.fill()
	f.good("SYNCHRONIZE CACHE on a full disk", f.session.Flush)
	f.restart(n)
	f.fill()
	f.same()
	start := f.rng.IntN(piece/2) &^ 4095
	for off := start; off+piece/2 <= volumeBytes; off += piece {
		f.unmap(off, piece/2)
	}
	f.until("writes go on after an UNMAP", f.write)
	if !f.target.Running() {
		f.t.Fatalf("round %d: the server has ended\n%s", n, f.target.LogTail(20))
	}
}

// restart stops the server, or kills it, and starts it again.
func (f *full) restart(n int) {
	f.t.Helper()
	f.session.Close()
	stop := f.target.Stop
	if n%2 == 1 {
		stop = f.target.Kill
	}
	if err := stop(); err != nil {
		f.t.Fatalf("round %d: stop on a full disk: %v\n%s", n, err, f.target.LogTail(20))
	}
	if err := f.target.Restart(context.Background()); err != nil {
		f.t.Fatalf("round %d: start on a full disk: %v\n%s", n, err, f.target.LogTail(20))
	}
	f.session = harness.Open(f.t, f.client, f.target.URL(0))
}

// until waits for what the server does by itself.
func (f *full) until(what string, done func() bool) {
	f.t.Helper()
	end := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(end) {
			files, _ := exec.Command("ls", "-lsR", filepath.Join(f.dir, "store")).CombinedOutput()
			f.t.Fatalf("never: %s\n%s\n%s", what, files, f.target.LogTail(30))
		}
	}
}
