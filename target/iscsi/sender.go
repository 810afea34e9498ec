package iscsi

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"odx/target/bufpool"
)

const (
	// One writev takes at most this many PDUs (three pieces each) and, beyond
	// the first PDU, this many bytes.
	maxBatchPDUs  = 128
	maxBatchBytes = 1 << 20
	// sendTimeout is how long the peer may take for one batch.
	sendTimeout = 30 * time.Second
	// noteEvery is how often the writer notes whether the peer takes anything.
	noteEvery = time.Second
)

// outPDU is one PDU on its way out.
type outPDU struct {
	next *outPDU
	bhs
	headerDigest [digestLength]byte
	data         []byte
	// small is room for short data: sense data, the header of a rejected PDU.
	small [256]byte
	// trailer is padding and data digest.
	trailer [3 + digestLength]byte

	// What is given back when the PDU has left: the task whose data it carries,
	// the buffer that data is in, and what that was charged.
	task   *task
	buf    *bufpool.Buffer
	share  *share
	charge charge
	// flight is where a piece of a streamed command is counted with flown bytes.
	flight *flight
	flown  int64
}

// loose reports whether nothing but the peer bounds how many such PDUs it can
// have us send: those that answer what takes no place in the CmdSN window.
func (p *outPDU) loose() bool {
	switch p.bhs[0] {
	case opNopIn, opReject, opTextResponse, opTMFResponse:
		return true
	}
	return false
}

// statSNUse says what a PDU does with the connection's StatSN (RFC 7143 4.2.2.2).
type statSNUse int

const (
	statSNNone    statSNUse = iota // field reserved
	statSNNext                     // carries the next StatSN without using it up
	statSNAdvance                  // a response: uses it up
)

// sender is the way out of a connection: a queue, and the right to write to the
// socket, which one goroutine at a time holds (sending). Whoever queues PDUs
// calls flush afterwards. If nobody is sending, flush sends what the socket
// takes without waiting; if the socket is full, the connection's writer
// (run) gets the right to send and waits in its place. So a response normally
// wakes no goroutine, responses that gather while one is sending leave
// together, and no caller of flush ever waits for the peer.
type sender struct {
	nc     net.Conn
	now    *nonblockingWriter // nil where nc cannot be written without waiting
	pool   *bufpool.Pool
	budget *budget
	pdus   *sync.Pool
	// window says ExpCmdSN and MaxCmdSN of the session.
	window func() (exp, limit uint32)
	// failed is called, once, with the error that ended sending.
	failed func(error)

	headerDigest, dataDigest bool

	// bytes are queued or being sent. loose are those of them that are of PDUs
	// that no window bounds.
	bytes, loose atomic.Int64
	// moved counts the times that the peer took something.
	moved atomic.Uint32

	kick chan struct{} // wakes the writer
	done chan struct{} // closed by close

	mu          sync.Mutex // guards what follows
	first, last *outPDU
	statSN      uint32
	sending     bool
	handedOver  bool // the right to send waits for the writer
	closed      bool
	low         int64 // the level that lowered waits for
	lowered     chan struct{}

	// Held by the one that sends.
	batch  []*outPDU
	pieces [][]byte
	unsent [][]byte
	bufs   net.Buffers // unsent, for the write that waits
}

// get returns a zeroed PDU of the given opcode for task tag itt.
func (s *sender) get(opcode byte, itt uint32) *outPDU {
	p, ok := s.pdus.Get().(*outPDU)
	if !ok {
		p = &outPDU{}
	}
	p.bhs = bhs{0: opcode, 1: bitFinal}
	p.put32(16, itt)
	return p
}

// put frees what the PDU holds.
func (s *sender) put(p *outPDU) {
	if p.task != nil {
		p.task.sent()
	}
	if p.buf != nil {
		s.pool.Put(p.buf)
		s.budget.give(p.share, p.charge)
	}
	if p.flight != nil {
		p.flight.sent(p.flown)
		p.flight = nil
	}
	p.next, p.task, p.buf, p.data, p.share, p.charge = nil, nil, nil, nil, nil, charge{}
	s.pdus.Put(p)
}

