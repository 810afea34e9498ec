package iscsi

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"

	"odx/target/handover"
	"odx/target/scsi"
)

// memDisk is a DeviceServer with one LUN (0) in memory. It implements the parts of
// SPC-4 and SBC-3 that the programs of libiscsi use, and has hooks for tests.
type memDisk struct {
	rw   sync.RWMutex
	data []byte // guarded by rw

	// execute, if set, replaces Execute.
	execute func(ctx context.Context, t *scsi.Task)
	// scratch is what VERIFY(10) works with, in bytes.
	scratch int

	mu       sync.Mutex
	attached map[*scsi.Nexus]scsi.Rights
	rights   map[string]scsi.Rights // by initiator name, of its last nexus
	resets   int
	cleared  int
	// readmitted counts the calls of Readmit.
	readmitted int
	// suspended is in the state of nexuses from Suspend; continued has those of Continue.
	suspended bool
	continued []handover.Nexus
}

const memBlock = 512

func newMemDisk(size int) *memDisk {
	return &memDisk{data: make([]byte, size), attached: make(map[*scsi.Nexus]scsi.Rights), rights: make(map[string]scsi.Rights)}
}

func (d *memDisk) AttachWith(id scsi.NexusID, r scsi.Rights) *scsi.Nexus {
	n := &scsi.Nexus{ID: id}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attached[n], d.rights[id.InitiatorName] = r, r
	return n
}

// Readmit implements DeviceServer.
func (d *memDisk) Readmit(n *scsi.Nexus, r scsi.Rights) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.attached[n]; !ok {
		panic("readmitted a nexus that is not attached")
	}
	d.attached[n], d.rights[n.ID.InitiatorName] = r, r
	d.readmitted++
}

// Suspend implements DeviceServer.
func (d *memDisk) Suspend(_ context.Context, n *scsi.Nexus) handover.Nexus {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.attached[n]; !ok {
		panic("suspended a nexus that is not attached")
	}
	delete(d.attached, n)
	return handover.Nexus{Doubted: d.suspended}
}

// Continue implements DeviceServer.
func (d *memDisk) Continue(id scsi.NexusID, r scsi.Rights, state *handover.Nexus) *scsi.Nexus {
	d.mu.Lock()
	d.continued = append(d.continued, *state)
	d.mu.Unlock()
	return d.AttachWith(id, r)
}

// rightsOf returns the rights of the last nexus of an initiator.
func (d *memDisk) rightsOf(initiator string) scsi.Rights {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rights[initiator]
}

// rightsOfISID returns the rights of the nexus of an initiator port.
func (d *memDisk) rightsOfISID(initiator string, isid [6]byte) (r scsi.Rights) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, rights := range d.attached {
		if n.ID.InitiatorName == initiator && n.ID.ISID == isid {
			r = rights
		}
	}
	return r
}

// attachments returns the total number of attached nexuses.
func (d *memDisk) attachments() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.rights)
}

func (d *memDisk) Detach(n *scsi.Nexus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.attached[n]; !ok {
		panic("detached a nexus that is not attached")
	}
	delete(d.attached, n)
}

func (d *memDisk) nexuses() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.attached)
}

func (d *memDisk) HasLU(_ *scsi.Nexus, lun [8]byte) bool { return lun == [8]byte{} }

func (d *memDisk) ResetLU(*scsi.Nexus, [8]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resets++
}

func (d *memDisk) TasksAborted(*scsi.Nexus, [8]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cleared++
}

// counts returns the numbers of calls of ResetLU and TasksAborted.
func (d *memDisk) counts() (resets, cleared int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resets, d.cleared
}

// fixed returns the sense data in fixed format (SPC-4 4.5.3).
func (s senseCode) fixed() []byte {
	b := make([]byte, 18)
	b[0], b[2], b[7], b[12], b[13] = 0x70, s.key, 10, s.asc, s.ascq
	return b
}

// lbaRange decodes the range of a READ, WRITE or VERIFY in blocks.
func lbaRange(cdb []byte) (lba, blocks uint64) {
	switch cdb[0] >> 5 {
	case 0:
		return uint64(binary.BigEndian.Uint32(cdb) & 0x1fffff), uint64(cdb[4])
	case 1, 2:
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:]))
	default:
		return binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:]))
	}
}

func isRead(op byte) bool { return op == 0x08 || op == 0x28 || op == 0xa8 || op == 0x88 }

