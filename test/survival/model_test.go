package survival

import (
	"strings"
	"testing"
)

// TestModel makes sure that the judge condemns what it must.
func TestModel(t *testing.T) {
	m := newModel(4)
	disk := make([]byte, 4*blockLength)
	check := func(what string, want string) {
		t.Helper()
		// A copy, since a check that passes decides what is durable.
		c := &model{last: m.last}
		for _, v := range m.blocks {
			c.blocks = append(c.blocks, append([]version(nil), v...))
		}
		err := c.check(disk)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("a new disk", "")

	first := m.write(1, 2)
	check("not flushed, nothing there", "")
	copy(disk[blockLength:], first[:blockLength])
	check("not flushed, half there", "")
	disk[blockLength+100] ^= 1
	check("a torn block", "block 1 ")
	copy(disk[blockLength:], first)
	m.flushed()
	check("flushed and there", "")

	second := m.write(2, 1)
	check("a later write is not there", "")
	m.durable(2, 1)
	check("a FUA write is not there", "block 2 ")
	copy(disk[2*blockLength:], second)
	check("a FUA write is there", "")
	copy(disk[2*blockLength:], first[blockLength:])
	check("an older version came back", "block 2 ")
	clear(disk[2*blockLength:])
	check("zeros came back", "block 2 ")

	copy(disk[2*blockLength:], second)
	m.copied(0, m.snapshot(1, 2))
	check("a copy is not there", "")
	copy(disk, first[:blockLength])
	check("a half of the copy is there", "")
	m.flushed()
	check("a half of the flushed copy is there", "block 1 ")
	copy(disk[blockLength:], second)
	check("the copy is there", "")
	m.unmapped(0, 1)
	check("an unmap has not happened", "")
	clear(disk[:blockLength])
	check("an unmap has happened", "")

	m.write(3, 1)
	m.answered()
	check("answered with a write cache, and not there", "")
	m.writeThrough = true
	m.answered()
	check("answered without a write cache, and not there", "block 3 ")
}
