package iscsi

import (
	"encoding/binary"
	"time"

	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// Status codes (SAM-5 5.3.1) that the transport itself returns.
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
	statusBusy           = 0x08
	statusTaskAborted    = 0x40
)

// senseCode is sense data of the transport: sense key, additional sense code and
// qualifier. RFC 7143 11.4.7.2 lists those of protocol conditions.
type senseCode struct{ key, asc, ascq byte }

var (
	senseUnexpectedUnsolicited = senseCode{0x0b, 0x0c, 0x0c} // WRITE ERROR - UNEXPECTED UNSOLICITED DATA
	senseNotEnoughData         = senseCode{0x0b, 0x0c, 0x0d} // WRITE ERROR - NOT ENOUGH UNSOLICITED DATA
	senseServiceCRC            = senseCode{0x0b, 0x47, 0x05} // PROTOCOL SERVICE CRC ERROR
	senseDataPhase             = senseCode{0x0b, 0x4b, 0x00} // DATA PHASE ERROR
	senseTooMuchData           = senseCode{0x0b, 0x4b, 0x02} // TOO MUCH WRITE DATA
	senseDataOffset            = senseCode{0x0b, 0x4b, 0x05} // DATA OFFSET ERROR
	senseInvalidCDB            = senseCode{0x05, 0x24, 0x00} // INVALID FIELD IN CDB
	senseInvalidIU             = senseCode{0x05, 0x0e, 0x03} // INVALID FIELD IN COMMAND INFORMATION UNIT
)

// taskState is the state of a task; guarded by the session's mu.
type taskState int

const (
	taskWithReader taskState = iota // the reader decodes it or reads its data
	taskCollecting                  // waits for Data-Out
	taskHeld                        // waits for other tasks of the logical unit
	taskReady                       // waits for a worker
	taskRunning                     // in DeviceServer.Execute
)

// task is a SCSI command of a session, from its PDU until its response is queued. The
// scsi.Task lives until its data is sent.
//
// The reader sets the fields up to ctx before other goroutines have access. The other
// fields belong to the reader in state taskWithReader, and are otherwise guarded by the
// session's mu.
type task struct {
	st   *scsi.Task
	sess *session
	conn *conn

	itt   uint32
	cmdSN uint32
	// arrived and ended are by the clock of the connection's reader; ended is 0 if Execute was
	// not called.
	arrived, ended time.Duration
	timing         timing
	immediate      bool
	edtl           uint32 // Expected Data Transfer Length, bytes
	read           bool
	write          bool

	ctx *taskContext

	state   taskState
	aborted bool
	// byOther: aborted by another nexus, so that the initiator may receive TASK ABORTED.
	byOther bool
	// withoutUnit: aborted because the logical unit is gone, which the initiator receives.
	withoutUnit bool
	// early: ended by Prepare, not executed.
	early bool
	// failure is the sense of a transport error, or nil.
	failure *senseCode
	out     dataOut
	in      dataInProgress
	// charge of the budget for Data-In.
	chargeIn charge
	// held is set in state taskHeld.
	held *heldTask
	// onWorker: runs on a worker, not on a reader.
	onWorker bool
	// kept: arrived early, and possibly delivered by another reader.
	kept bool
	// detached: aborted and abandoned while running.
	detached bool
	// left: removed from the session.
	left bool
	// over is closed when the aborted task has ended. A waiter creates it.
	over chan struct{}
}

// newTask returns a task for the command PDU p.
func (c *conn) newTask(p *pdu, info ahsInfo) *task {
	t, ok := c.srv.tasks.Get().(*task)
	if !ok {
		t = &task{st: scsi.NewTask(c.srv.pool), ctx: &taskContext{}}
	}
	t.sess, t.conn, t.arrived, t.ended, t.timing = c.sess, c, time.Duration(c.in.arrived.Load()), 0, timing{}
	t.itt, t.cmdSN, t.immediate, t.edtl = p.itt(), p.cmdSN(), p.immediate(), p.expectedDataTransferLength()
	t.read, t.write = p.bhs[1]&bitRead != 0, p.bhs[1]&bitWrite != 0
	cdb := p.bhs[32:48]
	if info.extendedCDB != nil {
		cdb = append(append(make([]byte, 0, maxCDBLength), cdb...), info.extendedCDB...)
	}
	t.st.Reset(c.sess.nexus, cdb)
	t.st.Lun = p.lun()
	t.st.Tag = uint64(t.itt)
	t.st.Attribute = int(p.bhs[1] & 7)
	if t.write {
		t.st.ExpectedOut = t.edtl
	}
	if t.read {
		t.st.ExpectedIn = t.edtl
	}
	return t
}

// recycle resets a task without references for reuse.
func (t *task) recycle() {
	srv := t.conn.srv
	srv.budget.release(t.sess.share, t.chargeIn)
	srv.budget.release(t.sess.share, t.out.charge)
	t.st.Release()
	srv.pool.Put(t.out.first)
	t.ctx = t.ctx.next()
	t.sess, t.conn = nil, nil
	t.state, t.aborted, t.byOther, t.withoutUnit, t.early, t.failure = taskWithReader, false, false, false, false, nil
	t.out, t.in, t.chargeIn = dataOut{}, dataInProgress{}, charge{}
	t.onWorker, t.kept, t.detached, t.left, t.over = false, false, false, false, nil
	srv.tasks.Put(t)
}

