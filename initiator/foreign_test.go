package initiator_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/target/iscsi"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// Additional sense codes that other targets refuse commands with.
const (
	invalidOpcode = sense.ASCInvalidCommandOperationCode
	invalidField  = sense.ASCInvalidFieldInCDB
)

// memory is a disk in memory.
type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) Size() int64 { return int64(len(m.data)) }
func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.data[off:])
	return nil
}
func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	return nil
}
func (m *memory) Unmap(_ context.Context, off, length int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+length])
	return nil
}
func (m *memory) Flush(context.Context) error { return nil }

// at returns the byte at an offset.
func (m *memory) at(off int64) byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data[off]
}

// foreign is a device server that behaves as those of other targets do: it wraps
// ours.
type foreign struct {
	*scsi.Target
	volume *memory
	// page changes VPD pages, if set.
	page func(code byte, page []byte)
	// refuse returns the condition that a command ends with: a status, and an
	// additional sense code with CHECK CONDITION. GOOD lets it through.
	refuse func(cdb []byte) (status byte, asc sense.ASC)
	// delay is called before a command runs, if set.
	delay func(cdb []byte)
	// server is what serves it, with this time to log out.
	server        *iscsi.Server
	logoutTimeout time.Duration

	mu   sync.Mutex
	same []int64 // blocks of the WRITE SAME commands that came
	busy int     // commands that were answered BUSY
}

func (f *foreign) Prepare(t *scsi.Task) bool {
	cdb := slices.Clone(t.CDB())
	if f.refuse != nil {
		if status, asc := f.refuse(cdb); status != 0 {
			f.count(cdb, status)
			t.Result = status
			if asc != 0 {
				t.SetSense(t.FormatSense(sense.KeyIllegalRequest, asc))
			}
			return true
		}
	}
	f.count(cdb, 0)
	if cdb[0] == 0x93 && f.unlimited() {
		// Ours has a limit; this one has none.
		off, n := int64(binary.BigEndian.Uint64(cdb[2:]))*512, int64(binary.BigEndian.Uint32(cdb[10:]))*512
		_ = f.volume.Unmap(context.Background(), off, n)
		t.Result = 0
		return true
	}
	return f.Target.Prepare(t)
}

// sent returns the blocks of the WRITE SAME commands that came, and how many
// commands were answered BUSY.
func (f *foreign) sent() (same []int64, busy int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.same), f.busy
}

func (f *foreign) unlimited() bool { return f.page != nil }

func (f *foreign) count(cdb []byte, status byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cdb[0] == 0x93 {
		f.same = append(f.same, int64(binary.BigEndian.Uint32(cdb[10:])))
	}
	if status == 0x08 {
		f.busy++
	}
}

func (f *foreign) Execute(ctx context.Context, t *scsi.Task) {
	if f.delay != nil {
		f.delay(slices.Clone(t.CDB()))
	}
	f.Target.Execute(ctx, t)
	if cdb := t.CDB(); f.page != nil && cdb[0] == 0x12 && cdb[1] == 1 {
		if p := t.DataIn(); len(p) >= 4 {
			f.page(cdb[2], p)
		}
	}
}

// serveForeign serves a disk of 80 MiB, and returns its URL.
func serveForeign(t *testing.T, f *foreign) initiator.URL {
	t.Helper()
	f.volume = &memory{data: bytes.Repeat([]byte{0xee}, 80<<20)}
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: f.volume, ID: [16]byte{1}, Thin: true})
	if err != nil {
		t.Fatal(err)
	}
	log := logs.Discard()
	f.Target = scsi.NewTarget(scsi.TargetConfig{Name: targetName, PortGroups: []scsi.PortGroup{{Tag: 1}}, Log: log})
	if err := f.Target.AddLU(0, lu); err != nil {
		t.Fatal(err)
	}
	o := iscsi.DefaultOptions()
	o.LogoutTimeout = cmp.Or(f.logoutTimeout, o.LogoutTimeout)
	srv, err := iscsi.NewServer(o, []iscsi.TargetConfig{{Name: targetName, DeviceServer: f}})
	if err != nil {
		t.Fatal(err)
	}
	f.server = srv
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(context.Background(), iscsi.Portal{Listener: l, Group: 1}) })
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return initiator.URL{Address: l.Addr().String(), Target: targetName}
}

// limitOf returns a change of the Block Limits page.
func limitOf(blocks uint64) func(code byte, page []byte) {
	return func(code byte, page []byte) {
		if code == 0xb0 && len(page) >= 44 {
			binary.BigEndian.PutUint64(page[36:], blocks)
		}
	}
}

