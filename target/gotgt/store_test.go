package gotgt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/config"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"odx/blockdev"
)

// memVolume is a Volume in memory.
type memVolume struct {
	data             []byte
	flushes, written atomic.Int64
}

func (v *memVolume) Size() int64 { return int64(len(v.data)) }
func (v *memVolume) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, v.data[off:])
	return nil
}
func (v *memVolume) WriteAt(_ context.Context, p []byte, off int64) error {
	copy(v.data[off:], p)
	return nil
}
func (v *memVolume) Unmap(_ context.Context, off, length int64) error {
	clear(v.data[off : off+length])
	return nil
}
func (v *memVolume) Flush(context.Context) error    { v.flushes.Add(1); return nil }
func (v *memVolume) WriteOut(context.Context) error { v.written.Add(1); return nil }

// perform runs a 10-byte command through gotgt's own device server.
func perform(lu *api.SCSILu, code byte, lba uint32, blocks uint16, out []byte, in int) (*api.SCSICommand, api.SAMStat) {
	cdb := make([]byte, 10)
	cdb[0] = code
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], blocks)
	cmd := &api.SCSICommand{
		Device: lu, OpCode: code, SCB: cdb, SCBLength: len(cdb),
		OutSDBBuffer: &api.SCSIDataBuffer{Buffer: out, Length: uint32(len(out))},
		InSDBBuffer:  &api.SCSIDataBuffer{Buffer: make([]byte, in), Length: uint32(in)},
	}
	return cmd, lu.PerformCommand(0, cmd)
}

func TestGotgtServesOurVolumes(t *testing.T) {
	volume := &memVolume{data: make([]byte, 1<<20)}
	errNoVolume := errors.New("no such volume")
	Register(func(name string) (Volume, error) {
		if name != "disk" {
			return nil, errNoVolume
		}
		return volume, nil
	})
	if _, err := gotgt.NewSCSILu(&config.BackendStorage{DeviceID: 1, Path: "odx:other"}); !errors.Is(err, errNoVolume) {
		t.Errorf("unknown volume: %v", err)
	}
	lu, err := gotgt.NewSCSILu(&config.BackendStorage{DeviceID: 2, Path: "odx:disk", Online: true, ThinProvisioning: true, BlockShift: 9})
	if err != nil {
		t.Fatal(err)
	}
	if lu.Size != 1<<20 {
		t.Errorf("size %d", lu.Size)
	}
	data := bytes.Repeat([]byte("odx!"), 256)
	if cmd, stat := perform(lu, 0x2A, 3, 2, data, 0); stat != api.SAMStatGood {
		t.Fatalf("WRITE(10): %v, sense %v", stat, cmd.SenseBuffer)
	}
	if !bytes.Equal(volume.data[3*512:][:1024], data) {
		t.Error("WRITE(10) did not reach the volume")
	}
	if volume.written.Load() == 0 {
		t.Error("WRITE(10) was acknowledged before it was written out")
	}
	cmd, stat := perform(lu, 0x28, 3, 2, nil, 1024)
	if stat != api.SAMStatGood || !bytes.Equal(cmd.InSDBBuffer.Buffer, data) {
		t.Errorf("READ(10): %v", stat)
	}
	before := volume.flushes.Load()
	if _, stat := perform(lu, 0x35, 0, 0, nil, 0); stat != api.SAMStatGood || volume.flushes.Load() == before {
		t.Errorf("SYNCHRONIZE CACHE(10): %v, %d flushes", stat, volume.flushes.Load()-before)
	}
	if err := lu.Storage.Unmap([]api.UnmapBlockDescriptor{{Offset: 3 * 512, TL: 512}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(volume.data[3*512:][:1024], append(make([]byte, 512), data[512:]...)) {
		t.Error("Unmap cleared something else")
	}
	if volume.written.Load() < 2 {
		t.Error("Unmap was acknowledged before it was written out")
	}
	if err := lu.Storage.Close(lu); err != nil {
		t.Error(err)
	}
}

// openFile returns a volume over a file of 3 MiB and 100 bytes.
func openFile(t *testing.T) (*External, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xEE}, 3<<20+100), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, path
}

func TestFileIsAVolume(t *testing.T) {
	e, path := openFile(t)
	ctx := context.Background()
	if e.Size() != 3<<20+100 {
		t.Errorf("size %d", e.Size())
	}
	data := []byte("straight to the file")
	if err := e.WriteAt(ctx, data, 1000); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := e.ReadAt(ctx, got, 1000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	if err := e.Unmap(ctx, 4096, 2<<20+7); err != nil { // more than two chunks
		t.Fatal(err)
	}
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{0xEE}, 3<<20+100)
	copy(want[1000:], data)
	clear(want[4096 : 4096+2<<20+7])
	if !bytes.Equal(file, want) {
		t.Error("the file holds something else")
	}
}