// queue numbers p and puts it at the end of the queue.
func (s *sender) queue(p *outPDU, use statSNUse) {
	p.setDataSegmentLength(len(p.data))
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.put(p)
		return
	}
	switch use {
	case statSNNext:
		p.put32(24, s.statSN)
	case statSNAdvance:
		p.put32(24, s.statSN)
		s.statSN++
	}
	exp, limit := s.window()
	p.put32(28, exp)
	p.put32(32, limit)
	if s.last == nil {
		s.first = p
	} else {
		s.last.next = p
	}
	s.last = p
	s.bytes.Add(p.length())
	if p.loose() {
		s.loose.Add(outPDULength + int64(len(p.data)))
	}
	s.mu.Unlock()
}

// nextStatSN returns the StatSN of the next response.
func (s *sender) nextStatSN() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statSN
}

// length is about how many bytes the PDU takes.
func (p *outPDU) length() int64 { return int64(bhsLength + len(p.data)) }

// flush sends what is queued, unless somebody else is doing so. It does not
// wait for the peer.
func (s *sender) flush() {
	s.mu.Lock()
	if s.sending || s.closed || s.first == nil {
		s.mu.Unlock()
		return
	}
	s.sending = true
	for s.cut() {
		s.mu.Unlock()
		s.gather()
		all, err := s.sendNow()
		if err != nil {
			s.fail(err)
			return
		}
		if !all {
			s.handOver()
			return
		}
		s.sent()
		s.mu.Lock()
	}
	s.sending = false
	s.mu.Unlock()
}

// handOver gives the right to send, and the batch, to the writer.
func (s *sender) handOver() {
	s.mu.Lock()
	closed := s.closed
	s.handedOver = !closed
	s.mu.Unlock()
	if closed {
		s.sent()
		return
	}
	s.wake()
}

// wake has the writer look at the queue.
func (s *sender) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// run is the writer: it sends what flush could not.
func (s *sender) run() {
	for {
		select {
		case <-s.done:
			s.abandon()
			return
		case <-s.kick:
		}
		s.mu.Lock()
		handed := s.handedOver
		s.handedOver = false
		if !handed && (s.sending || s.closed) {
			s.mu.Unlock()
			continue
		}
		s.sending = true
		s.mu.Unlock()
		if err := s.sendWaiting(handed); err != nil {
			s.fail(err)
			return
		}
	}
}

// sendWaiting sends the batch that was handed over, if there is one, and then
// the queue, and waits for the peer where it must.
func (s *sender) sendWaiting(handed bool) error {
	for {
		if !handed {
			s.mu.Lock()
			if !s.cut() {
				s.sending = false
				s.mu.Unlock()
				return nil
			}
			s.mu.Unlock()
			s.gather()
		}
		handed = false
		if err := s.writeWaiting(time.Now().Add(sendTimeout)); err != nil {
			return err
		}
		s.sent()
	}
}

