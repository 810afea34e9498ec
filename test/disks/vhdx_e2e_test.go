//go:build e2e

package disks

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/harness"
	"odx/vhd/disk"
	"odx/vhd/vhdxfile"
)

const mib = 1 << 20

// vhdxHost is a container in a file of the host.
type vhdxHost struct {
	*os.File
	// drop, if it is set, is asked which writes never reach the disk.
	drop func(off int64) bool
}

// vhdxOpen opens or makes a file of the host.
func vhdxOpen(t *testing.T, path string) *vhdxHost {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &vhdxHost{File: f}
}

func (h *vhdxHost) Size() int64 {
	info, err := h.Stat()
	if err != nil {
		panic(err)
	}
	return info.Size()
}

func (h *vhdxHost) ReadAt(_ context.Context, p []byte, off int64) error {
	_, err := h.File.ReadAt(p, off)
	return err
}

func (h *vhdxHost) WriteAt(_ context.Context, p []byte, off int64) error {
	if h.drop != nil && h.drop(off) {
		return nil
	}
	_, err := h.File.WriteAt(p, off)
	return err
}

func (h *vhdxHost) Unmap(ctx context.Context, off, length int64) error {
	return h.WriteAt(ctx, make([]byte, length), off)
}

func (h *vhdxHost) Truncate(_ context.Context, size int64) error { return h.File.Truncate(size) }
func (h *vhdxHost) Barrier(context.Context) error                { return nil }
func (h *vhdxHost) Flush(context.Context) error                  { return h.Sync() }

// vhdxRead returns what a disk reads, over a parent that reads as base.
func vhdxRead(t *testing.T, r blockdev.Reader, f *vhdxfile.File, base []byte) []byte {
	t.Helper()
	g := f.Info().Geometry
	content := make([]byte, g.Size)
	copy(content, base)
	for i := range g.Blocks() {
		p := content[i*g.BlockLength : min((i+1)*g.BlockLength, g.Size)]
		b := blockOf(f, i)
		switch b.State {
		case disk.Zero:
			clear(p)
		case disk.Full, disk.Partial:
			data := make([]byte, len(p))
			harness.Must(t, r.ReadAt(t.Context(), data, b.Offset))
			sectors := int64(len(p)) / g.SectorLength
			bits, err := f.Present(t.Context(), i, 0, sectors)
			harness.Must(t, err)
			for n := range sectors {
				if bits.Get(n) {
					copy(p[n*g.SectorLength:][:g.SectorLength], data[n*g.SectorLength:])
				}
			}
		}
	}
	return content
}

// vhdxFill writes content to a disk, whole blocks, apart from those that are zeros.
func vhdxFill(t *testing.T, c disk.Container, f *vhdxfile.File, content []byte) {
	t.Helper()
	g := f.Info().Geometry
	harness.Must(t, f.Changing(t.Context()))
	var blocks []int64
	for i := range g.Blocks() {
		if p := content[i*g.BlockLength : min((i+1)*g.BlockLength, g.Size)]; bytes.Count(p, []byte{0}) < len(p) {
			blocks = append(blocks, i)
		}
	}
	// Not in order, so that the file is not the disk with something before it.
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	harness.Must(t, f.Allocate(t.Context(), blocks))
	for _, i := range blocks {
		harness.Must(t, c.WriteAt(t.Context(), content[i*g.BlockLength:min((i+1)*g.BlockLength, g.Size)], blockOf(f, i).Offset))
	}
}

// vhdxCheck fails the test if Check finds something harmful.
func vhdxCheck(t *testing.T, r blockdev.Reader) {
	t.Helper()
	found, err := vhdxfile.Check(t.Context(), r)
	harness.Must(t, err)
	for _, f := range found {
		if t.Log("Check: " + f.Text); !f.Harmless {
			t.Errorf("Check finds something harmful: %s", f.Text)
		}
	}
}

