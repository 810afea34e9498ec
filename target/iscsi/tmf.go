package iscsi

import (
	"errors"
	"slices"
	"time"
)

// tmf is a task management function in progress (RFC 7143 11.5).
type tmf struct {
	conn     *conn
	function byte
	lun      [8]byte
	itt      uint32
	pdu      pdu // header only
	abortSet
	// cleared has other nexuses' sessions whose tasks were aborted.
	cleared []*session
}

// handleTMF handles a Task Management Function Request. A goroutine does what blocks,
// so that the reader continues.
func (c *conn) handleTMF(p *pdu) error {
	s := c.sess
	if err := p.discard(); err != nil {
		return err
	}
	if s.kind == sessionDiscovery {
		return protocolError("task management in a discovery session")
	}
	if p.immediate() && !s.takeImmediatePlace() {
		c.reject(p, rejectTooManyImmediate)
		return nil
	}
	f := &tmf{conn: c, function: p.bhs[1] & 0x7f, lun: p.lun(), itt: p.itt(), pdu: pdu{bhs: p.bhs}}
	var earlier <-chan struct{}
	if s.shared && f.ofSet() {
		earlier = s.barrierAt(p.cmdSN())
	}
	if earlier == nil {
		response, final := f.abortAffected()
		if final && !(s.shared && f.ofSet() && response == tmfComplete) {
			f.respond(response)
			return nil
		}
	}
	s.hold() // the device server needs the nexus until it is notified
	c.srv.wg.Add(1)
	go func() {
		defer c.srv.wg.Done()
		defer s.release()
		response := f.finish(earlier)
		var ended []*session
		if f.function == tmfTargetColdReset {
			ended = c.srv.sessionsOf(s.device) // excludes sessions that start after the response
		}
		f.respond(response)
		c.out.flush()
		f.dropSessions(ended)
	}()
	return nil
}

// ofSet reports whether the function affects more than one task of its session, so that
// RFC 7143 4.2.3.3 orders it with respect to all connections.
func (f *tmf) ofSet() bool {
	switch f.function {
	case tmfAbortTaskSet, tmfClearTaskSet, tmfLogicalUnitReset, tmfTargetWarmReset, tmfTargetColdReset:
		return true
	}
	return false
}

// finish performs the blocking part of the function. If earlier is not nil, it first
// waits for the earlier commands, which are in transit on other connections (RFC 7143
// 4.2.3.3 (c)). If they do not arrive, nothing was done.
func (f *tmf) finish(earlier <-chan struct{}) (response byte) {
	s := f.conn.sess
	if earlier != nil {
		timer := time.NewTimer(s.srv.options().AbortTimeout)
		defer timer.Stop()
		select {
		case <-earlier:
		case <-timer.C:
			return tmfRejected
		}
		if response, _ := f.abortAffected(); response != tmfComplete {
			return response
		}
	}
	f.await(s.srv, s.log)
	f.notifyDeviceServer()
	if s.shared && f.ofSet() {
		f.conn.awaitAcknowledgement()
	}
	return tmfComplete
}

// errTargetReset is why connections end after a TARGET COLD RESET.
var errTargetReset = errors.New("connection closed by TARGET COLD RESET")

// dropSessions ends sessions after a TARGET COLD RESET (RFC 7143 11.5.1). The
// requesting session ends after its response is sent.
func (f *tmf) dropSessions(sessions []*session) {
	for _, s := range sessions {
		if s != f.conn.sess {
			s.log.WithField("by", f.conn.sess.id.InitiatorName).Warn("session closed by TARGET COLD RESET")
			s.disconnect()
			continue
		}
		s.mu.Lock()
		conns := slices.Clone(s.conns)
		s.mu.Unlock()
		for _, c := range conns {
			c.endReader(errTargetReset)
		}
	}
}

// takeImmediatePlace counts an immediate request, or returns false if there are too many.
func (s *session) takeImmediatePlace() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.immediate >= maxImmediate {
		return false
	}
	s.immediate++
	return true
}

// respond queues the response and frees the request's place in the window.
func (f *tmf) respond(response byte) {
	s := f.conn.sess
	if f.pdu.immediate() {
		s.mu.Lock()
		s.immediate--
		s.mu.Unlock()
	}
	s.releasePlace(&f.pdu)
	r := f.conn.out.get(opTMFResponse, f.itt)
	r.bhs[2] = response
	f.conn.out.queue(r, statSNAdvance)
}