// writeWaiting writes the batch, and notes each time that the peer takes some.
func (s *sender) writeWaiting(deadline time.Time) error {
	s.bufs = s.unsent
	for {
		soon := time.Now().Add(noteEvery)
		if soon.After(deadline) {
			soon = deadline
		}
		if err := s.nc.SetWriteDeadline(soon); err != nil {
			return err
		}
		n, err := s.bufs.WriteTo(s.nc)
		if n > 0 {
			s.moved.Add(1)
		}
		if err == nil {
			// A deadline that passes later would fail a write that does not wait.
			return s.nc.SetWriteDeadline(time.Time{})
		}
		if soon.Equal(deadline) || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// cut moves the head of the queue into the batch; false says that the queue is
// empty. mu is held.
func (s *sender) cut() bool {
	bytes := int64(0)
	for s.first != nil && len(s.batch) < maxBatchPDUs {
		p := s.first
		if bytes += p.length(); bytes > maxBatchBytes && len(s.batch) > 0 {
			break
		}
		s.batch = append(s.batch, p)
		s.first = p.next
	}
	if s.first == nil {
		s.last = nil
	}
	return len(s.batch) > 0
}

// gather lists the pieces of the batch: headers, data, padding and digests.
func (s *sender) gather() {
	s.pieces = s.pieces[:0]
	for _, p := range s.batch {
		s.pieces = append(s.pieces, p.bhs[:])
		if s.headerDigest {
			digest(0).add(p.bhs[:]).put(p.headerDigest[:])
			s.pieces = append(s.pieces, p.headerDigest[:])
		}
		if len(p.data) == 0 {
			continue
		}
		s.pieces = append(s.pieces, p.data)
		n := padding(len(p.data))
		copy(p.trailer[:], zeroPad[:n])
		if s.dataDigest {
			digest(0).add(p.data).add(zeroPad[:n]).put(p.trailer[n:])
			n += digestLength
		}
		if n > 0 {
			s.pieces = append(s.pieces, p.trailer[:n])
		}
	}
	s.unsent = s.pieces
}

// sendNow writes what the socket takes at once and reports whether that was
// everything.
func (s *sender) sendNow() (all bool, err error) {
	if s.now == nil {
		return false, nil
	}
	n, err := s.now.write(s.unsent)
	if err != nil {
		return false, err
	}
	if n > 0 {
		s.moved.Add(1)
	}
	s.unsent = skipBytes(s.unsent, n)
	return len(s.unsent) == 0, nil
}

// skipBytes drops the first n bytes of the pieces.
func skipBytes(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}

// sent frees the batch, which has left or never will.
func (s *sender) sent() {
	bytes := int64(0)
	for i, p := range s.batch {
		bytes += p.length()
		if p.loose() {
			s.loose.Add(-outPDULength - int64(len(p.data)))
		}
		s.put(p)
		s.batch[i] = nil
	}
	s.batch = s.batch[:0]
	clear(s.pieces)
	if s.bytes.Add(-bytes) > maxBatchBytes {
		return
	}
	s.mu.Lock()
	if s.lowered != nil && s.bytes.Load() <= s.low {
		close(s.lowered)
		s.lowered = nil
	}
	s.mu.Unlock()
}

// fail ends sending by the one that holds the right to send.
func (s *sender) fail(err error) {
	s.sent()
	s.close()
	s.failed(err)
}

// close drops the queue. Later PDUs are dropped too.
func (s *sender) close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	p := s.first
	s.first, s.last = nil, nil
	if s.lowered != nil {
		close(s.lowered)
		s.lowered = nil
	}
	s.mu.Unlock()
	close(s.done)
	for p != nil {
		next := p.next
		s.put(p)
		p = next
	}
}

// abandon frees a batch that was handed over and is not sent any more.
func (s *sender) abandon() {
	s.mu.Lock()
	handed := s.handedOver
	s.handedOver = false
	s.mu.Unlock()
	if handed {
		s.sent()
	}
}

// waitBelow waits until at most limit bytes (no more than maxBatchBytes) are
// queued or being sent. It returns false when the connection closed or timeout
// (0: none) is over first. Only the connection's reader calls it.
func (s *sender) waitBelow(limit int64, timeout time.Duration) bool {
	s.flush()
	s.mu.Lock()
	if s.closed || s.bytes.Load() <= limit {
		closed := s.closed
		s.mu.Unlock()
		return !closed
	}
	lowered := make(chan struct{})
	s.low, s.lowered = limit, lowered
	s.mu.Unlock()

	var late <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-lowered:
		return s.bytes.Load() <= limit
	case <-late:
		return false
	}
}
