package parttable

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit/harness"
)

var ctx = context.Background()

// image is a disk in memory.
type image []byte

func (d image) Size() int64 { return int64(len(d)) }

func (d image) ReadAt(_ context.Context, p []byte, off int64) error {
	if off < 0 || off > d.Size()-int64(len(p)) {
		return errors.New("read outside the disk")
	}
	copy(p, d[off:])
	return nil
}

// disks caches the results of partitioned by script.
var disks = map[string]image{}

// partitioned returns a disk of 64 MiB that sfdisk has partitioned.
func partitioned(t testing.TB, script string) image {
	t.Helper()
	if d := disks[script]; d != nil {
		return slices.Clone(d)
	}
	sfdisk := harness.Program(t, "sfdisk", "fdisk")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(sfdisk, "--quiet", path)
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	disks[script] = image(b)
	return slices.Clone(image(b))
}

const (
	gptScript = `label: gpt
start=2048, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI system", uuid=11111111-2222-3333-4444-555555555555
start=16384, size=32768, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="wurzel-ü"
`
	mbrScript = `label: dos
start=2048, size=8192, type=83, bootable
start=10240, size=100000, type=5
start=12288, size=4096, type=82
start=20480, size=8192, type=83
start=32768, size=16384, type=83
`
)

func list(t *Table) string {
	var b strings.Builder
	for _, p := range t.Partitions {
		fmt.Fprintf(&b, "%d:%d+%d %s %q\n", p.Number, p.Start/512, p.Length/512, p.Type, p.Name)
	}
	return b.String()
}

// Tables of sfdisk are read.
func TestRead(t *testing.T) {
	for _, c := range []struct{ scheme, script, want string }{
		{"gpt", gptScript, `1:2048+8192 c12a7328-f81f-11d2-ba4b-00a0c93ec93b "EFI system"
2:16384+32768 0fc63daf-8483-4772-8e79-3d69d8477de4 "wurzel-ü"
`},
		{"mbr", mbrScript, `1:2048+8192 83 ""
5:12288+4096 82 ""
6:20480+8192 83 ""
7:32768+16384 83 ""
`},
	} {
		t.Run(c.scheme, func(t *testing.T) {
			table, err := Read(ctx, partitioned(t, c.script), 512)
			if err != nil {
				t.Fatal(err)
			}
			if table.Scheme != c.scheme || table.Backup || list(table) != c.want {
				t.Errorf("%s, backup %t:\n%s", table.Scheme, table.Backup, list(table))
			}
			if p, ok := table.Find(1); !ok || p.Start != 2048*512 {
				t.Errorf("partition 1: %v %t", p, ok)
			}
			if _, ok := table.Find(3); ok {
				t.Error("there is no partition 3")
			}
		})
	}
	table, err := Read(ctx, partitioned(t, gptScript), 512)
	if err != nil || table.Partitions[0].GUID != "11111111-2222-3333-4444-555555555555" {
		t.Errorf("%v, %v", table, err)
	}
}

// reseal recomputes the checksums of the header in a block.
func reseal(d image, block int64) {
	h := d[block*512:]
	array := d[int64(binary.LittleEndian.Uint64(h[72:]))*512:]
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(array[:128*128]))
	clear(h[16:20])
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
}

// The backup replaces a damaged header. Inconsistent tables are refused.
func TestRead_DamagedGPT(t *testing.T) {
	last := int64(64<<20)/512 - 1
	for _, c := range []struct {
		what   string
		damage func(d image)
		backup bool
		fails  string
	}{
		{"header", func(d image) { d[512+24] ^= 1 }, true, ""},
		{"signature", func(d image) { clear(d[512:520]) }, true, ""},
		{"entries", func(d image) { d[1024+40] ^= 1 }, true, ""},
		{"backup alone", func(d image) { d[last*512] ^= 1 }, false, ""},
		{"both", func(d image) { d[512] ^= 1; d[last*512] ^= 1 }, false, "no signature"},
		{"beyond what is usable", func(d image) {
			binary.LittleEndian.PutUint64(d[1024+40:], 1<<40)
			reseal(d, 1)
			d[last*512] ^= 1
		}, false, "exceeds the usable blocks"},
		{"overlap", func(d image) {
			binary.LittleEndian.PutUint64(d[1024+40:], 20000)
			reseal(d, 1)
		}, false, "overlap"},
		{"entry count", func(d image) {
			binary.LittleEndian.PutUint32(d[512+80:], 1<<31)
			reseal(d, 1)
			d[last*512] ^= 1
		}, false, "invalid number"},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := partitioned(t, gptScript)
			c.damage(d)
			table, err := Read(ctx, d, 512)
			if c.fails != "" {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%v, want %q", err, c.fails)
				}
				return
			}
			if err != nil || table.Backup != c.backup || len(table.Partitions) != 2 {
				t.Errorf("%+v, %v", table, err)
			}
		})
	}
}

