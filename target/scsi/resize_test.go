package scsi

import (
	"sync"
	"testing"

	"odx/backstore"
	"odx/target/scsi/sense"
)

// resize gives the fixture's volume another length.
func (f *fixture) resize(blocks int) {
	f.vol.mu.Lock()
	defer f.vol.mu.Unlock()
	f.vol.data = append(f.vol.data[:min(len(f.vol.data), blocks*512)], make([]byte, max(0, blocks*512-len(f.vol.data)))...)
}

// Every nexus learns of a new capacity once, also through other targets, and
// every command goes by it.
func TestLogicalUnit_Resized(t *testing.T) {
	f := newFixture(t)
	second := &fixture{t: t, lu: f.lu, vol: f.vol, target: NewTarget(TargetConfig{Name: "iqn.2026-11.example.odx:other", PortGroups: []PortGroup{{Tag: 1, ID: 2}}})}
	if err := second.target.AddLU(7, f.lu); err != nil {
		t.Fatal(err)
	}
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCAsymmetricAccessStateChanged) // the new group
	other, elsewhere := f.attach("iqn.2026-11.example.initiator:b"), second.attach("iqn.2026-11.example.initiator:c")
	last := cdb10(0x28, 0, testBlocks+7, 1)

	f.lu.Resized()
	f.good(testUnitReady, nil) // nothing changed
	f.do(last, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)

	f.resize(testBlocks + 8)
	f.lu.Resized()
	f.lu.Resized()
	for _, n := range []*Nexus{f.nexus, other} {
		f.on(n, last).wantSense(t, sense.KeyUnitAttention, sense.ASCCapacityDataChanged)
		f.on(n, last).wantStatus(t, StatusGood)
	}
	at7 := request{nexus: elsewhere, lun: [8]byte{0, 7}, cdb: testUnitReady}
	second.run(at7).wantSense(t, sense.KeyUnitAttention, sense.ASCCapacityDataChanged)
	second.run(at7).wantStatus(t, StatusGood)
	wantHex(t, f.good(cdb10(0x25, 0, 0, 0), nil), "00001007 00000200")
	wantHex(t, f.good(getLBAStatus(testBlocks, 24), nil), "00000014 00000000  0000000000001000 00000008 00 000000")
	f.unmap(unmapList([2]uint64{testBlocks, 8})).wantStatus(t, StatusGood)

	f.resize(testBlocks)
	f.lu.Resized()
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCCapacityDataChanged)
	f.do(last, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
}

// READ CAPACITY returns the current size even before Resized, and the nexuses are
// notified.
func TestReadCapacity_AfterResize(t *testing.T) {
	f, store := newStoreFixture(t, backstore.Options{}, 1<<20)
	other := f.attach("iqn.2026-11.example.initiator:b")
	volume, err := store.Volume("disk")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		size int64
		cdb  []byte
		want string
	}{
		{2 << 20, cdb10(0x25, 0, 0, 0), "00000fff 00000200"},
		{3 << 20, cdb16(0x9E, 0x10, 0, 12), "00000000000017ff 00000200"},
	} {
		if err := volume.Grow(t.Context(), tt.size); err != nil {
			t.Fatal(err)
		}
		wantHex(t, f.good(tt.cdb, nil), tt.want)
		for _, n := range []*Nexus{f.nexus, other} {
			f.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCCapacityDataChanged)
		}
		lastBlock := uint32(tt.size/512 - 1)
		f.good(cdb10(0x2A, 0, lastBlock, 1), pattern(512, 9))
		f.do(cdb10(0x28, 0, lastBlock+1, 1), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
}

// growingVolume gets longer each time that it is asked.
type growingVolume struct {
	*memVolume
	size sync.Mutex // guards next
	next int64
}

func (v *growingVolume) Size() int64 {
	v.size.Lock()
	defer v.size.Unlock()
	v.next += 512
	return v.next
}

// However many tell of it at once, the largest size is what stays.
func TestLogicalUnit_Resized_Concurrent(t *testing.T) {
	v := &growingVolume{memVolume: newMemVolume(512)}
	f := newFixture(t, func(c *LUConfig) { c.Volume = v })
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				f.lu.Resized()
			}
		})
	}
	all.Wait()
	if want := uint64(v.next / 512); f.lu.Blocks() != want {
		t.Errorf("%d blocks, want %d", f.lu.Blocks(), want)
	}
}
