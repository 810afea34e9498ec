package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	client "odx/initiator"
	"odx/target/scsi"
)

// persistentReserveOut sends one of type exclusive access.
func persistentReserveOut(t *testing.T, c *client.Session, action byte, key, actionKey uint64, aptpl byte) {
	t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], actionKey)
	list[20] = aptpl
	if err := run(t, c, []byte{0x5F, action, 3, 0, 0, 0, 0, 0, 24, 0}, list); err != nil {
		t.Fatalf("PERSISTENT RESERVE OUT, action %d: %v", action, err)
	}
}

// TestReservationsSurviveRestart: what an initiator reserved with APTPL keeps
// others out after a restart too, whether it comes back or not; until another one
// registers and takes its place, as the nodes of a cluster do.
func TestReservationsSurviveRestart(t *testing.T) {
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`))
	const register, reserve, preempt = 0, 1, 4
	read := []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	s := start(t, cfg)
	owner := session(t, s, "iqn.2026-11.example:owner")
	persistentReserveOut(t, owner, register, 0, 0xAA, 1)
	persistentReserveOut(t, owner, reserve, 0xAA, 0, 0)
	if err := run(t, owner, read, nil); err != nil {
		t.Errorf("the owner reads: %v", err)
	}
	stop(t, s)
	owner.Close() // it has lost its connection

	s = start(t, cfg)
	other := session(t, s, "iqn.2026-11.example:other")
	defer other.Close()
	var status *client.StatusError
	if err := run(t, other, read, nil); !errors.As(err, &status) || status.Status != 0x18 {
		t.Errorf("another initiator reads: %v, want RESERVATION CONFLICT", err)
	}
	persistentReserveOut(t, other, register, 0, 0xBB, 1)
	persistentReserveOut(t, other, preempt, 0xBB, 0xAA, 0)
	if err := run(t, other, read, nil); err != nil {
		t.Errorf("another initiator reads after PREEMPT: %v", err)
	}
}

// TestPathsOfTheConfiguration: REPORT TARGET PORT GROUPS says what the
// configuration does, and a standby path does not read.
func TestPathsOfTheConfiguration(t *testing.T) {
	cfg := parse(t, t.TempDir(), `
data_dir: data
portals: ["127.0.0.1:0,1", "127.0.0.1:0,2", "127.0.0.1:0,3"]
targets:
  - name: iqn.2026-11.example.odx:paths
    portal_groups: [1, 2]
    paths:
      - {portal_group: 1, preferred: true}
      - {portal_group: 2, state: standby}
    luns:
      - {lun: 0, volume: a, size: 1MiB}
`)
	s := start(t, cfg)
	numbers, err := loadPortNumbers(s.store, s.log)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := portGroupsOf(cfg, &cfg.Targets[0], numbers)
	want := []scsi.PortGroup{{Tag: 1, ID: 1, Preferred: true}, {Tag: 2, ID: 2, State: scsi.Standby}}
	if err != nil || !slices.Equal(groups, want) {
		t.Errorf("port groups %+v, want %+v", groups, want)
	}
	for i, want := range []error{nil, &client.SenseError{Key: 2, ASC: 0x040B}} {
		url := s.LUNs()[0].URLs[i]
		c := dial(t, url, "")
		defer c.Close()
		run(t, c, make([]byte, 6), nil) // takes POWER ON
		if err := run(t, c, make([]byte, 6), nil); fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("TEST UNIT READY by %v: %v, want %v", url, err, want)
		}
		const golden = "00000018 800f000100000001 00000001 020f000200000001 00000002"
		if got := fmt.Sprintf("%x", portGroups(t, c)); got != strings.ReplaceAll(golden, " ", "") {
			t.Errorf("target port groups by %v: %s, want %s", url, got, golden)
		}
	}
}
