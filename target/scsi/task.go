package scsi

import (
	"sync/atomic"
	"time"

	"odx/target/bufpool"
	"odx/target/qos"
	"odx/target/scsi/sense"
)

// Task is one SCSI command from the receipt of its PDU until its status is sent (SAM-5
// "task", "command"). CDB and sense data are in the Task itself, so that a reused one
// allocates nothing.
//
// The transport owns a Task; the device server may use it only between Prepare and the
// return of Execute.
type Task struct {
	// Lun, Tag and Attribute (a task attribute) are those of the PDU; OpCode is the
	// first byte of the CDB.
	Lun       [8]byte
	Tag       uint64
	Attribute int
	OpCode    byte
	// Offset and TL are the range in bytes of a command that transfers one.
	Offset uint64
	TL     uint32
	// Result is the status.
	Result byte

	// Nexus is the I_T nexus the command came over.
	Nexus *Nexus
	// LU is the logical unit addressed, nil when the LUN has none. Prepare sets it.
	LU *LogicalUnit
	// ExpectedOut and ExpectedIn are the lengths in bytes that the initiator
	// offers to send and to receive (iSCSI Expected Data Transfer Length,
	// bidirectional read length).
	ExpectedOut, ExpectedIn uint32
	// Wanted is the number of Data-Out bytes that the CDB asks for; Prepare
	// sets it. The transport fetches min(Wanted, ExpectedOut) bytes.
	Wanted uint32

	// scratch is the memory that Execute takes besides Data-In and Data-Out, in bytes.
	// An operation's Prepare sets it.
	scratch int
	// exclusive: no other task of the logical unit may run concurrently. An operation's
	// Prepare sets it.
	exclusive bool
	// place is the position of the task in the task set of LU, and entry its entry if
	// it is queued there.
	place atomic.Uint32
	entry *taskEntry
	// gate is the position of the task in the hold of LU.
	gate atomic.Uint32

	stream stream

	// gated: the task has begun to pass limits, by wait; passed: it has passed them.
	gated, passed bool
	wait          qos.Waiter

	// kind, bytes and took are for Stats: bytes of the medium, time in Execute.
	kind  Kind
	bytes uint64
	took  time.Duration

	op   *Operation // set by Prepare
	itl  *itlNexus  // set by Prepare, nil when the LUN has no logical unit
	pool *bufpool.Pool
	out  *bufpool.Buffer
	in   *bufpool.Buffer
	cdb  [260]byte
	// cdbLength and senseLength are how many bytes of cdb and senseBytes are used.
	cdbLength, senseLength int
	// SPC-4 4.5.1: sense data is at most 252 bytes.
	senseBytes [252]byte
}

// NewTask returns a Task that takes its data buffers from pool.
func NewTask(pool *bufpool.Pool) *Task {
	return &Task{pool: pool}
}

// Reset makes t a new command with a copy of cdb, and releases the buffers of the
// previous one. cdb longer than 260 bytes is truncated (SPC-4 4.2.3 allows no more).
func (t *Task) Reset(n *Nexus, cdb []byte) {
	t.Release()
	t.Lun, t.Tag, t.Attribute, t.OpCode, t.Offset, t.TL, t.Result = [8]byte{}, 0, 0, 0, 0, 0, StatusGood
	t.senseLength = 0
	if t.cdbLength = copy(t.cdb[:], cdb); t.cdbLength > 0 {
		t.OpCode = t.cdb[0]
	}
	t.Nexus, t.LU, t.op, t.itl, t.entry, t.exclusive = n, nil, nil, nil, nil, false
	t.ExpectedOut, t.ExpectedIn, t.Wanted, t.scratch = 0, 0, 0, 0
	t.stream = stream{}
	t.gated, t.passed = false, false
	t.kind, t.bytes, t.took = KindOther, 0, 0
}

// Release returns the data buffers to the pool, and removes the task from its task set
// if Execute was not called.
func (t *Task) Release() {
	t.Leave()
	t.pool.Put(t.out)
	t.pool.Put(t.in)
	t.out, t.in = nil, nil
}