func TestExternalVolumeRefuses(t *testing.T) {
	e, _ := openFile(t)
	ctx := context.Background()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"read past the end", e.ReadAt(ctx, make([]byte, 2), e.Size()-1), blockdev.ErrRange},
		{"write past the end", e.WriteAt(ctx, make([]byte, 1), e.Size()), blockdev.ErrRange},
		{"negative offset", e.ReadAt(ctx, nil, -1), blockdev.ErrRange},
		{"unmap that overflows", e.Unmap(ctx, 1, 1<<63-1), blockdev.ErrRange},
		{"read after the end of its context", e.ReadAt(ended, make([]byte, 1), 0), context.Canceled},
		{"flush after the end of its context", e.Flush(ended), context.Canceled},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}

// fullStore is a backing store on a file system without space.
type fullStore struct{ api.BackingStore }

func (fullStore) Open(*api.SCSILu, string) error { return nil }
func (fullStore) Size(*api.SCSILu) uint64        { return 1 << 20 }
func (fullStore) Write([]byte, int64) error {
	return &os.PathError{Op: "write", Path: "disk.img", Err: syscall.ENOSPC}
}

// shortStore returns less than it is asked for.
type shortStore struct{ fullStore }

func (shortStore) Read(int64, int64) ([]byte, error) { return nil, nil }

func TestExternalVolumeTellsWhatWentWrong(t *testing.T) {
	gotgt.RegisterBackingStore("short", func() (api.BackingStore, error) { return shortStore{}, nil })
	e, err := Open("short:x")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.WriteAt(context.Background(), make([]byte, 512), 0); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("full file system: %v, want ErrNoSpace", err)
	}
	if err := e.ReadAt(context.Background(), make([]byte, 512), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short read: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, path := range []string{"", "file", ":x", "nosuch:/x", "file:" + filepath.Join(t.TempDir(), "missing")} {
		if e, err := Open(path); err == nil {
			e.Close()
			t.Errorf("%q was accepted", path)
		}
	}
}

// stallingStore holds up writes to a file until they are released.
type stallingStore struct {
	api.BackingStore
	data             []byte
	entered, proceed chan struct{}
}

func (*stallingStore) Open(*api.SCSILu, string) error      { return nil }
func (s *stallingStore) Size(*api.SCSILu) uint64           { return uint64(len(s.data)) }
func (*stallingStore) Close(*api.SCSILu) error             { return nil }
func (s *stallingStore) Read(off, n int64) ([]byte, error) { return s.data[off : off+n], nil }
func (s *stallingStore) Write(p []byte, off int64) error {
	s.entered <- struct{}{}
	<-s.proceed
	copy(s.data[off:], p)
	return nil
}

// While a write that was aborted is in the kernel, its range is busy, and it lands
// before whatever is acknowledged after it.
func TestExternal_WriteAt_aborted(t *testing.T) {
	s := &stallingStore{data: make([]byte, 1<<20), entered: make(chan struct{}), proceed: make(chan struct{}, 2)}
	gotgt.RegisterBackingStore("stalling", func() (api.BackingStore, error) { return s, nil })
	e, err := Open("stalling:x")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx := t.Context()
	command, abort := context.WithCancel(ctx)
	returned := make(chan error)
	go func() { returned <- e.WriteAt(command, []byte("old!"), 512) }()
	<-s.entered
	p := make([]byte, 4)
	if err := e.ReadAt(ctx, p, 512); err != nil {
		t.Errorf("read next to a write that was not aborted: %v", err)
	}
	abort()
	for name, err := range map[string]error{
		"read": e.ReadAt(ctx, p, 514), "write": e.WriteAt(ctx, p, 510), "unmap": e.Unmap(ctx, 0, 1024),
	} {
		if !errors.Is(err, blockdev.ErrBusy) {
			t.Errorf("%s of the range: %v, want ErrBusy", name, err)
		}
	}
	if err := e.ReadAt(ctx, p, 516); err != nil {
		t.Errorf("read of another range: %v", err)
	}
	s.proceed <- struct{}{}
	if err := <-returned; err != nil {
		t.Error(err)
	}
	go func() { returned <- e.WriteAt(ctx, []byte("new!"), 512) }()
	<-s.entered
	s.proceed <- struct{}{}
	if err := <-returned; err != nil {
		t.Error(err)
	}
	if err := e.ReadAt(ctx, p, 512); err != nil || string(p) != "new!" {
		t.Errorf("read %q, %v", p, err)
	}
}