// vhdxContent makes a disk with data here and there.
func vhdxContent(size int64) []byte {
	p := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{7})
	for _, at := range []int64{0, 5*mib + 4096, 17 * mib, 33*mib - 512, size - 512} {
		if at+512 <= size {
			rng.Read(p[at:min(at+1*mib, size)])
		}
	}
	return p
}

// vhdxRaw writes content to a raw image.
func vhdxRaw(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raw")
	harness.Must(t, os.WriteFile(path, content, 0o600))
	return path
}

// TestVHDXOfQemu reads images that qemu-img made and filled, and changes them so
// that qemu-img reads the change.
func TestVHDXOfQemu(t *testing.T) {
	qemuImg := harness.Program(t, "qemu-img", "qemu-utils")
	for _, options := range []string{
		"subformat=dynamic", "subformat=fixed", "subformat=dynamic,block_size=1M", "subformat=dynamic,block_size=256M",
		"subformat=fixed,block_size=2M", "subformat=dynamic,log_size=4M", "subformat=fixed,block_state_zero=off", "subformat=dynamic,block_state_zero=on",
	} {
		t.Run(options, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			content := vhdxContent(50*mib + 8*512)
			raw, image := vhdxRaw(t, content), filepath.Join(t.TempDir(), "vhdx")
			harness.Run(ctx, t, qemuImg, "create", "-f", "vhdx", "-o", options, image, fmt.Sprint(len(content)))
			harness.Run(ctx, t, qemuImg, "convert", "-n", "-f", "raw", "-O", "vhdx", raw, image)
			c := vhdxOpen(t, image)
			vhdxCheck(t, c)
			r, err := vhdxfile.OpenReadOnly(ctx, c)
			harness.Must(t, err)
			if !bytes.Equal(vhdxRead(t, c, r, nil), content) {
				t.Error("an image of qemu-img reads other than what is in it")
			}
			f, err := vhdxfile.Open(ctx, c)
			harness.Must(t, err)
			copy(content[9*mib:], "written by odx")
			vhdxFill(t, c, f, content)
			harness.Must(t, f.Close(ctx))
			vhdxCheck(t, c)
			harness.Run(ctx, t, qemuImg, "compare", "-f", "raw", "-F", "vhdx", vhdxRaw(t, content), image)
		})
	}
}

// TestVHDXOfQemuKilled reads images whose writer was killed.
func TestVHDXOfQemuKilled(t *testing.T) {
	qemuImg, qemuIO := harness.Program(t, "qemu-img", "qemu-utils"), harness.Program(t, "qemu-io", "qemu-utils")
	for n := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		image := filepath.Join(t.TempDir(), "vhdx")
		harness.Run(ctx, t, qemuImg, "create", "-f", "vhdx", "-o", "subformat=dynamic,block_size=1M", image, "64M")
		args := []string{"-f", "vhdx"}
		for i := range 60 {
			args = append(args, "-c", fmt.Sprintf("write -P %d %dM 4k", i+1, i))
		}
		alive := ctx
		if n > 0 { // it is killed when its context ends
			alive, cancel = context.WithTimeout(ctx, time.Duration(n)*15*time.Millisecond)
			defer cancel()
		}
		_ = exec.CommandContext(alive, qemuIO, append(args, "-c", "abort", image)...).Run()
		c := vhdxOpen(t, image)
		vhdxCheck(t, c)
		f, err := vhdxfile.Open(ctx, c)
		harness.Must(t, err)
		content := vhdxRead(t, c, f, nil)
		written := 0
		for i := range 60 {
			switch content[i*mib] {
			case byte(i + 1):
				written++
			case 0:
			default:
				t.Errorf("block %d reads %d", i, content[i*mib])
			}
		}
		if n == 0 && written != 60 {
			t.Errorf("%d of 60 writes are there before abort", written)
		}
		t.Logf("%d writes are there", written)
		harness.Must(t, f.Close(ctx))
		harness.Run(ctx, t, qemuImg, "check", "-f", "vhdx", image)
	}
}

