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
	// A writev has at most maxBatchPDUs PDUs (three pieces each) and, if it has more than
	// one PDU, at most maxBatchBytes bytes.
	maxBatchPDUs  = 128
	maxBatchBytes = 1 << 20
	// sendTimeout bounds the time for a batch.
	sendTimeout = 30 * time.Second
	// noteEvery is the interval at which the writer checks for progress.
	noteEvery = time.Second
)

// outPDU is an outgoing PDU.
type outPDU struct {
	next *outPDU
	bhs
	headerDigest [digestLength]byte
	data         []byte
	// small is the buffer of short data: sense data, the header of a rejected PDU.
	small [256]byte
	// trailer is the padding and the data digest.
	trailer [3 + digestLength]byte

	// Resources to release after the PDU is sent: the task of the data, the buffer of the
	// data, and the charge for it.
	task   *task
	buf    *bufpool.Buffer
	share  *share
	charge charge
	// flight counts flightBytes of a piece of a streamed command.
	flight      *flight
	flightBytes int64
}

// unwindowed reports whether the CmdSN window does not bound the number of such PDUs: they
// respond to PDUs outside the window.
func (p *outPDU) unwindowed() bool {
	switch p.bhs[0] {
	case opNopIn, opReject, opTextResponse, opTMFResponse:
		return true
	}
	return false
}

// statSNUse is how a PDU uses the connection's StatSN (RFC 7143 4.2.2.2).
type statSNUse int

const (
	statSNNone    statSNUse = iota // field reserved
	statSNNext                     // carries the next StatSN without consuming it
	statSNAdvance                  // a response: consumes it
)

// sender is the output of a connection: a queue, and the exclusive right to write to the
// socket (sending). A goroutine that queues PDUs calls flush afterwards. If no other
// goroutine is sending, flush sends as much as possible without blocking; if the socket
// is full, it hands over to the connection's writer (writeLoop), which blocks instead. A
// response thus normally wakes no goroutine, responses that are queued during a send are
// sent together, and flush never waits for the peer.
type sender struct {
	nc     net.Conn
	now    *nonblockingWriter // nil if nc does not support nonblocking writes
	pool   *bufpool.Pool
	budget *budget
	pdus   *sync.Pool
	// owned is Options.Owned.
	owned func() error
	// window returns ExpCmdSN and MaxCmdSN of the session.
	window func() (exp, limit uint32)
	// failed is called once, with the error that ends sending.
	failed func(error)

	headerDigest, dataDigest bool

	// bytes is the length of all unsent PDUs, unwindowed the memory of those that no
	// window bounds.
	bytes, unwindowed atomic.Int64
	// moved counts the successful writes, for stall.
	moved atomic.Uint32

	kick chan struct{} // wakes the writer
	done chan struct{} // closed by close

	mu          sync.Mutex // guards the fields below
	first, last *outPDU
	statSN      uint32
	sending     bool
	handedOver  bool // the writer is to take over sending
	closed      bool
	low         int64 // threshold of lowered
	lowered     chan struct{}

	// Owned by the goroutine that is sending.
	batch  []*outPDU
	pieces [][]byte
	unsent [][]byte
	bufs   net.Buffers // unsent, for the blocking write
}

// get returns a zeroed PDU with the given opcode and task tag.
func (s *sender) get(opcode byte, itt uint32) *outPDU {
	p, ok := s.pdus.Get().(*outPDU)
	if !ok {
		p = &outPDU{}
	}
	p.bhs = bhs{0: opcode, 1: bitFinal}
	p.put32(16, itt)
	return p
}

// put releases the PDU and its resources.
func (s *sender) put(p *outPDU) {
	if p.task != nil {
		p.task.sent()
	}
	if p.buf != nil {
		s.pool.Put(p.buf)
		s.budget.release(p.share, p.charge)
	}
	if p.flight != nil {
		p.flight.sent(p.flightBytes)
		p.flight = nil
	}
	p.next, p.task, p.buf, p.data, p.share, p.charge = nil, nil, nil, nil, nil, charge{}
	s.pdus.Put(p)
}

// queue sets the sequence numbers of p and appends it to the queue.
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
	if p.unwindowed() {
		s.unwindowed.Add(outPDULength + int64(len(p.data)))
	}
	s.mu.Unlock()
}

// nextStatSN returns the StatSN of the next response.
func (s *sender) nextStatSN() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statSN
}

// length returns the approximate length of the PDU in bytes.
func (p *outPDU) length() int64 { return int64(bhsLength + len(p.data)) }

// flush sends the queue, unless another goroutine is sending. It does not block.
func (s *sender) flush() {
	s.mu.Lock()
	if s.sending || s.closed || s.first == nil {
		s.mu.Unlock()
		return
	}
	s.sending = true
	for s.takeBatch() {
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

// handOver hands over sending, and the batch, to the writer.
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

// wake makes the writer check the queue.
func (s *sender) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// writeLoop is the writer: it sends what flush could not send.
func (s *sender) writeLoop() {
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

// sendWaiting sends the batch that was handed over, if any, and then the queue. It blocks
// while the socket is full.
func (s *sender) sendWaiting(handed bool) error {
	for {
		if !handed {
			s.mu.Lock()
			if !s.takeBatch() {
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

// writeWaiting writes the batch and counts progress in moved.
func (s *sender) writeWaiting(deadline time.Time) error {
	s.bufs = s.unsent
	for {
		soon := time.Now().Add(noteEvery)
		if soon.After(deadline) {
			soon = deadline
		}
		if err := s.owned(); err != nil {
			return err
		}
		if err := s.nc.SetWriteDeadline(soon); err != nil {
			return err
		}
		n, err := s.bufs.WriteTo(s.nc)
		if n > 0 {
			s.moved.Add(1)
		}
		if err == nil {
			// Otherwise the deadline would later fail a nonblocking write.
			return s.nc.SetWriteDeadline(time.Time{})
		}
		if soon.Equal(deadline) || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// takeBatch moves the head of the queue to the batch. It returns false if the queue is
// empty. The caller holds mu.
func (s *sender) takeBatch() bool {
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

// gather collects the pieces of the batch: headers, data, padding and digests.
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

// sendNow writes as much as possible without blocking and reports whether that was all.
func (s *sender) sendNow() (all bool, err error) {
	if s.now == nil {
		return false, nil
	}
	if err := s.owned(); err != nil {
		return false, err
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

// skipBytes removes the first n bytes of the pieces.
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

// sent releases the batch, which was sent or is dropped.
func (s *sender) sent() {
	bytes := int64(0)
	for i, p := range s.batch {
		bytes += p.length()
		if p.unwindowed() {
			s.unwindowed.Add(-outPDULength - int64(len(p.data)))
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

// fail ends sending after an error. The caller is sending.
func (s *sender) fail(err error) {
	s.sent()
	s.close()
	s.failed(err)
}

// close drops the queue and all later PDUs.
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

// abandon releases a batch that was handed over and is not sent.
func (s *sender) abandon() {
	s.mu.Lock()
	handed := s.handedOver
	s.handedOver = false
	s.mu.Unlock()
	if handed {
		s.sent()
	}
}

// waitBelow waits until at most limit bytes (limit ≤ maxBatchBytes) are unsent. It returns
// false if the connection is closed or after timeout (0: none). Only the connection's
// reader calls it.
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
