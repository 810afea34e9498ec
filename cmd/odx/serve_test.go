package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStopIsBounded: a store whose disk does not answer keeps no process.
func TestStopIsBounded(t *testing.T) {
	stalled := make(chan struct{})
	defer close(stalled)
	if err := within(time.Millisecond, func() error { <-stalled; return nil }); !errors.Is(err, errStopLimit) {
		t.Errorf("stalled: %v", err)
	}
	broken := errors.New("broken")
	if err := within(time.Hour, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a stop that ends: %v", err)
	}
}

// TestServe_NoSocket: LUNs are served where the socket cannot be made, as on a full
// disk that has no inode left, and the log says so.
func TestServe_NoSocket(t *testing.T) {
	path := writeConfig(t, config)
	if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "data", "odx.sock", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, odx("serve", "--config", path))
	s.stop(t)
	if log := s.stderr.String(); !strings.Contains(log, "API socket not created") {
		t.Errorf("nothing about the socket in the log:\n%s", log)
	}
}
