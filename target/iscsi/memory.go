package iscsi

import (
	"slices"

	"odx/target/scsi"
)

// maxUnsized is the assumed maximum Data-In in bytes of a command whose CDB has no
// transfer length in blocks. The actual amount is charged later.
const maxUnsized = 1 << 20

// dataInCharge returns the budget charge of n bytes of Data-In: the buffer and the PDUs.
func (t *task) dataInCharge(n int) int64 {
	if n == 0 {
		return 0
	}
	ps := &t.conn.params
	pdus := n/int(ps.peerMaxRecv&^3) + n/int(ps.maxBurst) + 1
	return bufferCharge(n) + int64(pdus)*outPDULength
}

// dataIn returns the maximum Data-In of the command in bytes.
func (t *task) dataIn() int {
	switch {
	case t.st.Wanted > 0: // a write
		return 0
	case t.st.Streamed():
		return scsi.StreamPiece
	case t.st.TL > 0 && readsBlocks(t.st.OpCode): // even if the initiator expects less
		return int(t.st.TL)
	}
	return int(min(t.st.ExpectedIn, maxUnsized))
}

// startCharge returns what a command takes of the budget when it starts. What it works
// with belongs to the charge of its Data-Out, if it has any, because a command that has
// memory does not wait for more.
func (t *task) startCharge() int64 {
	n := t.dataInCharge(t.dataIn())
	if t.st.Wanted == 0 {
		n += int64(t.st.Scratch())
	}
	return n
}

// dataOutCharge returns the charge of a command's Data-Out, or of a piece of it.
func (t *task) dataOutCharge() int64 {
	return bufferCharge(int(t.out.want-t.out.base)) + int64(t.st.Scratch())
}

// readsBlocks reports whether an operation code is a READ.
func readsBlocks(op byte) bool {
	switch op {
	case 0x08, 0x28, 0x88, 0xa8: // READ(6), (10), (16), (12)
		return true
	}
	return false
}

// takeDataIn takes memory for the Data-In of a command that is about to start. The caller
// holds mu.
func (s *session) takeDataIn(t *task) (ok bool) {
	n := t.startCharge()
	if n == 0 {
		return true
	}
	t.chargeIn, ok = s.srv.budget.take(s.share, n)
	return ok
}

// startable returns the index of a ready command that can start, or -1. The first ready
// command queues for memory if there is none; later ones overtake it only if they need
// none, or little. The caller holds mu.
func (s *session) startable() int {
	if len(s.ready) == 0 {
		s.abandonClaim(&s.claimIn) // its command was aborted
		return -1
	}
	if s.startFirst(s.ready[0]) {
		return 0
	}
	return slices.IndexFunc(s.ready, s.startSmall)
}

// startFirst takes memory for t, the first ready command, or queues a claim for it. The
// caller holds mu.
func (s *session) startFirst(t *task) bool {
	b := s.srv.budget
	if s.claimIn == nil {
		if s.takeDataIn(t) {
			return true
		}
		s.claimIn = b.wait(s.share, t.startCharge(), s.readyForDataIn)
		return false
	}
	got, over := b.result(s.claimIn)
	if !over {
		return false
	}
	s.claimIn = nil
	n := t.startCharge() // the claim may have been for another command
	if n > got.n {
		b.release(s.share, got)
		return s.startFirst(t)
	}
	if n > 0 {
		t.chargeIn = b.resize(s.share, got, n)
	} else {
		b.release(s.share, got)
	}
	return true
}

// startSmall takes memory for a command that needs little. The caller holds mu.
func (s *session) startSmall(t *task) (ok bool) {
	n := t.startCharge()
	if n > 0 {
		t.chargeIn, ok = s.srv.budget.takeSmall(s.share, n)
		return ok
	}
	return true
}

// readyForDataIn is called when claimIn is granted.
func (s *session) readyForDataIn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 { // its command was aborted
		s.abandonClaim(&s.claimIn)
		return
	}
	s.spawn()
}

// awaitDataOut makes a command wait for memory for all of its data. The caller holds mu.
func (s *session) awaitDataOut(t *task) {
	if !slices.Contains(s.waiting, t) {
		s.waiting = append(s.waiting, t)
	}
	if s.claimOut == nil {
		s.claimOut = s.srv.budget.wait(s.share, s.waiting[0].dataOutCharge(), s.readyForDataOut)
	}
}

// readyForDataOut is called when claimOut is granted. The first waiting command solicits
// its data.
func (s *session) readyForDataOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.srv.budget
	if s.claimOut == nil || len(s.waiting) == 0 {
		s.abandonClaim(&s.claimOut)
		return
	}
	got, over := b.result(s.claimOut)
	if !over {
		return
	}
	s.claimOut = nil
	t := s.waiting[0]
	if n := t.dataOutCharge(); n <= got.n {
		s.waiting = slices.Delete(s.waiting, 0, 1)
		t.growDataOut(b.resize(s.share, got, n))
		s.solicit(t)
		t.conn.out.wake()
	} else {
		b.release(s.share, got) // granted for another command
	}
	if len(s.waiting) > 0 {
		s.awaitDataOut(s.waiting[0])
	}
}

// keepUnsolicited makes the unsolicited data of a command all of its data, in the memory
// that it came into, if there was no memory for the command when it arrived and no more
// data is to come.
func (t *task) keepUnsolicited() {
	if o := &t.out; o.partial && o.first != nil {
		t.st.SetDataOut(o.first)
		o.first, o.partial = nil, false
	}
}

// growDataOut moves the data of a command to a buffer for all of it.
func (t *task) growDataOut(got charge) {
	o, srv := &t.out, t.conn.srv
	buf := t.st.AllocDataOut(int(o.want))
	if o.first != nil {
		copy(buf, o.first.Bytes[:o.next])
		srv.pool.Put(o.first)
	}
	srv.budget.release(t.sess.share, o.charge)
	o.first, o.buf, o.charge, o.partial = nil, buf, got, false
}

// abandonClaims abandons the claims of a session that ends. The caller holds mu.
func (s *session) abandonClaims() {
	s.abandonClaim(&s.claimIn)
	s.abandonClaim(&s.claimOut)
}

func (s *session) abandonClaim(c **claim) {
	if *c != nil {
		s.srv.budget.abandon(*c)
		*c = nil
	}
}
