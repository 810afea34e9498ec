//go:build e2e

package nbd

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"testing"

	"odx/internal/kit/harness"
)

// TestDisk lets qemu write to a disk and cuts its power: what was flushed is
// there, and of what was not some is and some is not.
func TestDisk(t *testing.T) {
	program := harness.Program(t, "qemu-io", "qemu-utils")
	d, err := New(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	// Its exit status says whether all of them succeeded.
	qemuIO := func(d *Disk, commands ...string) error {
		s, err := d.Serve(context.Background(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"--format=raw", "--cache=writeback"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.Command(program, append(args, s.File)...).CombinedOutput()
		t.Logf("%s", out)
		if cerr := s.Close(); cerr != nil {
			t.Error(cerr)
		}
		return err
	}
	// abort ends the program without the flush that its end would be.
	err = qemuIO(d, "write -P 1 0 1M", "write -P 2 48M 4k", "flush", "write -P 3 1M 1M", "abort")
	if err == nil {
		t.Fatal("abort did not end qemu-io")
	}
	lost := 0
	for seed := range uint64(10) {
		after, err := d.CutPower(rand.New(rand.NewPCG(seed, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := qemuIO(after, "read -P 1 0 1M", "read -P 2 48M 4k", "read -P 0 2M 1M"); err != nil {
			t.Errorf("after power cut %d: %v", seed, err)
		}
		if qemuIO(after, "read -P 3 1M 1M") != nil {
			lost++
		}
	}
	if lost == 0 {
		t.Error("ten power cuts lost nothing of what was not flushed")
	}
}
