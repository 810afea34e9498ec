package copymgr

import "context"

// keptData is what an operation keeps for RECEIVE COPY DATA (SPC-4 r37 5.17.4.5):
// the processed data of its segments of type 0Dh, and where that is too much, the
// latest of it.
type keptData struct {
	bytes     []byte
	discarded bool // there was more
}

// room makes room for n bytes more and returns how many of them, the last ones,
// are to be kept.
func (h *keptData) room(n int64) int64 {
	keep := min(n, maxHeldData)
	if surplus := int64(len(h.bytes)) + keep - maxHeldData; surplus > 0 {
		h.bytes = append([]byte(nil), h.bytes[surplus:]...)
		h.discarded = true
	}
	h.discarded = h.discarded || keep < n
	return keep
}

// hold keeps what a segment has processed: it was written to the destination from
// offset on, behind carriedDestination bytes that had been processed before, and
// the last of it may be in rest.
func (m *move) hold(ctx context.Context, offset int64, fit fitting, carriedDestination int64, rest []byte) *segmentError {
	written := max(fit.write-carriedDestination, 0) // of what was processed
	unwritten := rest[fit.restDestination-(fit.processed-written) : fit.restDestination]
	keep := m.command.held.room(fit.processed)
	if n := min(keep-int64(len(unwritten)), written); n > 0 {
		p := make([]byte, n)
		if err := m.destination.unit.bytes().ReadAt(ctx, p, offset+fit.write-n); err != nil {
			return destinationFailed(err)
		}
		m.command.held.bytes = append(m.command.held.bytes, p...)
	}
	m.command.held.bytes = append(m.command.held.bytes, unwritten[max(int64(len(unwritten))-keep, 0):]...)
	return nil
}
