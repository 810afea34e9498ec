package admin

import (
	"bytes"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"odx/conf"
)

// DivideMemory divides the memory available to this process, as a configuration says.
func DivideMemory(cfg *conf.Config) conf.Memory { return cfg.DivideMemory(availableMemory()) }

// The files with the memory limits of control groups (cgroup-v2, and cgroup-v1/memory
// in the kernel's documentation).
const (
	processGroups = "/proc/self/cgroup"
	groupRoot     = "/sys/fs/cgroup"
)

// availableMemory returns how much memory this process can have, in bytes: the
// machine's, or the smallest limit of its control groups; 0 if it is not known.
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

// groupMemory returns the smallest limit of the control groups in list, the text of
// /proc/self/cgroup, and of their parents.
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

// readBound reads a number of bytes; anything else, such as "max", is no limit.
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
