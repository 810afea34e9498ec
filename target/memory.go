package target

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"odx/admin"
	"odx/conf"
)

// looseGarbage is how much memory garbage and everything without a bound of its own may
// take before the collector runs more often.
const looseGarbage = 160 << 20

// memoryTick is how often the collector's limit is adapted to the use.
const memoryTick = time.Second

// LimitMemory limits the heap to the memory that the start of a service of cfg may use,
// unless GOMEMLIMIT is set.
func LimitMemory(cfg *conf.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		m := admin.DivideMemory(cfg)
		debug.SetMemoryLimit(collectorLimit(&m, 0, 0))
	}
}

// GuardMemory limits the heap to the memory of the service until ctx ends, unless
// GOMEMLIMIT is set. The limit follows what buffers and tokens take now, see
// collectorLimit. Only one service of a process may call it.
func (s *Service) GuardMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		memory := s.admin.Memory()
		buffers := s.server.BufferedBytes() + s.tokens.Engine().Buffered()
		debug.SetMemoryLimit(collectorLimit(&memory, buffers, s.tokens.Stats().MemoryBytes))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collectorLimit returns the limit of the heap, in bytes, while buffers and tokens take
// so much: that, what the caches, the tables of virtual disks and requests may take, and
// at most looseGarbage of the rest.
func collectorLimit(m *conf.Memory, buffers, tokens int64) int64 {
	return min(m.Cache+m.Views+m.Tables+m.Requests+min(m.Rest, looseGarbage)+buffers+tokens, m.Total)
}