// A chain of logical partitions that leaves the extended partition or is cyclic is
// refused.
func TestRead_DamagedMBR(t *testing.T) {
	entry := func(d image, block int64, i int) []byte { return d[block*512+446+int64(i)*16:] }
	for _, c := range []struct {
		what   string
		damage func(d image)
		want   error
	}{
		{"ring", func(d image) { binary.LittleEndian.PutUint32(entry(d, 10240, 1)[8:], 0) }, ErrDamaged},
		{"outside", func(d image) { binary.LittleEndian.PutUint32(entry(d, 10240, 1)[8:], 1<<30) }, ErrDamaged},
		{"too long", func(d image) { binary.LittleEndian.PutUint32(entry(d, 10240, 0)[12:], 1<<30) }, ErrDamaged},
		{"larger than the disk", func(d image) { binary.LittleEndian.PutUint32(entry(d, 0, 0)[12:], 1<<30) }, ErrDamaged},
		{"no signature", func(d image) { clear(d[510:512]) }, ErrNoTable},
		{"file system", func(d image) { entry(d, 0, 0)[0] = 0x6E }, ErrNoTable},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := partitioned(t, mbrScript)
			c.damage(d)
			if table, err := Read(ctx, d, 512); !errors.Is(err, c.want) {
				t.Errorf("%+v, %v", table, err)
			}
		})
	}
	if _, err := Read(ctx, image{}, 512); !errors.Is(err, ErrNoTable) {
		t.Errorf("an empty disk: %v", err)
	}
}

// For arbitrary first and last blocks, Read returns, and its partitions are within the
// disk and do not overlap.
func FuzzRead(f *testing.F) {
	const head, tail, size = 34 * 512, 33 * 512, 64 << 10
	small := func() image {
		d := make(image, size)
		binary.LittleEndian.PutUint16(d[510:], 0xAA55)
		d[446+4] = typeGPT
		binary.LittleEndian.PutUint32(d[446+12:], size/512-1)
		h := d[512:]
		copy(h, gptSignature)
		for at, v := range map[int]uint64{24: 1, 32: size/512 - 1, 40: 34, 48: size/512 - 34, 72: 2} {
			binary.LittleEndian.PutUint64(h[at:], v)
		}
		for at, v := range map[int]uint32{8: 0x10000, 12: 92, 80: 128, 84: 128} {
			binary.LittleEndian.PutUint32(h[at:], v)
		}
		d[1024] = 1
		binary.LittleEndian.PutUint64(d[1024+32:], 40)
		binary.LittleEndian.PutUint64(d[1024+40:], 59)
		reseal(d, 1)
		return d
	}
	gpt := small()
	if table, err := Read(ctx, gpt, 512); err != nil || len(table.Partitions) != 1 {
		f.Fatalf("the seed: %v, %v", table, err)
	}
	f.Add([]byte(gpt[:head]), []byte(gpt[size-tail:]), false)
	mbr := make(image, size)
	binary.LittleEndian.PutUint16(mbr[510:], 0xAA55)
	mbr[446+4] = 5
	mbr[446+8], mbr[446+12] = 2, 200
	binary.LittleEndian.PutUint16(mbr[1024+510:], 0xAA55)
	mbr[1024+446+4], mbr[1024+446+8], mbr[1024+446+12] = 0x83, 1, 9
	f.Add([]byte(mbr[:head]), []byte{}, false)
	f.Add([]byte(mbr[:head]), []byte{}, true)
	f.Fuzz(func(t *testing.T, first, last []byte, large bool) {
		d := make(image, size)
		copy(d, first[:min(len(first), head)])
		copy(d[size-tail:], last[:min(len(last), tail)])
		block := int64(512)
		if large {
			block = 4096
		}
		if len(d) > 1024 && string(d[512:520]) == string(gptSignature) && !large {
			h := d[512:]
			if binary.LittleEndian.Uint64(h[72:]) < 64 {
				reseal(d, 1) // otherwise no input would pass the checksums
			}
		}
		table, err := Read(ctx, d, block)
		if err != nil {
			return
		}
		if err := table.check(size); err != nil {
			t.Error(err)
		}
	})
}
