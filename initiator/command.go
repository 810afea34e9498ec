package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// maxCDBLength is the longest CDB that fits a header.
const maxCDBLength = 16

// Command is one SCSI command. At most one of In and Out has bytes.
type Command struct {
	CDB []byte
	// Out is sent, In is filled.
	Out, In []byte
	// Received is how many bytes of In the target filled; Do sets it.
	Received int
	// Taken is how many bytes of Out the target has asked for and, as its status says, used; Do
	// sets it.
	Taken int
}

// task is a command that the reader knows of.
type task struct {
	*Command
	itt uint32
	// r2t takes one R2T at a time, which is all that was negotiated; status takes
	// the end.
	r2t    chan header
	status chan error
	filled int // the end of what was received; the reader's
	sent   int // the end of what was sent of Out; the caller's
	// residual is how much of Out the target says that it has not used, or of In that it has not
	// filled, in bytes.
	residual atomic.Uint32
}

// Do runs a command and returns once its status has come. A CHECK CONDITION is
// a *SenseError, any other status that is not GOOD a *StatusError. When ctx ends
// first, so does the session.
func (s *Session) Do(ctx context.Context, c *Command) error {
	if len(c.CDB) > maxCDBLength {
		return fmt.Errorf("a CDB of %d bytes is not supported", len(c.CDB))
	}
	t := &task{Command: c, r2t: make(chan header, 1), status: make(chan error, 1)}
	first, err := s.start(ctx, t)
	if err != nil {
		return err
	}
	defer s.forget(t)
	t.sent = first
	if err := s.sendUnsolicited(t, first); err != nil {
		return s.broken(err)
	}
	for {
		select {
		case r := <-t.r2t:
			if err := s.answerR2T(t, &r); err != nil {
				return s.broken(err)
			}
		case err := <-t.status:
			t.Taken = t.moved(t.sent, len(t.Out))
			return err
		case <-s.ended:
			return s.err
		case <-ctx.Done():
			s.end()
			return ctx.Err()
		}
	}
}

// broken ends a session that cannot send; why it cannot is known best by the
// reader, if it knows.
func (s *Session) broken(err error) error {
	s.end()
	if s.err != nil {
		return fmt.Errorf("%w (while sending: %v)", s.err, err)
	}
	return err
}

