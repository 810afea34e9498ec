package peer

import (
	"sync"
	"time"
)

// Bounds of what one request reads, in bytes; what it may take; and how many run at once.
const (
	minPiece  = 64 << 10
	maxPiece  = maxReadBytes
	pieceTime = 400 * time.Millisecond
	readers   = 4
)

// rateMeter estimates how fast a peer sends, so that a request takes a time that a command
// has: on a slow link, fewer and shorter ones run at once. The zero value is ready for use.
type rateMeter struct {
	mu    sync.Mutex
	piece int64
	// slow: even the shortest request took too long.
	slow bool
}

// add counts a request for n bytes. One that was interrupted was too long.
func (m *rateMeter) add(n int, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.size()
	switch {
	case err != nil || took > pieceTime:
		m.slow = now == minPiece && int64(n) <= minPiece
		m.piece = max(now/2, minPiece)
	case took < pieceTime/2 && int64(n) >= now:
		m.slow, m.piece = false, min(now*2, maxPiece)
	}
}

// size is what next returns. mu is held.
func (m *rateMeter) size() int64 {
	if m.piece == 0 {
		return 4 * minPiece
	}
	return m.piece
}

// next returns how much the next request should read, and how many should run at once.
func (m *rateMeter) next() (piece int64, parallel int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slow {
		return m.size(), 1
	}
	return m.size(), readers
}
