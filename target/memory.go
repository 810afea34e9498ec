package target

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"odx/admin"
	"odx/conf"
)

// looseGarbage bounds what garbage and everything without a bound of its own may
// take before the collector works harder.
const looseGarbage = 160 << 20

// memoryTick is how often the limit of the collector follows what is in use.
const memoryTick = time.Second

// LimitMemory has the collector keep the heap within what a service of cfg has for
// its start. GOMEMLIMIT, where it is set, has its way.
func LimitMemory(cfg *conf.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		m := admin.DivideMemory(cfg)
		debug.SetMemoryLimit(collectorLimit(&m, 0, 0))
	}
}

// GuardMemory has the collector keep the heap within the memory of the service
// until ctx ends: it works harder near what the cache, the tables of virtual disks and
// requests may take, what buffers and tokens take now, and the rest. GOMEMLIMIT, where it is set,
// has its way. One service of a process may do so.
func (s *Service) GuardMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	memory := s.admin.Memory()
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		buffers := s.server.BufferedBytes() + s.tokens.Engine().Buffered()
		debug.SetMemoryLimit(collectorLimit(&memory, buffers, s.tokens.Stats().MemoryBytes))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collectorLimit returns the size of the heap, in bytes, that the collector keeps
// to while buffers and tokens take so much.
func collectorLimit(m *conf.Memory, buffers, tokens int64) int64 {
	return min(m.Cache+m.Views+m.Tables+m.Requests+min(m.Rest, looseGarbage)+buffers+tokens, m.Total)
}