// CDB returns the command descriptor block.
func (t *Task) CDB() []byte { return t.cdb[:t.cdbLength] }

// AllocDataOut allocates n bytes of Data-Out and returns them for the transport to
// fill.
func (t *Task) AllocDataOut(n int) []byte {
	t.pool.Put(t.out)
	t.out = t.pool.Get(n)
	return t.out.Bytes
}

// SetDataOut makes b the Data-Out, which the task returns to its pool.
func (t *Task) SetDataOut(b *bufpool.Buffer) {
	t.pool.Put(t.out)
	t.out = b
}

// DataOut returns the Data-Out bytes that arrived: at most Wanted, fewer if the
// initiator offered fewer.
func (t *Task) DataOut() []byte {
	if t.out == nil {
		return nil
	}
	return t.out.Bytes
}

// AllocDataIn allocates n bytes of Data-In, which the transport sends (at most
// ExpectedIn) when the command ends. The contents are not cleared.
func (t *Task) AllocDataIn(n int) []byte {
	t.pool.Put(t.in)
	t.in = t.pool.Get(n)
	return t.in.Bytes
}

// DataIn returns the Data-In bytes of the command, or nil.
func (t *Task) DataIn() []byte {
	if t.in == nil {
		return nil
	}
	return t.in.Bytes
}

// TakeDataIn removes the Data-In from the task: the caller returns the buffer to the
// pool. nil: there is none.
func (t *Task) TakeDataIn() *bufpool.Buffer {
	in := t.in
	t.in = nil
	return in
}

// Scratch returns the memory that Execute takes besides Data-In and Data-Out, in bytes,
// once Prepare has returned.
func (t *Task) Scratch() int { return t.scratch }

// SetScratch is for operations that other packages install.
func (t *Task) SetScratch(n int) { t.scratch = n }

// DropDataIn releases Data-In that was allocated before the command failed.
func (t *Task) DropDataIn() {
	t.pool.Put(t.in)
	t.in = nil
}

// Sense returns the sense data to send with CHECK CONDITION, or an empty slice.
func (t *Task) Sense() []byte {
	return t.senseBytes[:t.senseLength]
}

// FormatSense returns sense data for a condition that the transport reports, in the
// format of the logical unit (D_SENSE).
func (t *Task) FormatSense(key sense.Key, asc sense.ASC) []byte {
	format := sense.Fixed
	if t.LU != nil {
		format = t.LU.senseFormat()
	}
	return sense.New(key, asc).AppendSense(nil, format)
}

// SetGoodSense makes the command end with GOOD status and sense data (G_SENSE of
// EXTENDED COPY(LID4)).
func (t *Task) SetGoodSense(se *sense.Error) {
	var buf [64]byte
	t.SetSense(se.AppendSense(buf[:0], t.LU.senseFormat()))
}

// SetSense sets the sense data of the command; more than 252 bytes are truncated.
func (t *Task) SetSense(se []byte) {
	t.senseLength = copy(t.senseBytes[:], se)
}

// MayChange reports whether a task that Execute has ended may have changed state that
// must survive this process, judging by the kind of command.
func (t *Task) MayChange() bool {
	if t.op == nil {
		return len(t.DataOut()) > 0
	}
	switch t.op.access(t.CDB()) {
	case AccessWrite:
		return true // also on failure: an EXTENDED COPY reports its progress
	case AccessAlways, AccessPersistentReserve:
		return len(t.DataIn()) == 0
	}
	return false
}

// Unsettled fails a task that may have changed state with err: its changes may be lost
// with this process.
func (t *Task) Unsettled(err error) {
	if t.Result != StatusGood || !t.MayChange() || t.LU == nil {
		return
	}
	var se *sense.Error
	if t.Result, se = t.LU.Status(err); se != nil {
		var buf [64]byte
		t.SetSense(se.AppendSense(buf[:0], t.LU.senseFormat()))
	}
}
