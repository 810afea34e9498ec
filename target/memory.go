package target

import (
	"bytes"
	"context"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"odx/conf"
)

// Where the kernel says how much memory control groups have (cgroup-v2, and
// cgroup-v1/memory in its documentation).
const (
	processGroups = "/proc/self/cgroup"
	groupRoot     = "/sys/fs/cgroup"
)

// availableMemory returns how much memory this process can have, in bytes: what
// the machine has, or the smallest bound of the control groups that it is in. 0:
// not known.
func availableMemory() int64 {
	available := int64(math.MaxInt64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		available = int64(uint64(info.Totalram) * uint64(info.Unit))
	}
	if list, err := os.ReadFile(processGroups); err == nil {
		available = min(available, groupMemory(groupRoot, list))
	}
	if available == math.MaxInt64 {
		return 0
	}
	return available
}

// groupMemory returns the smallest bound of the control groups in list, the text
// of /proc/self/cgroup, and of those that they are in.
func groupMemory(root string, list []byte) int64 {
	least := int64(math.MaxInt64)
	for line := range bytes.Lines(list) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(fields) < 3 {
			continue
		}
		base, file := root, "memory.max"
		switch {
		case fields[1] == "memory":
			base, file = path.Join(root, "memory"), "memory.limit_in_bytes"
		case fields[1] != "":
			continue
		}
		for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
			least = min(least, readBound(path.Join(base, dir, file)))
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// readBound reads a number of bytes; what is none, such as "max", is no bound.
func readBound(name string) int64 {
	text, err := os.ReadFile(name)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}

// looseGarbage bounds what garbage and everything without a bound of its own may
// take before the collector works harder.
const looseGarbage = 160 << 20

// memoryTick is how often the limit of the collector follows what is in use.
const memoryTick = time.Second

// LimitMemory has the collector keep the heap within what a service of cfg has for
// its start. GOMEMLIMIT, where it is set, has its way.
func LimitMemory(cfg *conf.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		m := cfg.DivideMemory(availableMemory())
		debug.SetMemoryLimit(collectorLimit(&m, 0, 0))
	}
}

// GuardMemory has the collector keep the heap within the memory of the service
// until ctx ends: it works harder near what the cache and the tables of virtual disks
// may take, what buffers and tokens take now, and the rest. GOMEMLIMIT, where it is set,
// has its way. One service of a process may do so.
func (s *Service) GuardMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		debug.SetMemoryLimit(collectorLimit(&s.memory, s.server.BufferedBytes(), s.tokens.Stats().MemoryBytes))
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
	return min(m.Cache+m.Views+m.Tables+min(m.Rest, looseGarbage)+buffers+tokens, m.Total)
}

// Memory returns how the memory of the service is divided.
func (s *Service) Memory() conf.Memory { return s.memory }