// abortAffected aborts the tasks that the function affects. final reports that the
// response is final and nothing remains to be done.
func (f *tmf) abortAffected() (response byte, final bool) {
	s := f.conn.sess
	ds := s.device
	switch f.function {
	case tmfAbortTask:
		return f.abortTask()
	case tmfAbortTaskSet, tmfClearTaskSet, tmfLogicalUnitReset:
		if !ds.HasLU(s.nexus, f.lun) {
			return tmfLUNDoesNotExist, true
		}
		ofLU := func(lun [8]byte) bool { return lun == f.lun }
		if f.function == tmfAbortTaskSet {
			f.abortTasks(s, ofLU)
			return tmfComplete, len(f.running) == 0
		}
		f.abortEverywhere(ofLU)
		return tmfComplete, false
	case tmfTargetWarmReset, tmfTargetColdReset:
		f.abortEverywhere(func([8]byte) bool { return true })
		return tmfComplete, false
	case tmfTaskReassign:
		return tmfReassignNotSupported, true
	case tmfClearACA:
		return tmfNotSupported, true
	default:
		if f.function >= tmfQueryTask && f.function <= tmfQueryAsyncEvent {
			return tmfNotSupported, true
		}
		return tmfRejected, true
	}
}

// abortTask aborts the referenced task (RFC 7143 11.5.1).
func (f *tmf) abortTask() (response byte, final bool) {
	s := f.conn.sess
	ref, refCmdSN := f.pdu.referencedTaskTag(), f.pdu.refCmdSN()
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[ref]; t != nil {
		if t.st.Lun != f.lun {
			return tmfTaskDoesNotExist, true
		}
		f.abort(s, t, s.nexus)
		return tmfComplete, len(f.running) == 0
	}
	// A command that has not arrived, or is kept, counts as received if it precedes this
	// request.
	if !serialLess(refCmdSN, s.exp.Load()) && !serialLess(s.limit.Load(), refCmdSN) &&
		serialLess(refCmdSN, f.pdu.cmdSN()) {
		if e := s.early[refCmdSN]; e == nil || e.pdu != nil && e.pdu.itt() == ref {
			if e != nil {
				s.freeEarly(e)
			}
			s.early[refCmdSN] = &earlyPDU{conn: f.conn}
			s.earlyWaiting.Store(true)
			return tmfComplete, true
		}
	}
	return tmfTaskDoesNotExist, true
}

// abortTasks aborts the tasks of s with a matching LUN, including kept ones. It reports
// whether there were any.
func (f *tmf) abortTasks(s *session, match func(lun [8]byte) bool) (any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s == f.conn.sess
	any = f.abortMatching(s, f.conn.sess.nexus, func(t *task) bool {
		// Only the initiator's own commands before the request.
		return match(t.st.Lun) && (!own || t.immediate || serialLess(t.cmdSN, f.pdu.cmdSN()))
	})
	for sn, e := range s.early {
		if own && !serialLess(sn, f.pdu.cmdSN()) {
			continue // sent after the request
		}
		if e.pdu != nil && e.pdu.opcode() == opSCSICommand && match(e.pdu.lun()) {
			s.freeEarly(e)
			e.pdu, e.data = nil, nil
			any = true
		}
	}
	return any
}

// abortEverywhere aborts the matching tasks of all sessions of the target.
func (f *tmf) abortEverywhere(match func(lun [8]byte) bool) {
	own := f.conn.sess
	for _, s := range own.srv.sessionsOf(own.device) {
		if f.abortTasks(s, match) && s != own {
			f.cleared = append(f.cleared, s)
		}
	}
}

// notifyDeviceServer makes the device server perform its part of the function.
// Initiators whose tasks were aborted receive the new MaxCmdSN.
func (f *tmf) notifyDeviceServer() {
	s := f.conn.sess
	ds := s.device
	switch f.function {
	case tmfClearTaskSet:
		if len(f.cleared) > 0 {
			ds.TasksAborted(s.nexus, f.lun)
		}
	case tmfLogicalUnitReset:
		ds.ResetLU(s.nexus, f.lun)
	case tmfTargetWarmReset, tmfTargetColdReset:
		for lun := range maxLUN + 1 {
			if b := encodeLUN(uint16(lun)); ds.HasLU(s.nexus, b) {
				ds.ResetLU(s.nexus, b)
			}
		}
	}
	for _, other := range f.cleared {
		other.sendWindow()
	}
}

// maxLUN is the largest LUN of the flat space addressing method.
const maxLUN = 1<<14 - 1

// encodeLUN returns the single level LUN structure (SAM-5 4.7.5): peripheral device
// addressing up to 255, flat space addressing above.
func encodeLUN(lun uint16) [8]byte {
	if lun < 256 {
		return [8]byte{1: byte(lun)}
	}
	return [8]byte{0x40 | byte(lun>>8), byte(lun)}
}

// sendWindow sends a NOP-In with ExpCmdSN and MaxCmdSN.
func (s *session) sendWindow() {
	s.mu.Lock()
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	for _, c := range conns {
		c.nopIn(reservedTag)
	}
}
