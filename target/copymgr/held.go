package copymgr

import "context"

// keptData is the held data of an operation for RECEIVE COPY DATA (SPC-4 r37 5.17.4.5):
// the processed data of its segments of type 0Dh, or the last maxHeldData bytes of it.
type keptData struct {
	bytes     []byte
	discarded bool // earlier data was discarded
}

// reserve makes room for n more bytes and returns how many of them, the last ones, to
// keep.
func (h *keptData) reserve(n int64) int64 {
	keep := min(n, maxHeldData)
	if surplus := int64(len(h.bytes)) + keep - maxHeldData; surplus > 0 {
		h.bytes = append([]byte(nil), h.bytes[surplus:]...)
		h.discarded = true
	}
	h.discarded = h.discarded || keep < n
	return keep
}

// hold keeps the processed data of a segment: it was written to the destination at
// offset, after carriedDestination bytes that were processed before, and its end may be
// in rest.
func (m *move) hold(ctx context.Context, offset int64, fit fitting, carriedDestination int64, rest []byte) *segmentError {
	written := max(fit.write-carriedDestination, 0) // of the processed data
	unwritten := rest[fit.restDestination-(fit.processed-written) : fit.restDestination]
	keep := m.command.held.reserve(fit.processed)
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