// start sends the command as soon as the window allows it, with as much
// immediate data as was negotiated, and returns how much that was.
func (s *Session) start(ctx context.Context, t *task) (int, error) {
	h := &header{0: opSCSICommand, 1: bitFinal | 0x01} // simple task
	binary.BigEndian.PutUint16(h[8:], lunField(s.lun))
	copy(h[32:], t.CDB)
	immediate := 0
	if len(t.In) > 0 {
		h[1] |= bitRead
		h.put32(20, uint32(len(t.In)))
	}
	if len(t.Out) > 0 {
		h[1] |= bitWrite
		h.put32(20, uint32(len(t.Out)))
		if s.limits.immediate {
			immediate = min(len(t.Out), s.limits.segment, s.limits.firstBurst)
		}
		if !s.limits.initialR2T && immediate < min(len(t.Out), s.limits.firstBurst) {
			h[1] &^= bitFinal // Data-Out follows without being asked for
		}
	}
	for {
		wait, err := s.trySend(h, t, immediate)
		if wait == nil {
			return immediate, err
		}
		select {
		case <-wait:
		case <-s.ended:
			return 0, s.err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// trySend sends the command, or returns what to wait for when the window is
// closed.
func (s *Session) trySend(h *header, t *task, immediate int) (wait <-chan struct{}, err error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	switch {
	case s.leaving != nil:
		defer s.mu.Unlock()
		return nil, ErrLogoutRequested
	case int32(s.maxCmdSN-s.cmdSN) < 0:
		defer s.mu.Unlock()
		return s.moved, nil
	}
	t.itt = s.takeITT()
	s.tasks[t.itt] = t
	h.put32(16, t.itt)
	h.put32(24, s.cmdSN)
	h.put32(28, s.expStatSN)
	s.cmdSN++
	s.mu.Unlock()
	return nil, send(s.conn, h, t.Out[:immediate])
}

// lunField is the first level of a LUN: peripheral device addressing where it
// reaches, else flat space (SAM-5 4.7.7).
func lunField(lun uint16) uint16 {
	if lun > 255 {
		return 0x4000 | lun
	}
	return lun
}

// sendUnsolicited sends the rest of the first burst, from an offset on.
func (s *Session) sendUnsolicited(t *task, from int) error {
	end := min(len(t.Out), s.limits.firstBurst)
	if s.limits.initialR2T || from >= end {
		return nil
	}
	return s.sendData(t, reservedTag, from, end)
}

// answerR2T sends what the target asks for.
func (s *Session) answerR2T(t *task, r *header) error {
	from, n := int(r.get32(40)), int(r.get32(44))
	if n == 0 || n > s.limits.burst || from > len(t.Out) || n > len(t.Out)-from {
		return fmt.Errorf("the target asks for %d bytes from %d of %d", n, from, len(t.Out))
	}
	return s.sendData(t, r.get32(20), from, from+n)
}

// sendData sends one sequence of Data-Out PDUs.
func (s *Session) sendData(t *task, ttt uint32, from, end int) error {
	defer func() { t.sent = max(t.sent, from) }()
	for n := uint32(0); from < end; n++ {
		part := t.Out[from:min(end, from+s.limits.segment)]
		h := &header{0: opDataOut}
		if from+len(part) == end {
			h[1] = bitFinal
		}
		binary.BigEndian.PutUint16(h[8:], lunField(s.lun))
		h.put32(16, t.itt)
		h.put32(20, ttt)
		h.put32(36, n)
		h.put32(40, uint32(from))
		if err := s.sendOne(h, part); err != nil {
			return err
		}
		from += len(part)
	}
	return nil
}

func (s *Session) sendOne(h *header, data []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	h.put32(28, s.expStatSN)
	s.mu.Unlock()
	return send(s.conn, h, data)
}

// forTask takes a PDU of a command; the reader calls it.
func (s *Session) forTask(h *header) error {
	s.mu.Lock()
	t := s.tasks[h.itt()]
	s.openWindow(h)
	if h.opcode() == opSCSIResponse || h.opcode() == opDataIn && h[1]&bitStatus != 0 {
		s.expStatSN = h.get32(24) + 1
	}
	s.mu.Unlock()
	if t == nil {
		return fmt.Errorf("a PDU of opcode %#02x for no command of ours", h.opcode())
	}
	switch h.opcode() {
	case opR2T:
		select {
		case t.r2t <- *h:
			return receiveData(s.in, h, nil)
		default:
			return fmt.Errorf("more R2T at a time than negotiated")
		}
	case opDataIn:
		return s.takeData(t, h)
	default:
		return s.takeResponse(t, h)
	}
}

// takeData puts Data-In where it belongs.
func (s *Session) takeData(t *task, h *header) error {
	from := int(h.get32(40))
	if from != t.filled { // DataPDUInOrder and DataSequenceInOrder were negotiated
		return fmt.Errorf("Data-In at %d, the one before it ended at %d", from, t.filled)
	}
	if h.dataLength() > len(t.In)-from {
		return fmt.Errorf("Data-In of %d bytes at %d, the buffer has %d", h.dataLength(), from, len(t.In))
	}
	if err := receiveData(s.in, h, t.In[from:]); err != nil {
		return err
	}
	t.filled = from + h.dataLength()
	if h[1]&bitStatus != 0 {
		t.noteResidual(h)
		t.end(statusError(h[3], nil))
	}
	return nil
}

// takeResponse takes the status, and sense data with it.
func (s *Session) takeResponse(t *task, h *header) error {
	data := make([]byte, h.dataLength())
	if err := receiveData(s.in, h, data); err != nil {
		return err
	}
	if h[2] != 0 {
		t.end(fmt.Errorf("the target failed the command (iSCSI response %#02x)", h[2]))
		return nil
	}
	var sense []byte
	if len(data) >= 2 {
		sense = data[2:min(len(data), 2+int(binary.BigEndian.Uint16(data)))]
	}
	t.noteResidual(h)
	t.end(statusError(h[3], sense))
	return nil
}

// noteResidual takes the residual count of a PDU with a status. Of what a read has beyond In,
// nothing was asked for; a write that was to have more than Out is not what was meant.
func (t *task) noteResidual(h *header) {
	if h[1]&bitUnderflow != 0 || h[1]&bitOverflow != 0 && len(t.Out) > 0 {
		t.residual.Store(h.get32(44))
	}
}

// moved returns how much of so many bytes is where it was to be, of which the transport has moved
// n.
func (t *task) moved(n, length int) int {
	return min(n, length-int(min(t.residual.Load(), uint32(length))))
}

// end notifies the command's caller. A target that ends a command twice is answered
// nothing: the first end counts.
func (t *task) end(err error) {
	t.Received = t.moved(t.filled, len(t.In))
	select {
	case t.status <- err:
	default:
	}
}
