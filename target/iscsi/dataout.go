package iscsi

import (
	"odx/target/bufpool"
)

// maxR2T is the target's value of MaxOutstandingR2T.
const maxR2T = 8

// burst is a sequence of Data-Out PDUs: unsolicited, or solicited by an R2T.
type burst struct {
	ttt    uint32
	offset uint32 // of the next PDU (DataPDUInOrder=Yes)
	end    uint32 // maximum end of the sequence
	dataSN uint32 // of the next PDU
}

// dataOut is the state of a command's Data-Out.
type dataOut struct {
	// total is the number of bytes for the command: the transfer length of the CDB, at
	// most the expected data transfer length. Further data is dropped.
	total uint32
	// base and want are the start and end of the piece in buf. Only a streamed command
	// has several pieces.
	base, want uint32
	// next is the offset of the next R2T.
	next uint32
	buf  []byte
	// partial is set while the command has memory only for unsolicited data, in first,
	// which is nil if there is none.
	partial bool
	first   *bufpool.Buffer
	// charge is the charge for buf.
	charge charge
	r2tSN  uint32
	// open has the sequences whose F bit has not arrived.
	open [maxR2T]burst
	n    int
}

func (o *dataOut) find(ttt uint32) *burst {
	for i := range o.open[:o.n] {
		if o.open[i].ttt == ttt {
			return &o.open[i]
		}
	}
	return nil
}

func (o *dataOut) add(b burst) {
	o.open[o.n] = b
	o.n++
}

func (o *dataOut) remove(ttt uint32) {
	for i := range o.open[:o.n] {
		if o.open[i].ttt == ttt {
			o.n--
			copy(o.open[i:], o.open[i+1:o.n+1])
			return
		}
	}
}

// takeImmediateData checks and reads the data that came with the command, and adds a
// sequence if unsolicited Data-Out follows. The reader owns the task.
func (c *conn) takeImmediateData(t *task, p *pdu) error {
	n, ps := uint32(p.dataSegmentLength()), &c.params
	unsolicited := min(t.edtl, ps.firstBurst)
	switch {
	case n > 0 && (!t.write || !ps.immediateData), !p.final() && ps.initialR2T:
		t.fail(&senseUnexpectedUnsolicited)
	case n > unsolicited:
		t.fail(&senseTooMuchData)
	}
	if !p.final() {
		t.out.add(burst{ttt: reservedTag, offset: n, end: unsolicited})
	}
	if t.early || t.failure != nil || t.out.want == 0 || !t.allocDataOut(n > 0 || !p.final()) {
		return c.dataError(t, p, p.discard())
	}
	dst := t.out.buf[:min(n, t.out.want, uint32(len(t.out.buf)))]
	t.out.next = min(n, t.out.want)
	return c.dataError(t, p, p.readData(dst))
}

// dataError fails the command if its data has a digest error (RFC 7143 7.8: Reject, and
// CHECK CONDITION, since the data is not requested again). Other errors end the
// connection.
func (c *conn) dataError(t *task, p *pdu, err error) error {
	if err != errDataDigest {
		return err
	}
	t.fail(&senseServiceCRC)
	c.reject(p, rejectDataDigest)
	return nil
}

// allocDataOut allocates memory for the whole command or, if there is none, for its
// unsolicited data, if unsolicited is set. It returns false if there is none for that
// either: the command then ends with BUSY, and its data is dropped, because the
// connection must remain readable.
func (t *task) allocDataOut(unsolicited bool) bool {
	o, s := &t.out, t.sess
	b := s.srv.budget
	var ok bool
	if o.charge, ok = b.take(s.share, t.dataOutCharge()); ok {
		o.buf = t.st.AllocDataOut(int(o.want))
		return true
	}
	o.partial = true
	if !unsolicited {
		return true
	}
	first := min(o.want, t.conn.params.firstBurst)
	n := bufferCharge(int(first))
	if !b.unsolicited.take(s.share, n) {
		t.st.Result, t.early = statusBusy, true
		return false
	}
	o.charge = charge{&b.unsolicited, n}
	o.first = t.conn.srv.pool.Get(int(first))
	o.buf = o.first.Bytes
	return true
}

