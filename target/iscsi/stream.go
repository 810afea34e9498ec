package iscsi

import (
	"sync"

	"odx/target/bufpool"
	"odx/target/scsi"
)

// maxInFlight bounds, in bytes, the Data-In that one streamed command has in memory:
// what waits to be sent, and the piece that is read.
const maxInFlight = 4 * scsi.StreamPiece

// dataInProgress is how far the Data-In of a command has come.
type dataInProgress struct {
	sent  uint32 // bytes that were queued for sending
	sn    uint32 // DataSN of the next PDU
	burst uint32 // bytes since the last F bit
	// flight is what a streamed command has queued and not sent; nil for others.
	flight *flight
}

// flight is the Data-In of a streamed command that was queued and has not been sent.
// It outlives the task, if that is aborted.
type flight struct {
	sess *session

	mu    sync.Mutex // guards what follows; may be taken with the session's mu held
	bytes int64
	// held waits for room for its next piece.
	held *heldTask
}

// hold has t, which has room for its next piece only if enough was sent, wait for
// that. It reports whether t waits. The session's mu is held.
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

// sent counts n bytes that left, or never will, and lets the command go on if there
// is room now.
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
		// The caller may hold the session's lock.
		f.sess.srv.workers.Go(func() { f.sess.letGo(held) })
	}
}

// goOn has a streamed command do its next piece: of a READ, when there is room for
// it; of another, when its data has come. mu is held.
func (s *session) goOn(t *task) {
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

// queuePiece queues a piece of Data-In that is not the last. Its buffer, and what it
// holds of the budget, leave the task with it.
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
	p.flown = int64(n)
	t.conn.out.queue(p, statSNNone)
}

// dataOutTotal sets how much Data-Out the command gets, and how much of it first: a
// streamed one a piece, or whatever comes unsolicited. It reports whether that is not
// too much.
func (t *task) dataOutTotal() bool {
	o := &t.out
	o.total = min(t.st.Wanted, t.st.ExpectedOut)
	o.want = o.total
	if !t.st.Streamed() {
		return int64(o.want) <= int64(t.conn.srv.opts.MaxTransferLength)
	}
	unsolicited := (t.conn.params.firstBurst + scsi.StreamPiece - 1) / scsi.StreamPiece * scsi.StreamPiece
	o.want = min(o.total, max(unsolicited, scsi.StreamPiece))
	return true
}