// TestVHDXOfOdx has qemu-img and vhdiinfo judge our files.
func TestVHDXOfOdx(t *testing.T) {
	qemuImg, vhdiinfo := harness.Program(t, "qemu-img", "qemu-utils"), harness.Program(t, "vhdiinfo", "libvhdi-utils")
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic} {
		for _, blockLength := range []int64{0, 1 * mib, 2 * mib, 256 * mib} {
			t.Run(fmt.Sprintf("%d/%d", kind, blockLength), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				content := vhdxContent(50*mib + 8*512)
				image := filepath.Join(t.TempDir(), "vhdx")
				c := vhdxOpen(t, image)
				f, err := vhdxfile.Create(ctx, c, disk.Spec{Kind: kind, Geometry: disk.Geometry{Size: int64(len(content)), BlockLength: blockLength}})
				harness.Must(t, err)
				vhdxFill(t, c, f, content)
				harness.Must(t, f.Close(ctx))
				vhdxJudge(ctx, t, qemuImg, image, content)
				t.Log(harness.Run(ctx, t, vhdiinfo, image))

				// And again with blocks that are freed.
				f, err = vhdxfile.Open(ctx, c)
				harness.Must(t, err)
				harness.Must(t, f.Free(ctx, []int64{0}))
				clear(content[:min(f.Info().BlockLength, int64(len(content)))])
				harness.Must(t, f.Close(ctx))
				vhdxJudge(ctx, t, qemuImg, image, content)
			})
		}
	}
}

// vhdxJudge has qemu-img say what it thinks of an image.
func vhdxJudge(ctx context.Context, t *testing.T, qemuImg, image string, content []byte) {
	t.Helper()
	if info := harness.Run(ctx, t, qemuImg, "info", "-f", "vhdx", image); !strings.Contains(info, fmt.Sprint(len(content))) {
		t.Errorf("qemu-img info: %s", info)
	}
	harness.Run(ctx, t, qemuImg, "check", "-f", "vhdx", image)
	harness.Run(ctx, t, qemuImg, "compare", "-f", "raw", "-F", "vhdx", vhdxRaw(t, content), image)
}

// TestVHDXLogOfOdx leaves a log with many entries, of which the last one was not
// applied. qemu refuses such an image, replays its log on request, and reads what we
// wrote. The log is renewed many times before.
func TestVHDXLogOfOdx(t *testing.T) {
	qemuImg := harness.Program(t, "qemu-img", "qemu-utils")
	for _, changes := range []int{1, 3, 127, 128, 129, 300} {
		t.Run(fmt.Sprint(changes), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			content := make([]byte, 40*mib)
			image := filepath.Join(t.TempDir(), "vhdx")
			c := vhdxOpen(t, image)
			f, err := vhdxfile.Create(ctx, c, disk.Spec{Kind: disk.Dynamic, Geometry: disk.Geometry{Size: 40 * mib, BlockLength: 1 * mib}})
			harness.Must(t, err)
			for n := range int64(changes) {
				i := n % 40
				if n == int64(changes)-1 {
					// The BAT is not written any more.
					c.drop = func(off int64) bool { return off >= 3*mib && off < 4*mib }
				}
				if blockOf(f, i).State == disk.Full {
					harness.Must(t, f.Free(ctx, []int64{i}))
					clear(content[i*mib : (i+1)*mib])
					continue
				}
				harness.Must(t, f.Allocate(ctx, []int64{i}))
				copy(content[i*mib:], bytes.Repeat([]byte{byte(n + 1)}, mib))
				harness.Must(t, c.WriteAt(ctx, content[i*mib:(i+1)*mib], blockOf(f, i).Offset))
			}
			r, err := vhdxfile.OpenReadOnly(ctx, c)
			harness.Must(t, err)
			if !bytes.Equal(vhdxRead(t, c, r, nil), content) {
				t.Error("we do not read it right")
			}
			if err := exec.CommandContext(ctx, qemuImg, "check", "-f", "vhdx", image).Run(); err == nil {
				t.Error("qemu-img check does not see that the log is in use")
			}
			harness.Run(ctx, t, qemuImg, "check", "-f", "vhdx", "-r", "all", image)
			vhdxJudge(ctx, t, qemuImg, image, content)
			vhdxCheck(t, c)
		})
	}
}

