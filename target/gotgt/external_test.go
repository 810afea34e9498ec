package gotgt

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	uuid "github.com/satori/go.uuid"
)

// A backing store of gotgt is a logical unit like any other, without what it cannot
// do.
func TestOpen_logicalUnit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	external, err := Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer external.Close()
	dev, nexus := newLU(t, external), uuid.NewV4()
	dev.PerformCommand(1, gotgtCommand(dev, nexus, testUnitReady, nil, 0)) // power on
	run := func(cdb, out []byte, in int) *api.SCSICommand {
		t.Helper()
		cmd := gotgtCommand(dev, nexus, cdb, out, in)
		if stat := dev.PerformCommand(1, cmd); stat != api.SAMStatGood {
			t.Fatalf("% x: %v, sense %v", cdb, stat, cmd.SenseBuffer)
		}
		return cmd
	}
	block := pattern(512)
	run(cdb10(0x2A, 0x08, 3, 1), block, 0) // WRITE(10), FUA
	run(cdb10(0x41, 0, 4, 3), block, 0)    // WRITE SAME(10)
	if got := run(cdb10(0x28, 0, 3, 4), nil, 2048).InSDBBuffer.Buffer; !bytes.Equal(got, bytes.Repeat(block, 4)) {
		t.Error("read something else")
	}
	compareAndWrite := make([]byte, 16)
	compareAndWrite[0], compareAndWrite[13] = 0x89, 1
	cmd := gotgtCommand(dev, nexus, compareAndWrite, make([]byte, 1024), 0)
	if dev.PerformCommand(1, cmd) != api.SAMStatCheckCondition || cmd.SenseBuffer.Buffer[12] != 0x20 {
		t.Errorf("COMPARE AND WRITE: sense %v, want INVALID COMMAND OPERATION CODE", cmd.SenseBuffer)
	}
}
