package disk_test

import (
	"context"
	"errors"
	"testing"

	"odx/blockdev"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
	"odx/vhd/vhdxfile"
)

const mib = 1 << 20

// rotten is a container with a block that cannot be read.
type rotten struct {
	disk.Container
	at int64
}

func (r rotten) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < r.at+blockdev.BlockLength && r.at < off+int64(len(p)) {
		return &blockdev.CorruptError{Name: "file", Offset: r.at, Err: errors.New("checksum")}
	}
	return r.Container.ReadAt(ctx, p, off)
}

// newDisk makes a dynamic disk of 4 blocks of 1 MiB, of which the last two are written,
// in the opposite order.
func newDisk(t *testing.T, e *offload.Engine) (*disktest.Memory, *vhdxfile.File, *disk.Disk) {
	t.Helper()
	m := disktest.New(nil)
	f, err := vhdxfile.Create(t.Context(), m, disk.Spec{Kind: disk.Dynamic, Geometry: disk.Geometry{Size: 4 * mib, BlockLength: mib}})
	if err != nil {
		t.Fatal(err)
	}
	d := disk.New(disk.Config{Table: f, Reader: m, Engine: e})
	for _, block := range []int64{3, 2} {
		if err := d.WriteAt(t.Context(), make([]byte, mib), block*mib); err != nil {
			t.Fatal(err)
		}
	}
	return m, f, d
}

// TestDisk_DamageOffset reads a disk of whose file a block cannot be read: the error has
// its offset on the disk.
func TestDisk_DamageOffset(t *testing.T) {
	m, f, _ := newDisk(t, nil)
	b, err := f.Block(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	parent := disk.New(disk.Config{Table: f, Reader: rotten{m, b.Offset + 8192}})
	child, err := vhdxfile.Create(t.Context(), disktest.New(nil), disk.Spec{
		Kind: disk.Differencing, Geometry: disk.Geometry{Size: 4 * mib, BlockLength: mib}, Parent: &disk.Parent{ID: f.Info().ID, Paths: []string{"p.vhdx"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*disk.Disk{
		"a disk":              parent,
		"a differencing disk": disk.New(disk.Config{Table: child, Reader: disktest.New(nil), Parent: parent}),
	} {
		err := d.ReadAt(t.Context(), make([]byte, 4*mib), 0)
		corrupt, ok := errors.AsType[*blockdev.CorruptError](err)
		if want := int64(2*mib + 8192); !ok || corrupt.Offset != want {
			t.Errorf("%s: %v, want damage at byte %d", name, err, want)
		}
	}
}

// shortened is a snapshot whose bytes from one on cannot be read.
type shortened struct {
	offload.Snapshot
	from int64
}

var errShort = errors.New("no more bytes")

func (s shortened) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off+int64(len(p)) > s.from {
		return errShort
	}
	return s.Snapshot.ReadAt(ctx, p, off)
}

// TestDisk_MapFails maps to blocks of which a later one fails: what was done before it
// is counted, whatever the table has of them.
func TestDisk_MapFails(t *testing.T) {
	store := offloadtest.NewStore([16]byte{1})
	e, err := offload.Open(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := store.NewVolume("source", 4*mib)
	s, err := e.Snapshot(t.Context(), v, []blockdev.Range{{Length: 4 * mib}}, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	for _, c := range []struct {
		name      string
		dst, fail int64
	}{
		{"two blocks that are there", 2 * mib, mib},
		{"two blocks that are not", 0, mib},
		{"the second of three, of which the first is not there", mib, mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, d := newDisk(t, e)
			n, err := d.Map(t.Context(), c.dst, shortened{s, c.fail}, 0, min(3*mib, 4*mib-c.dst))
			if n != c.fail || !errors.Is(err, errShort) {
				t.Errorf("%d bytes, %v, want %d", n, err, c.fail)
			}
		})
	}
}