// sent recycles the task after its Data-In was sent or dropped. It takes no lock.
func (t *task) sent() { t.recycle() }

// fail ends the command with a transport error; only the first one counts. Solicited
// data is still awaited (RFC 7143 11.4.2).
func (t *task) fail(s *senseCode) {
	if t.failure == nil {
		t.failure = s
	}
}

// residual returns the residual flag and count (RFC 7143 11.4.5): the difference
// between the transfer length of the command and the expected data transfer length.
func (t *task) residual() (flag byte, count uint32) {
	var transfer uint32
	switch {
	case t.failure != nil:
	case t.write && !t.read:
		if !t.early || t.st.Result == statusGood {
			transfer = t.st.Wanted
		}
	case t.st.Streamed() && t.st.Result == statusGood:
		transfer = t.st.TransferLength()
	default:
		transfer = t.in.sent + uint32(len(t.st.DataIn()))
		if !t.read {
			transfer += t.st.Wanted // no direction: the whole transfer length is overflow
		}
	}
	switch {
	case transfer > t.edtl:
		return bitOverflow, transfer - t.edtl
	case transfer < t.edtl:
		return bitUnderflow, t.edtl - transfer
	}
	return 0, 0
}

// queueResponse queues the Data-In and status of an ended command. A task with Data-In
// lives until that is sent; otherwise it is recycled here. The caller holds the
// session's mu.
func (t *task) queueResponse() {
	flag, count := t.residual()
	data := t.st.DataIn()
	data = data[:min(len(data), int(t.st.ExpectedIn-t.in.sent))]
	if t.failure != nil {
		data = nil
	}
	s := &t.conn.out
	collapsed := false
	if len(data) > 0 {
		collapsed = t.failure == nil && t.st.Result == statusGood
		last, use := t.queueDataIn(data), statSNNone
		last.bhs[1] = bitFinal
		if collapsed {
			last.task = t
			last.bhs[1] |= bitStatus | flag
			last.put32(44, count)
			use = statSNAdvance
		}
		s.queue(last, use)
	}
	if collapsed {
		return
	}
	p := t.response(t.in.sn, flag, count)
	if len(data) > 0 {
		p.task = t
		s.queue(p, statSNAdvance)
		return
	}
	s.queue(p, statSNAdvance)
	t.sent()
}

// queueAborted queues the status of an aborted task, once, if the initiator is to receive one:
// TASK ABORTED if another nexus aborted it and TAS is set, or that its logical unit is gone. It
// does not access the buffers of the task, which may be running.
func (t *task) queueAborted() {
	withoutUnit, aborted := t.withoutUnit, t.byOther && t.st.ReportsAbort()
	t.withoutUnit, t.byOther = false, false
	if !withoutUnit && !aborted {
		return
	}
	p := t.conn.out.get(opSCSIResponse, t.itt)
	p.put32(36, t.in.sn+t.out.r2tSN)
	if p.bhs[3] = statusTaskAborted; withoutUnit {
		p.bhs[3] = statusCheckCondition
		p.setSense(t.st.FormatSense(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported))
		if missing := t.edtl - t.in.sent; missing > 0 {
			p.bhs[1] |= bitUnderflow
			p.put32(44, missing)
		}
	}
	t.conn.out.queue(p, statSNAdvance)
}

// setSense makes sense data the data of a SCSI Response.
func (p *outPDU) setSense(data []byte) {
	binary.BigEndian.PutUint16(p.small[:], uint16(len(data)))
	p.data = p.small[:2+copy(p.small[2:], data)]
}

// response returns the SCSI Response PDU (RFC 7143 11.4).
func (t *task) response(dataSN uint32, flag byte, count uint32) *outPDU {
	p := t.conn.out.get(opSCSIResponse, t.itt)
	p.bhs[1] |= flag
	p.put32(36, dataSN+t.out.r2tSN)
	p.put32(44, count)
	se := t.st.Sense()
	p.bhs[3] = t.st.Result
	if t.failure != nil {
		p.bhs[3] = statusCheckCondition
		se = t.st.FormatSense(sense.Key(t.failure.key), sense.ASC(t.failure.asc)<<8|sense.ASC(t.failure.ascq))
	}
	if (p.bhs[3] == statusCheckCondition || p.bhs[3] == statusGood) && len(se) > 0 {
		p.setSense(se)
	}
	return p
}

// queueDataIn splits data into Data-In PDUs (RFC 7143 11.7) of at most the initiator's
// MaxRecvDataSegmentLength, in sequences (F bit) of at most MaxBurstLength. It queues
// all but the last one, which it returns.
func (t *task) queueDataIn(data []byte) (last *outPDU) {
	c, in := t.conn, &t.in
	step, maxBurst := c.params.peerMaxRecv&^3, c.params.maxBurst
	for {
		n := min(uint32(len(data)), step, maxBurst-in.burst)
		p := c.out.get(opDataIn, t.itt)
		p.bhs[1] = 0
		p.put32(20, reservedTag)
		p.put32(36, in.sn)
		p.put32(40, in.sent)
		p.data, data = data[:n], data[n:]
		if in.burst += n; in.burst == maxBurst {
			p.bhs[1], in.burst = bitFinal, 0
		}
		in.sn++
		in.sent += n
		if len(data) == 0 {
			return p
		}
		c.out.queue(p, statSNNone)
	}
}
