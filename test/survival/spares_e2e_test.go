//go:build e2e

package survival

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

// TestFullDisk_FalseSpares: on a full disk, with spare files that have few blocks,
// as a copy of a store or a killed process can leave, new data is refused and nothing
// else is: the server flushes, unmaps, stops and starts.
func TestFullDisk_FalseSpares(t *testing.T) {
	harness.RequireODX(t)
	dir := mount(t, "tmpfs", diskBytes)
	f := &full{t: t, dir: dir, rng: rand.New(rand.NewPCG(1, 5)), want: make([]byte, volumeBytes), client: harness.Client(t)}
	f.target = harness.ServeWith(t, kit.Settings{File: map[string]any{"data_dir": filepath.Join(dir, "store")}},
		kit.LUN{Size: volumeBytes})
	f.session = harness.Open(t, f.client, f.target.URL(0))
	defer f.empty() // the target must stop, and its directory be removed
	for i := range 8 {
		f.writeAt(i * piece)
	}
	f.until("the files for a full disk are complete", func() bool {
		f.good("SYNCHRONIZE CACHE", f.session.Flush)
		checkpoints, _ := filepath.Glob(filepath.Join(dir, "store", "reserve", "*.reserve"))
		records, _ := filepath.Glob(filepath.Join(dir, "store", "journal", "*.journal"))
		return len(checkpoints) >= 4 && len(records) >= 3
	})
	f.session.Close()
	if err := f.target.Stop(); err != nil {
		t.Fatal(err)
	}
	falseSpares(t, filepath.Join(dir, "store", "segments"))
	f.fill()
	if err := f.target.Restart(context.Background()); err != nil {
		t.Fatalf("start on a full disk: %v\n%s", err, f.target.LogTail(20))
	}
	f.session = harness.Open(t, f.client, f.target.URL(0))
	for i := range 64 {
		f.smallWrite(i * 2 * smallPiece)
		f.good("SYNCHRONIZE CACHE on a full disk", f.session.Flush)
	}
	f.unmap(piece, piece)
	f.good("SYNCHRONIZE CACHE after UNMAP", f.session.Flush)
	f.same()
	f.restart(0)
	f.same()
}

// falseSpares gives the reserve the lowest number, so that it is found first, and adds
// spare files with two blocks.
func falseSpares(t *testing.T, dir string) {
	t.Helper()
	reserve, err := filepath.Glob(filepath.Join(dir, "ffff*.spare"))
	if err != nil || len(reserve) != 1 {
		t.Fatalf("files of the reserve: %v, %v", reserve, err)
	}
	if err := os.Rename(reserve[0], filepath.Join(dir, "00000040.spare")); err != nil {
		t.Fatal(err)
	}
	for i, length := range []int64{64 << 20, 64 << 20, 5000} {
		name := filepath.Join(dir, fmt.Sprintf("%08x.spare", 0x41+i))
		if err := os.WriteFile(name, make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, length); err != nil {
			t.Fatal(err)
		}
	}
}

// smallPiece is written in one record, and gathered with others.
const smallPiece = 16 << 10

// smallWrite writes a piece, for which there may be no room.
func (f *full) smallWrite(off int) {
	f.t.Helper()
	p := bytes.Repeat([]byte{byte(off >> 12), 1}, smallPiece/2)
	a := f.command("write", func() (tokenclient.Answer, error) {
		return f.session.Write(bytes.NewReader(p), uint64(off/blockLength), smallPiece/blockLength, tokenclient.WriteOptions{})
	})
	switch s := a.Sense; {
	case a.Good():
		copy(f.want[off:], p)
	case s.Key != 7 || s.ASC != 0x27 || s.ASCQ != 7:
		f.t.Fatalf("write to a full disk: %v\n%s", a, f.target.LogTail(20))
	default:
		f.read(off, f.want[off:off+smallPiece]) // a part of it may have been written
	}
}
