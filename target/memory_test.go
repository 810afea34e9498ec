package target

import (
	"bytes"
	"fmt"
	"testing"

	"odx/conf"
	"odx/vhd"
)

// TestCollectorLimit: the collector has as much as is in use, and never more than
// the total.
func TestCollectorLimit(t *testing.T) {
	m := (&conf.Config{}).DivideMemory(0)
	idle := collectorLimit(&m, 0, 0)
	if want := m.Cache + m.Tables + m.Requests + looseGarbage; idle != want {
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
	m, err := s.admin.DiskManager(t.Context())
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
	if s.admin.Memory().Tables != 4<<20 {
		t.Errorf("the part is %d bytes", s.admin.Memory().Tables)
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
		if held := m.TableBytes(); held > s.admin.Memory().Tables || held < s.admin.Memory().Tables/2 {
			t.Errorf("tables take %d bytes of %d", held, s.admin.Memory().Tables)
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
