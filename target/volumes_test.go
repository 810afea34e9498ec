package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/target/bufpool"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// initiator is an I_T nexus to one logical unit.
type initiator struct {
	t      *testing.T
	device *scsi.Target
	nexus  *scsi.Nexus
	pool   bufpool.Pool
}

// attach returns an initiator that has taken the unit attentions of its start.
func attach(t *testing.T, s *Service, medium string) *initiator {
	t.Helper()
	i := &initiator{t: t, device: scsi.NewTarget(scsi.TargetConfig{Name: "iqn.2026-11.example.odx:test", PortGroups: []scsi.PortGroup{{Tag: 1, ID: 99}}})}
	if err := i.device.AddLU(0, s.state.Load().unit(medium)); err != nil {
		t.Fatal(err)
	}
	i.nexus = i.device.Attach(scsi.NexusID{})
	t.Cleanup(func() { i.device.Detach(i.nexus) })
	for i.attention() != 0 {
	}
	return i
}

// do executes a command and returns its task.
func (i *initiator) do(cdb []byte, in uint32) *scsi.Task {
	task := scsi.NewTask(&i.pool)
	i.t.Cleanup(task.Release)
	task.Reset(i.nexus, cdb)
	task.ExpectedIn = in
	if !i.device.Prepare(task) {
		i.device.Execute(i.t.Context(), task)
	}
	return task
}

// attention returns the additional sense code that TEST UNIT READY ends with.
func (i *initiator) attention() sense.ASC {
	task := i.do(make([]byte, 6), 0)
	if task.Result == scsi.StatusGood {
		return 0
	}
	return sense.ASC(binary.BigEndian.Uint16(task.Sense()[12:]))
}

// capacity returns the bytes that READ CAPACITY(16) reports.
func (i *initiator) capacity() int64 {
	cdb := make([]byte, 16)
	cdb[0], cdb[1], cdb[13] = 0x9E, 0x10, 32
	task := i.do(cdb, 32)
	data := task.DataIn()
	return int64(binary.BigEndian.Uint64(data)+1) * int64(binary.BigEndian.Uint32(data[8:]))
}

// TestResizeInUse: initiators of the LUN get a unit attention, others do not.
func TestResizeInUse(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`)))
	src, dst := attach(t, s, "volume src"), attach(t, s, "volume dst")
	v, err := s.admin.ResizeVolume(t.Context(), "src", 96<<20)
	if err != nil || v.SizeBytes != 96<<20 {
		t.Fatalf("got %+v, %v", v, err)
	}
	if asc := src.attention(); asc != sense.ASCCapacityDataChanged {
		t.Errorf("unit attention of its initiator: %04x", int(asc))
	}
	if got := src.capacity(); got != 96<<20 {
		t.Errorf("READ CAPACITY reports %d bytes", got)
	}
	if asc := dst.attention(); asc != 0 {
		t.Errorf("unit attention of the initiator of another LUN: %04x", int(asc))
	}
	for name, tt := range map[string]struct {
		volume string
		size   int64
		want   error
		words  string
	}{
		"shrink":             {"src", 64 << 20, blockdev.ErrInvalid, "cannot shrink"},
		"no such volume":     {"none", 64 << 20, backstore.ErrNotFound, "none"},
		"part of a block":    {"dst", 96<<20 + 512, blockdev.ErrInvalid, "block size 4096 of LUN 1 of iqn.2026-11.example.odx:disks"},
		"beyond every limit": {"src", 1 << 60, blockdev.ErrInvalid, "1 PiB"},
	} {
		if _, err := s.admin.ResizeVolume(t.Context(), tt.volume, tt.size); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSnapshotAsLUN: it is read-only whatever the configuration says.
func TestSnapshotAsLUN(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(disks, `"127.0.0.1:0"`)
	s := start(t, parse(t, dir, text))
	if _, err := s.admin.SnapshotVolume(t.Context(), "src", "monday"); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	s = start(t, parse(t, dir, text+"      - {lun: 2, volume: monday}\n"))
	i := attach(t, s, "volume monday")
	write := append([]byte{0x2A}, make([]byte, 9)...) // WRITE(10)
	write[8] = 1
	task := i.do(write, 0)
	if key := task.Sense()[2] & 0xF; task.Result != scsi.StatusCheckCondition || key != byte(sense.KeyDataProtect) {
		t.Errorf("a write ends with status %v, sense key %x", task.Result, key)
	}
	if lun := s.LUNs()[2]; !lun.ReadOnly {
		t.Errorf("announced as %+v", lun)
	}
}