// vhdxReader reads a disk with a parent by the library of vhdiinfo.
const vhdxReader = `
import pyvhdi, sys
files = [pyvhdi.file() for _ in sys.argv[2:]]
for f, name in zip(files, sys.argv[2:]):
    f.open(name)
for f, parent in zip(files, files[1:]):
    f.set_parent(parent)
with open(sys.argv[1], "wb") as out:
    while out.tell() < files[0].get_media_size():
        out.write(files[0].read_buffer(1 << 20))
`

// TestVHDXChildOfOdx has libvhdi read a differencing disk over its parent.
func TestVHDXChildOfOdx(t *testing.T) {
	vhdiinfo := harness.Program(t, "vhdiinfo", "libvhdi-utils")
	python := "/usr/bin/python3" // Debian's, which has the package
	if exec.Command(python, "-c", "import pyvhdi").Run() != nil {
		harness.Missing(t, "the Python module pyvhdi is not installed (Debian package python3-libvhdi)")
	}
	for _, blockLength := range []int64{1 * mib, 32 * mib} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		content := vhdxContent(50 * mib)
		dir := t.TempDir()
		spec := disk.Spec{Kind: disk.Dynamic, Geometry: disk.Geometry{Size: int64(len(content)), BlockLength: blockLength}}
		base := vhdxOpen(t, filepath.Join(dir, "base.vhdx"))
		p, err := vhdxfile.Create(ctx, base, spec)
		harness.Must(t, err)
		vhdxFill(t, base, p, content)
		harness.Must(t, p.Close(ctx))

		spec.Kind, spec.Parent = disk.Differencing, &disk.Parent{ID: p.Info().ID, Paths: []string{"base.vhdx"}}
		c := vhdxOpen(t, filepath.Join(dir, "child.vhdx"))
		f, err := vhdxfile.Create(ctx, c, spec)
		harness.Must(t, err)
		last := p.Info().Blocks() - 1
		harness.Must(t, f.Allocate(ctx, []int64{last, 0}))
		for _, run := range [][2]int64{{0, 1}, {100, 28}, {1000, 1}, {1001, 300}} {
			for _, i := range []int64{0, last} {
				data := bytes.Repeat([]byte{byte(run[0]) + 1}, int(run[1]*512))
				harness.Must(t, c.WriteAt(ctx, data, blockOf(f, i).Offset+run[0]*512))
				harness.Must(t, f.SetPresent(ctx, i, run[0], run[1]))
				copy(content[i*blockLength+run[0]*512:], data)
			}
		}
		if blockLength == 1*mib {
			// Not Free: libvhdi 20210425 reads blocks that are zeros from the parent.
			harness.Must(t, f.Complete(ctx, []int64{17}))
			clear(content[17*mib : 18*mib])
		}
		harness.Must(t, f.Close(ctx))
		vhdxCheck(t, c)
		out := filepath.Join(dir, "out")
		harness.Run(ctx, t, python, "-c", vhdxReader, out, c.Name(), base.Name())
		got, err := os.ReadFile(out)
		harness.Must(t, err)
		if !bytes.Equal(got, content) {
			for i := int64(0); i < int64(len(content)); i += mib {
				if !bytes.Equal(got[i:i+mib], content[i:i+mib]) {
					t.Errorf("blocks of %d: libvhdi reads something else at %d MiB", blockLength, i/mib)
				}
			}
		}
		if !bytes.Equal(vhdxRead(t, c, f, vhdxRead(t, base, p, nil)), content) {
			t.Errorf("blocks of %d: we read something else", blockLength)
		}
		t.Log(harness.Run(ctx, t, vhdiinfo, c.Name()))
	}
}
