//go:build e2e

package disks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/harness"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
	"odx/vhd/vhdfile"
)

// vhdTest is what the tests of VHD have in common.
type vhdTest struct {
	*testing.T
	ctx             context.Context
	dir             string
	qemuImg, qemuIO string
}

func newVHDTest(t *testing.T) *vhdTest {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return &vhdTest{t, ctx, t.TempDir(), harness.Program(t, "qemu-img", "qemu-utils"), harness.Program(t, "qemu-io", "qemu-utils")}
}

func (t *vhdTest) path(name string) string { return filepath.Join(t.dir, name) }

// load opens a file on the host, of which nothing is found wrong but where other
// programs place blocks.
func (t *vhdTest) load(name string) (*vhdfile.File, *disktest.Memory) {
	t.Helper()
	data, err := os.ReadFile(t.path(name))
	harness.Must(t, err)
	c := disktest.New(data)
	findings, err := vhdfile.Check(t.ctx, c)
	harness.Must(t, err)
	for _, f := range findings {
		if !f.Harmless || !strings.Contains(f.Text, "not at a multiple of 4 KiB") {
			t.Errorf("%s, harmless %v: %s", name, f.Harmless, f.Text)
		}
	}
	f, err := vhdfile.Open(t.ctx, c)
	harness.Must(t, err)
	return f, c
}

// save writes a file to the host.
func (t *vhdTest) save(name string, data []byte) {
	t.Helper()
	harness.Must(t, os.WriteFile(t.path(name), data, 0o600))
}

// contents reads all of a disk, over its parent.
func (t *vhdTest) contents(f *vhdfile.File, c blockdev.Reader, parent []byte) []byte {
	t.Helper()
	info := f.Info()
	all := make([]byte, info.Size)
	copy(all, parent)
	for i := range info.Blocks() {
		b, at := blockOf(f, i), i*info.BlockLength
		length := min(info.BlockLength, info.Size-at)
		if b.State == disk.Absent {
			continue
		}
		p := make([]byte, length)
		harness.Must(t, c.ReadAt(t.ctx, p, b.Offset))
		present, err := f.Present(t.ctx, i, 0, length/512)
		harness.Must(t, err)
		for k := range length / 512 {
			if present.Get(k) {
				copy(all[at+512*k:at+512*k+512], p[512*k:])
			}
		}
	}
	return all
}

// put writes data at an offset of a disk, in one block.
func (t *vhdTest) put(f *vhdfile.File, c disk.Container, off int64, data []byte) {
	t.Helper()
	info := f.Info()
	i, in := off/info.BlockLength, off%info.BlockLength
	if blockOf(f, i).State == disk.Absent {
		harness.Must(t, f.Allocate(t.ctx, []int64{i}))
	}
	harness.Must(t, c.WriteAt(t.ctx, data, blockOf(f, i).Offset+in))
	if blockOf(f, i).State == disk.Partial {
		harness.Must(t, f.SetPresent(t.ctx, i, in/512, int64(len(data))/512))
	}
}

// judge lets qemu compare a VHD with its contents, and libvhdi look at it.
func (t *vhdTest) judge(name string, want []byte) {
	t.Helper()
	t.save("raw", want)
	harness.Run(t.ctx, t, t.qemuImg, "compare", "-f", "vpc", "-F", "raw", t.path(name), t.path("raw"))
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	harness.Must(t, json.Unmarshal([]byte(harness.Run(t.ctx, t, t.qemuImg, "info", "-f", "vpc", "--output=json", t.path(name))), &info))
	if info.Size != int64(len(want)) {
		t.Errorf("qemu says that %s has %d bytes, not %d", name, info.Size, len(want))
	}
	says := t.vhdiinfo(name)
	if !strings.Contains(says, fmt.Sprintf("(%d bytes)", len(want))) {
		t.Errorf("libvhdi says of %s, which has %d bytes:\n%s", name, len(want), says)
	}
}

func (t *vhdTest) vhdiinfo(name string) string {
	t.Helper()
	return harness.Run(t.ctx, t, harness.Program(t, "vhdiinfo", "libvhdi-utils"), t.path(name))
}

