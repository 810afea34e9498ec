package scsi

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"odx/backstore/gotgtbs"
)

// A backing store of gotgt is a logical unit like any other, without what it
// cannot do.
func TestLogicalUnitOverGotgtsFileStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	external, err := gotgtbs.Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer external.Close()
	f := newFixture(t, func(c *LUConfig) { c.Volume, c.Thin = external, false })
	block := pattern(512, 1)
	f.good(cdb10(0x2A, 0x08, 3, 1), block)
	f.good(cdb10(0x41, 0, 4, 3), block)
	if got := f.good(cdb10(0x28, 0, 3, 4), nil); !bytes.Equal(got, bytes.Repeat(block, 4)) {
		t.Error("read something else")
	}
	f.do(compareAndWriteCDB(0, 0, 1), make([]byte, 1024)).wantSense(t, KeyIllegalRequest, ASCInvalidCommandOperationCode)
}
