package iscsi

import (
	"sync"

	"odx/target/bufpool"
	"odx/target/scsi"
)

// maxInFlight bounds the Data-In of a streamed command in memory, in bytes: unsent data
// and the piece being read.
const maxInFlight = 4 * scsi.StreamPiece

// dataInProgress is the progress of a command's Data-In.
type dataInProgress struct {
	sent  uint32 // queued bytes
	sn    uint32 // DataSN of the next PDU
	burst uint32 // bytes since the last F bit
	// flight has the queued and unsent Data-In of a streamed command; nil for others.
	flight *flight
}

// flight is the queued and unsent Data-In of a streamed command. It outlives the task
// if that is aborted.
type flight struct {
	sess *session

	mu    sync.Mutex // guards the fields below; may be locked with the session's mu held
	bytes int64
	// held waits for room for its next piece.
	held *heldTask
}

// hold holds t until there is room for its next piece. It returns false if there is. The
// caller holds the session's mu.
func (f *flight) hold(t *task) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bytes <= maxInFlight-scsi.StreamPiece {
		return false
	}
	f.held = &heldTask{t}
	t.state, t.held = taskHeld, f.held
	return true
}

func (f *flight) add(n int64) {
	f.mu.Lock()
	f.bytes += n
	f.mu.Unlock()
}

// sent subtracts n bytes that were sent or dropped, and releases the held task if there is
// room.
func (f *flight) sent(n int64) {
	f.mu.Lock()
	f.bytes -= n
	held := f.held
	if f.bytes > maxInFlight-scsi.StreamPiece {
		held = nil
	}
	if held != nil {
		f.held = nil
	}
	f.mu.Unlock()
	if held != nil {
		// The caller may hold the session's mu.
		f.sess.srv.workers.Go(func() { f.sess.releaseHeld(held) })
	}
}

// continueStream starts the next piece of a streamed command: of a READ when there is
// room, of another command when its data has arrived. The caller holds mu.
func (s *session) continueStream(t *task) {
	if in := t.st.TakeDataIn(); in != nil {
		t.queuePiece(in)
		if !t.in.flight.hold(t) {
			s.enqueue(t)
		}
		return
	}
	o := &t.out
	o.base, o.next = o.want, o.want
	o.want = min(o.total, o.base+scsi.StreamPiece)
	o.buf = t.st.AllocDataOut(int(o.want - o.base))
	t.state, t.onWorker = taskCollecting, false
	s.solicit(t)
}

// queuePiece queues a piece of Data-In other than the last. Its buffer and charge pass
// from the task to the PDU.
func (t *task) queuePiece(buf *bufpool.Buffer) {
	s := t.sess
	if t.in.flight == nil {
		t.in.flight = &flight{sess: s}
	}
	n := len(buf.Bytes)
	got := s.srv.budget.resize(s.share, t.chargeIn, t.dataInCharge(n))
	t.chargeIn, t.onWorker = charge{}, false
	t.in.flight.add(int64(n))
	p := t.queueDataIn(buf.Bytes)
	p.buf, p.share, p.charge, p.flight = buf, s.share, got, t.in.flight
	p.flightBytes = int64(n)
	t.conn.out.queue(p, statSNNone)
}

// dataOutTotal sets the total Data-Out of the command and the length of the first piece,
// which holds at least the unsolicited data. It reports whether the total is within
// MaxTransferLength.
func (t *task) dataOutTotal() bool {
	o := &t.out
	o.total = min(t.st.Wanted, t.st.ExpectedOut)
	o.want = o.total
	if !t.st.Streamed() {
		return int64(o.want) <= int64(t.conn.srv.options().MaxTransferLength)
	}
	unsolicited := (t.conn.params.firstBurst + scsi.StreamPiece - 1) / scsi.StreamPiece * scsi.StreamPiece
	o.want = min(o.total, max(unsolicited, scsi.StreamPiece))
	return true
}