// vhdNoise is bytes that no program can leave out.
func vhdNoise(seed byte, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// TestVHDOfQEMU: what qemu-img makes is read right.
func TestVHDOfQEMU(t *testing.T) {
	for _, options := range []string{"subformat=dynamic", "subformat=dynamic,force_size=on", "subformat=fixed", "subformat=fixed,force_size=on"} {
		t.Run(options, func(t *testing.T) {
			v := newVHDTest(t)
			raw := make([]byte, 21<<20+512)
			copy(raw[1000:], vhdNoise(1, 3<<20))
			copy(raw[20<<20:], vhdNoise(2, 1<<20+512))
			v.save("raw", raw)
			harness.Run(v.ctx, t, v.qemuImg, "convert", "-f", "raw", "-O", "vpc", "-o", options, v.path("raw"), v.path("vhd"))
			f, c := v.load("vhd")
			got := v.contents(f, c, nil)
			if len(got) < len(raw) || !bytes.Equal(got[:len(raw)], raw) || len(bytes.Trim(got[len(raw):], "\x00")) > 0 {
				t.Errorf("%d bytes are read, which are not the %d written", len(got), len(raw))
			}
			v.judge("vhd", got)
		})
	}
}

// TestVHDInTurns: qemu and we write the same disk in turns, made by either.
func TestVHDInTurns(t *testing.T) {
	for maker, options := range map[string]string{"odx": "", "qemu": "force_size=off", "qemu, size": "force_size=on"} {
		t.Run(maker, func(t *testing.T) {
			v := newVHDTest(t)
			if options == "" {
				c := disktest.New(nil)
				_, err := vhdfile.Create(v.ctx, c, disk.Spec{Geometry: disk.Geometry{Size: 30<<20 + 1024}})
				harness.Must(v, err)
				v.save("vhd", c.Bytes())
			} else {
				harness.Run(v.ctx, t, v.qemuImg, "create", "-f", "vpc", "-o", options, v.path("vhd"), "30M")
			}
			f, _ := v.load("vhd")
			want := make([]byte, f.Info().Size)
			for turn := range 4 {
				at := (7*turn + 1) << 20
				harness.Run(v.ctx, t, v.qemuIO, "-f", "vpc", "-c", fmt.Sprintf("write -P %d %d 3M", turn+1, at), v.path("vhd"))
				copy(want[at:], bytes.Repeat([]byte{byte(turn + 1)}, 3<<20))
				f, c := v.load("vhd")
				ours := vhdNoise(byte(turn), 64<<10)
				v.put(f, c, int64(at+4<<20), ours)
				copy(want[at+4<<20:], ours)
				if last := f.Info().Blocks() - 1; blockOf(f, last).State == disk.Absent {
					// What was freed at the end of the file must not come back.
					harness.Must(v, f.Allocate(v.ctx, []int64{last}))
					harness.Must(v, f.Free(v.ctx, []int64{last}))
				}
				harness.Must(v, f.Close(v.ctx))
				v.save("vhd", c.Bytes())
				v.judge("vhd", want)
				if got := v.contents(f, c, nil); !bytes.Equal(got, want) {
					t.Fatalf("turn %d: what we read differs", turn)
				}
			}
		})
	}
}

// TestVHDForOthers: what we make, of any size and with any blocks, others read
// right, also after blocks were freed and their places used again.
func TestVHDForOthers(t *testing.T) {
	for _, s := range []disk.Spec{
		{Kind: disk.Fixed, Geometry: disk.Geometry{Size: 5<<20 + 512}},
		{Geometry: disk.Geometry{Size: 12 << 20, BlockLength: 4096}},
		{Geometry: disk.Geometry{Size: 33<<20 + 512, BlockLength: 512 << 10}},
		{Geometry: disk.Geometry{Size: 33<<20 + 512}},
		{Geometry: disk.Geometry{Size: 140 << 20, BlockLength: 32 << 20}},
	} {
		t.Run(fmt.Sprint(s.Kind, s.Size, s.BlockLength), func(t *testing.T) {
			v := newVHDTest(t)
			c := disktest.New(nil)
			f, err := vhdfile.Create(v.ctx, c, s)
			harness.Must(v, err)
			v.save("vhd", c.Bytes())
			v.judge("vhd", make([]byte, s.Size))

			info := f.Info()
			last := info.Blocks() - 1
			want := make([]byte, s.Size)
			put := func(block int64, seed byte) {
				p := vhdNoise(seed, int(min(info.BlockLength, s.Size-block*info.BlockLength)))
				v.put(f, c, block*info.BlockLength, p)
				copy(want[block*info.BlockLength:], p)
			}
			for i, block := range []int64{last, 0, 2} {
				put(block, byte(i))
			}
			harness.Must(v, f.Free(v.ctx, []int64{0}))
			clear(want[:info.BlockLength])
			put(1, 9)
			harness.Must(v, f.Close(v.ctx))
			v.save("vhd", c.Bytes())
			v.judge("vhd", want)
		})
	}
}

// vhdChain writes to a file what libvhdi reads of a child over its parent, and
// prints the name that the child has for it.
const vhdChain = `
import pyvhdi, sys
child, parent = pyvhdi.file(), pyvhdi.file()
parent.open(sys.argv[1])
child.open(sys.argv[2])
child.set_parent(parent)
with open(sys.argv[3], "wb") as out:
    out.write(child.read_buffer_at_offset(child.get_media_size(), 0))
print(child.get_parent_filename())
`

// TestVHDDifferencing: libvhdi reads a child of ours, whole blocks and single
// sectors, over a parent that qemu has made.
func TestVHDDifferencing(t *testing.T) {
	v := newVHDTest(t)
	raw := vhdNoise(1, 8<<20)
	v.save("raw", raw)
	harness.Run(v.ctx, t, v.qemuImg, "convert", "-f", "raw", "-O", "vpc", v.path("raw"), v.path("base.vhd"))
	base, baseIn := v.load("base.vhd")
	want := v.contents(base, baseIn, nil)

	c := disktest.New(nil)
	f, err := vhdfile.Create(v.ctx, c, disk.Spec{
		Kind: disk.Differencing, Geometry: disk.Geometry{Size: base.Info().Size},
		Parent: &disk.Parent{ID: base.Info().ID, Paths: []string{"base.vhd", `C:\images\base.vhd`}, Modified: time.Now()},
	})
	harness.Must(v, err)
	// Runs begin anywhere and end at a multiple of eight sectors: libvhdi (of 2021)
	// takes all bits of a byte after the first that is set for set.
	for i, run := range [][2]int64{{1, 8}, {13, 16}, {2047, 2056}, {8195, 8328}} {
		p := vhdNoise(byte(i), int(run[1]-run[0])*512)
		v.put(f, c, run[0]*512, p)
		copy(want[run[0]*512:], p)
	}
	harness.Must(v, f.Free(v.ctx, []int64{1}))
	clear(want[2<<20 : 4<<20])
	harness.Must(v, f.Close(v.ctx))
	v.save("child.vhd", c.Bytes())
	if got := v.contents(f, c, v.contents(base, baseIn, nil)); !bytes.Equal(got, want) {
		t.Error("what we read differs")
	}

	says := v.vhdiinfo("child.vhd")
	id := base.Info().ID
	for _, text := range []string{"Differential", "base.vhd", fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])} {
		if !strings.Contains(says, text) {
			t.Errorf("libvhdi does not say %q:\n%s", text, says)
		}
	}
	const python = "/usr/bin/python3" // Debian's, which finds Debian's modules
	if found, _ := filepath.Glob("/usr/lib/python3/dist-packages/pyvhdi*"); found == nil {
		harness.Missing(t, "Python cannot read VHD (Debian package python3-libvhdi)")
	}
	out := harness.Run(v.ctx, t, python, "-c", vhdChain, v.path("base.vhd"), v.path("child.vhd"), v.path("chain"))
	if !strings.Contains(out, "base.vhd") {
		t.Errorf("libvhdi says that the parent is %q", out)
	}
	got, err := os.ReadFile(v.path("chain"))
	harness.Must(v, err)
	if !bytes.Equal(got, want) {
		t.Errorf("libvhdi reads %d bytes, which are not the %d written", len(got), len(want))
	}
}

// blockOf is Block of a table that is in memory.
func blockOf(t disk.Table, i int64) disk.Block {
	b, err := t.Block(context.Background(), i)
	if err != nil {
		panic(err)
	}
	return b
}
