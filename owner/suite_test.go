package owner_test

import (
	"testing"
	"time"

	"odx/owner"
	"odx/owner/ownertest"
)

func TestOwner_Suite(t *testing.T) {
	start := time.Now()
	clock := func() time.Duration { return time.Since(start) }
	for name, place := range map[string]func(t *testing.T) owner.Driver{
		"directory": func(t *testing.T) owner.Driver { return owner.Directory(t.TempDir()) },
		"memory":    func(*testing.T) owner.Driver { return owner.NewMemory(0, 0, 0, clock) },
		"leases":    func(*testing.T) owner.Driver { return owner.NewMemory(0, time.Hour, time.Minute, clock) },
	} {
		t.Run(name, func(t *testing.T) { ownertest.Run(t, place) })
	}
}
