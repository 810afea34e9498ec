package iscsi

import (
	"slices"

	"odx/target/scsi"
)

// maxUnsized is the most Data-In in bytes that a command whose CDB names no
// transfer length in blocks is expected to have; what it has is charged later.
const maxUnsized = 1 << 20

// dataInCharge is what n bytes of Data-In take of the budget: their buffer, and
// the PDUs that carry them.
func (t *task) dataInCharge(n int) int64 {
	if n == 0 {
		return 0
	}
	ps := &t.conn.params
	pdus := n/int(ps.peerMaxRecv&^3) + n/int(ps.maxBurst) + 1
	return bufferCharge(n) + int64(pdus)*outPDULength
}

// dataIn is how many bytes of Data-In the command will have at most.
func (t *task) dataIn() int {
	switch {
	case t.st.Wanted > 0: // of Data-Out
		return 0
	case t.st.Streamed():
		return scsi.StreamPiece
	case t.st.TL > 0 && readsBlocks(t.st.OpCode): // also where the initiator expects less
		return int(t.st.TL)
	}
	return int(min(t.st.ExpectedIn, maxUnsized))
}

// readsBlocks reports whether an operation code is one of READ.
func readsBlocks(op byte) bool {
	switch op {
	case 0x08, 0x28, 0x88, 0xa8: // READ(6), (10), (16), (12)
		return true
	}
	return false
}

// takeDataIn takes memory for the Data-In of a command that is to start. mu is
// held.
func (s *session) takeDataIn(t *task) (ok bool) {
	n := t.dataInCharge(t.dataIn())
	if n == 0 {
		return true
	}
	t.chargeIn, ok = s.srv.budget.take(s.share, n)
	return ok
}

// startable returns which of the commands that are ready can start, -1 when none
// can. The first one waits in line for memory if there is none; those after it
// start before it only if they need none, or little. mu is held.
func (s *session) startable() int {
	if len(s.ready) == 0 {
		s.abandonClaim(&s.claimIn) // what it was for was aborted
		return -1
	}
	if s.startFirst(s.ready[0]) {
		return 0
	}
	return slices.IndexFunc(s.ready, s.startLittle)
}

// startFirst takes memory for t, the first command that is ready. Without any it
// has the session wait in line. mu is held.
func (s *session) startFirst(t *task) bool {
	b := s.srv.budget
	if s.claimIn == nil {
		if s.takeDataIn(t) {
			return true
		}
		s.claimIn = b.wait(s.share, t.dataInCharge(t.dataIn()), s.readyForDataIn)
		return false
	}
	got, over := b.settle(s.claimIn)
	if !over {
		return false
	}
	s.claimIn = nil
	n := t.dataInCharge(t.dataIn()) // of another command than before, perhaps
	if n > got.n {
		b.give(s.share, got)
		return s.startFirst(t)
	}
	if n > 0 {
		t.chargeIn = b.resize(s.share, got, n)
	} else {
		b.give(s.share, got)
	}
	return true
}

// startLittle takes memory for a command that needs little. mu is held.
func (s *session) startLittle(t *task) (ok bool) {
	n := t.dataInCharge(t.dataIn())
	if n > 0 {
		t.chargeIn, ok = s.srv.budget.takeSmall(s.share, n)
		return ok
	}
	return true
}

// readyForDataIn is called when claimIn got memory.
func (s *session) readyForDataIn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 { // what it was for was aborted
		s.abandonClaim(&s.claimIn)
		return
	}
	s.hire()
}

// awaitDataOut has a command wait for memory for all of its data. mu is held.
func (s *session) awaitDataOut(t *task) {
	if !slices.Contains(s.waiting, t) {
		s.waiting = append(s.waiting, t)
	}
	if s.claimOut == nil {
		s.claimOut = s.srv.budget.wait(s.share, bufferCharge(int(s.waiting[0].out.want)), s.readyForDataOut)
	}
}

// readyForDataOut is called when claimOut got memory. The first command that
// waits asks for its data.
func (s *session) readyForDataOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.srv.budget
	if s.claimOut == nil || len(s.waiting) == 0 {
		s.abandonClaim(&s.claimOut)
		return
	}
	got, over := b.settle(s.claimOut)
	if !over {
		return
	}
	s.claimOut = nil
	t := s.waiting[0]
	if n := bufferCharge(int(t.out.want)); n <= got.n {
		s.waiting = slices.Delete(s.waiting, 0, 1)
		t.haveDataOut(b.resize(s.share, got, n))
		s.solicit(t)
		t.conn.out.wake()
	} else {
		b.give(s.share, got) // it was for another command
	}
	if len(s.waiting) > 0 {
		s.awaitDataOut(s.waiting[0])
	}
}

// haveDataOut moves a command to a buffer for all of its data.
func (t *task) haveDataOut(got charge) {
	o, srv := &t.out, t.conn.srv
	buf := t.st.AllocDataOut(int(o.want))
	if o.first != nil {
		copy(buf, o.first.Bytes[:o.next])
		srv.opts.Pool.Put(o.first)
	}
	srv.budget.give(t.sess.share, o.charge)
	o.first, o.buf, o.charge, o.partial = nil, buf, got, false
}

// abandonClaims ends the waits of a session that ends. mu is held.
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