// handleDataOut handles a Data-Out PDU (RFC 7143 11.7). It silently drops data for a
// command that has ended, since the initiator may not have known when it sent the data.
func (c *conn) handleDataOut(p *pdu) error {
	c.dataOuts.Add(1)
	if c.sess.shared {
		var err error
		if p, err = c.keepSharedDataOut(p); err == errKept {
			return nil
		} else if err != nil {
			return err
		}
	}
	return c.takeDataOut(p)
}

func (c *conn) takeDataOut(p *pdu) error {
	s := c.sess
	s.mu.Lock()
	t := s.tasks[p.itt()]
	if t == nil || t.aborted || t.conn != c || t.state != taskCollecting {
		early := s.earlyCommand(p.itt(), c)
		s.mu.Unlock()
		if early != nil {
			return c.keepDataOut(early, p)
		}
		return c.droppedData(p, p.discard())
	}
	b := t.out.find(p.ttt())
	if b == nil {
		s.mu.Unlock()
		return malformed("Data-Out for task %#x with unknown Target Transfer Tag %#x", p.itt(), p.ttt())
	}
	t.state = taskWithReader
	s.mu.Unlock()

	if err := c.takeData(t, b, p); err != nil {
		return err
	}
	return c.advance(t)
}

// droppedData returns the error of a PDU whose data was dropped. It rejects the PDU if the
// data has a digest error.
func (c *conn) droppedData(p *pdu, err error) error {
	if err == errDataDigest {
		c.reject(p, rejectDataDigest)
		return nil
	}
	return err
}

// takeData checks a Data-Out PDU against its sequence b and reads its data. The reader
// owns the task.
func (c *conn) takeData(t *task, b *burst, p *pdu) error {
	n, offset := uint32(p.dataSegmentLength()), p.bufferOffset()
	switch {
	case p.dataSN() != b.dataSN:
		t.fail(&senseDataPhase)
	case offset != b.offset:
		t.fail(&senseDataOffset)
	case n > b.end-b.offset:
		t.fail(&senseTooMuchData)
	case p.final() && n < b.end-b.offset && b.ttt != reservedTag:
		t.fail(&senseNotEnoughData)
	}
	var dst []byte
	if t.failure == nil && !t.early && offset < t.out.want {
		dst = t.out.buf[offset-t.out.base : min(offset+n, t.out.want)-t.out.base]
	}
	if err := c.dataError(t, p, p.readData(dst)); err != nil {
		return err
	}
	b.dataSN++
	b.offset = offset + n
	if t.failure != nil {
		b.offset = offset // further data is dropped; only the F bit matters
	}
	if p.final() {
		if b.ttt == reservedTag {
			t.out.next = min(b.offset, t.out.want)
		}
		t.out.remove(b.ttt)
	}
	return nil
}

// solicit sends as many R2Ts for missing data as are allowed. The caller holds the
// session's mu.
func (s *session) solicit(t *task) {
	o, c := &t.out, t.conn
	if o.partial {
		s.awaitDataOut(t)
		return
	}
	for o.next < o.want && o.n < int(min(c.params.maxOutstandingR2T, maxR2T)) {
		b := burst{ttt: c.nextTTT(), offset: o.next, end: o.next + min(o.want-o.next, c.params.maxBurst)}
		o.add(b)
		o.next = b.end
		p := c.out.get(opR2T, t.itt)
		lun := t.st.Lun
		copy(p.bhs[8:], lun[:])
		p.put32(20, b.ttt)
		p.put32(36, o.r2tSN)
		p.put32(40, b.offset)
		p.put32(44, b.end-b.offset)
		o.r2tSN++
		c.out.queue(p, statSNNext)
	}
}

// nextTTT returns a Target Transfer Tag that was not used recently.
func (c *conn) nextTTT() uint32 {
	if c.ttt++; c.ttt == reservedTag {
		c.ttt = 0
	}
	return c.ttt
}
