package target

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"odx/conf"
	"odx/vhd"
)

// TestGroupMemory: the smallest bound counts, of the group or of one that it is
// in, in either version of the kernel's interface.
func TestGroupMemory(t *testing.T) {
	const none = math.MaxInt64
	root := t.TempDir()
	for name, text := range map[string]string{
		"memory/memory.limit_in_bytes":           "9223372036854771712",
		"memory/box/memory.limit_in_bytes":       "1048576000",
		"memory/box/inner/memory.limit_in_bytes": "2097152000",
		"a.slice/memory.max":                     "max",
		"a.slice/odx.service/memory.max":         "268435456",
		"broken/memory.max":                      "x",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for list, want := range map[string]int64{
		"":                                     none,
		"0::/\n":                               none,
		"0::/a.slice/odx.service\n":            256 << 20,
		"0::/a.slice\n":                        none,
		"0::/gone\n":                           none,
		"0::/broken\n":                         none,
		"4:memory:/box/inner\n1:cpu:/\n0::/\n": 1048576000,
		"4:memory:/\n":                         9223372036854771712,
		"nonsense":                             none,
	} {
		if got := groupMemory(root, []byte(list)); got != want {
			t.Errorf("%q: %d bytes, want %d", list, got, want)
		}
	}
	if n := availableMemory(); n <= 0 {
		t.Errorf("this machine has %d bytes", n)
	}
}

// TestCollectorLimit: the collector has as much as is in use, and never more than
// the total.
func TestCollectorLimit(t *testing.T) {
	m := (&conf.Config{}).DivideMemory(0)
	idle := collectorLimit(&m, 0, 0)
	if want := m.Cache + m.Tables + looseGarbage; idle != want {
		t.Errorf("idle: %d bytes, want %d", idle, want)
	}
	if busy := collectorLimit(&m, 64<<20, 1<<20); busy != idle+65<<20 {
		t.Errorf("busy: %d bytes, want %d", busy, idle+65<<20)
	}
	if all := collectorLimit(&m, m.Buffers, m.Tokens); all > m.Total {
		t.Errorf("%d bytes of %d", all, m.Total)
	}
}

// TestService_tableMemory: the tables of all disks that are served take their part of the
// memory of the server, and what is read through them is right.
func TestService_tableMemory(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), "memory: 128MiB\n"+fmt.Sprintf(disks, `"127.0.0.1:0"`)))
	defer stop(t, s)
	m, err := s.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const size, step = 4 << 40, 32 << 30 // a step is four pages of a table
	var served []*vhd.Served
	for n := range 3 {
		name := fmt.Sprintf("%d.vhdx", n)
		if _, err := m.Do(t.Context(), vhd.Request{Operation: vhd.Create, Destination: name, Size: size, BlockLength: 1 << 20}, nil); err != nil {
			t.Fatal(err)
		}
		d, err := m.Serve(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, d)
	}
	if s.memory.Tables != 4<<20 {
		t.Errorf("the part is %d bytes", s.memory.Tables)
	}
	for n, d := range served {
		for off := int64(0); off < size; off += step {
			if err := d.WriteAt(t.Context(), random(uint64(n)<<40|uint64(off), 4096), off); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := make([]byte, 4096)
	for n, d := range served {
		for off := int64(0); off < size; off += step {
			if err := d.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, random(uint64(n)<<40|uint64(off), 4096)) {
				t.Fatalf("disk %d at %d is wrong: %v", n, off, err)
			}
		}
		if held := m.TableBytes(); held > s.memory.Tables || held < s.memory.Tables/2 {
			t.Errorf("tables take %d bytes of %d", held, s.memory.Tables)
		}
	}
	for _, d := range served {
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if held := m.TableBytes(); held != 0 {
		t.Errorf("tables of disks that were closed take %d bytes", held)
	}
}
