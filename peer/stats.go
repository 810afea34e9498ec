package peer

import "sync/atomic"

// counters count what a Keeper gives.
type counters struct {
	given, expired, readBytes atomic.Int64
}

// KeeperStats counts what was given since the start.
type KeeperStats struct {
	// Holds are those that peers have now.
	Holds int
	// Given counts holds, Expired those whose lease ended them.
	Given, Expired int64
	// ReadBytes counts bytes of data that were sent.
	ReadBytes int64
}

// Stats returns the counters.
func (k *Keeper) Stats() KeeperStats {
	k.mu.Lock()
	holds := len(k.holds)
	k.mu.Unlock()
	return KeeperStats{holds, k.numbers.given.Load(), k.numbers.expired.Load(), k.numbers.readBytes.Load()}
}