func TestDisk_Zero(t *testing.T) {
	refuseSame := func(asc sense.ASC, above uint32) func(cdb []byte) (byte, sense.ASC) {
		return func(cdb []byte) (byte, sense.ASC) {
			if cdb[0] == 0x93 && binary.BigEndian.Uint32(cdb[10:]) > above {
				return 0x02, asc
			}
			return 0, 0
		}
	}
	for name, tt := range map[string]struct {
		f    *foreign
		same []int64 // blocks of the WRITE SAME commands that are sent; nil: any
	}{
		"our limit":               {&foreign{}, []int64{65528, 65528, 32760}},
		"limit of another target": {&foreign{page: limitOf(100_000)}, []int64{100_000, 63_816}},
		"limit of one block":      {&foreign{page: limitOf(1)}, nil},
		"no limit reported":       {&foreign{page: limitOf(0)}, []int64{163_816}},
		"no limit reported, long ones refused": {&foreign{page: limitOf(0), refuse: refuseSame(invalidField, 8192)},
			slices.Concat([]int64{163_816, 40_954, 10_238}, slices.Repeat([]int64{2559}, 64), []int64{40})},
		"no limit reported, all refused": {&foreign{page: limitOf(0), refuse: refuseSame(invalidField, 0)}, []int64{163_816, 40_954, 10_238, 2559}},
		"a false limit, all refused":     {&foreign{page: limitOf(1 << 40), refuse: refuseSame(invalidField, 0)}, []int64{163_816, 40_954, 10_238, 2559}},
		"command unknown":                {&foreign{refuse: refuseSame(invalidOpcode, 0)}, []int64{65528}},
		"UNMAP bit refused":              {&foreign{page: limitOf(1000), refuse: refuseSame(invalidField, 0)}, []int64{1000}},
		"no provisioning page": {&foreign{page: func(code byte, page []byte) {
			if code == 0xb2 {
				page[5] = 0
			}
		}}, []int64{}},
		"unmapped blocks are not zeros": {&foreign{page: func(code byte, page []byte) {
			if code == 0xb2 {
				page[5] &^= 0x1c
			}
		}}, []int64{}},
		"short block limits": {&foreign{page: func(code byte, page []byte) {
			if code == 0xb0 {
				page[3] = 12 // as SBC-2 ends it
			}
		}}, []int64{163_816}},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, serveForeign(t, tt.f))
			const off, length = 4096, 80<<20 - 3*4096
			want := int64(length)
			if name == "limit of one block" {
				want = 64 << 10 // a command for each block
			}
			if err := d.Zero(t.Context(), off, want); err != nil {
				t.Fatal(err)
			}
			tt.f.volume.mu.Lock()
			data := bytes.Clone(tt.f.volume.data)
			tt.f.volume.mu.Unlock()
			if !bytes.Equal(data[off:off+want], make([]byte, want)) {
				t.Error("not all zeros")
			}
			if data[off-1] != 0xee || data[off+want] != 0xee {
				t.Error("zeros outside of the range")
			}
			if same, _ := tt.f.sent(); tt.same != nil && !slices.Equal(same, tt.same) {
				t.Errorf("WRITE SAME of %d blocks, want %d", same, tt.same)
			}
		})
	}
}

// Old targets know neither READ CAPACITY(16) nor SYNCHRONIZE CACHE(16), some no
// VPD pages.
func TestDisk_OldTarget(t *testing.T) {
	f := &foreign{refuse: func(cdb []byte) (byte, sense.ASC) {
		switch {
		case cdb[0] == 0x9e, cdb[0] == 0x91, cdb[0] == 0x35:
			return 0x02, invalidOpcode
		case cdb[0] == 0x12 && cdb[1] == 1:
			return 0x02, invalidField
		}
		return 0, 0
	}}
	d := open(t, serveForeign(t, f))
	if d.Size() != 80<<20 || d.BlockLength != 512 {
		t.Errorf("%d bytes in blocks of %d", d.Size(), d.BlockLength)
	}
	if err := d.Zero(t.Context(), 0, 1<<20); err != nil || f.volume.at(1<<20-1) != 0 {
		t.Errorf("zeros: %v", err)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Errorf("flush of a disk without a cache: %v", err)
	}
}

func TestDisk_Busy(t *testing.T) {
	f := &foreign{}
	f.refuse = func(cdb []byte) (byte, sense.ASC) {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case cdb[0] == 0x8a && f.busy < 3:
			return 0x08, 0
		case cdb[0] == 0x88:
			return 0x18, 0 // RESERVATION CONFLICT does not pass
		}
		return 0, 0
	}
	d := open(t, serveForeign(t, f))
	err := d.WriteAt(t.Context(), make([]byte, 512), 0)
	if _, busy := f.sent(); err != nil || f.volume.at(0) != 0 || busy != 3 {
		t.Errorf("after %d times BUSY: %v", busy, err)
	}
	if err := d.ReadAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("no error for RESERVATION CONFLICT")
	}
}