func isWrite(op byte) bool {
	switch op {
	case 0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e: // WRITE, WRITE AND VERIFY
		return true
	}
	return false
}

func (d *memDisk) Prepare(t *scsi.Task) (done bool) {
	cdb := t.CDB()
	switch {
	case t.Lun != [8]byte{} && cdb[0] != 0x12:
		t.SetSense(senseCode{0x05, 0x25, 0}.fixed())
		t.Result = statusCheckCondition
		return true
	case isRead(cdb[0]), isWrite(cdb[0]):
		lba, n := lbaRange(cdb)
		if size := uint64(len(d.data) / memBlock); lba > size || n > size-lba {
			t.SetSense(senseCode{0x05, 0x21, 0}.fixed())
			t.Result = statusCheckCondition
			return true
		}
		t.TL = uint32(n * memBlock)
		if isWrite(cdb[0]) {
			t.Wanted = t.TL
		}
	case cdb[0] == 0x7f: // variable length: the tests send a write of 512 bytes
		t.Wanted = memBlock
	case cdb[0] == 0x2f: // VERIFY(10)
		t.SetScratch(d.scratch)
	case cdb[0] == 0x00: // TEST UNIT READY
		return d.execute == nil
	}
	return false
}

func (d *memDisk) Execute(ctx context.Context, t *scsi.Task) {
	if d.execute != nil {
		d.execute(ctx, t)
		return
	}
	d.run(t)
}

func (d *memDisk) run(t *scsi.Task) {
	cdb := t.CDB()
	switch op := cdb[0]; {
	case isRead(op):
		lba, n := lbaRange(cdb)
		b := t.AllocDataIn(int(n * memBlock))
		d.rw.RLock()
		copy(b, d.data[lba*memBlock:])
		d.rw.RUnlock()
	case isWrite(op):
		lba, _ := lbaRange(cdb)
		d.put(int(lba*memBlock), t.DataOut())
	case op == 0x12:
		d.inquiry(t)
	case op == 0x25: // READ CAPACITY(10)
		b := t.AllocDataIn(8)
		binary.BigEndian.PutUint32(b, uint32(len(d.data)/memBlock-1))
		binary.BigEndian.PutUint32(b[4:], memBlock)
	case op == 0x9e: // READ CAPACITY(16)
		b := t.AllocDataIn(32)
		clear(b)
		binary.BigEndian.PutUint64(b, uint64(len(d.data)/memBlock-1))
		binary.BigEndian.PutUint32(b[8:], memBlock)
	case op == 0x1a: // MODE SENSE(6): header only
		copy(t.AllocDataIn(4), []byte{3, 0, 0, 0})
	case op == 0xa0: // REPORT LUNS
		b := t.AllocDataIn(16)
		clear(b)
		b[3] = 8
	case op == 0x00, op == 0x35, op == 0x91: // TEST UNIT READY, SYNCHRONIZE CACHE
	case op == 0x7f:
		d.put(0, t.DataOut())
	default:
		t.SetSense(senseCode{0x05, 0x20, 0}.fixed())
		t.Result = statusCheckCondition
	}
}

func (d *memDisk) put(off int, b []byte) {
	d.rw.Lock()
	defer d.rw.Unlock()
	copy(d.data[off:], b)
}

// at returns a copy of n bytes at off.
func (d *memDisk) at(off, n int) []byte {
	d.rw.RLock()
	defer d.rw.RUnlock()
	return slices.Clone(d.data[off : off+n])
}

func (d *memDisk) inquiry(t *scsi.Task) {
	cdb := t.CDB()
	page := make([]byte, 64)
	n := 36
	switch {
	case cdb[1]&1 == 0:
		copy(page, []byte{0, 0, 6, 2, 31, 0, 0, 2})
		copy(page[8:36], "odx     memory disk     0001")
	case cdb[2] == 0x00:
		n = copy(page, []byte{0, 0, 0, 3, 0x00, 0xb0, 0xb1})
	case cdb[2] == 0xb0:
		copy(page, []byte{0, 0xb0, 0, 60})
		n = 64
	case cdb[2] == 0xb1:
		copy(page, []byte{0, 0xb1, 0, 60})
		n = 64
	default:
		t.SetSense(senseCode{0x05, 0x24, 0}.fixed())
		t.Result = statusCheckCondition
		return
	}
	n = min(n, int(binary.BigEndian.Uint16(cdb[3:])))
	copy(t.AllocDataIn(n), page)
}
