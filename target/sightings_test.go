package target

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/target/scsi"
)

// TestLUNs_replacedWhileAway: a host that comes back after several starts is notified if its
// LUN is another volume than the one that it found last, once; also where the change is
// that another entry of the access list is for it.
func TestLUNs_replacedWhileAway(t *testing.T) {
	const name = "iqn.2026-11.example:host"
	dir := t.TempDir()
	config := func(first, second, access string) string {
		return fmt.Sprintf(`
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: %s, size: 1MiB}
      - {lun: 1, volume: %s, size: 1MiB}
    access:%s
      - {initiators: ["*"]}
`, first, second, access)
	}
	const mapped = `
      - {initiators: ["` + name + `"], luns: [{lun: 1, as: 0}]}`
	const (
		away   = iota
		silent // logs in and sends nothing
		active
	)
	for i, run := range []struct {
		config string
		host   int
		want   []uint16
	}{
		{config("a", "b", ""), active, []uint16{powerOn}},
		{config("b", "a", ""), away, nil},
		{config("b", "a", ""), silent, nil},
		{config("b", "a", ""), active, []uint16{powerOn, replaced, luns}},
		{config("b", "a", ""), active, []uint16{powerOn}},
		{config("a", "b", ""), away, nil},
		{config("b", "a", ""), active, []uint16{powerOn}}, // it has missed nothing
		{config("b", "a", mapped), active, []uint16{powerOn, replaced, luns}},
		{config("b", "a", mapped), active, []uint16{powerOn}},
		{config("b", "a", ""), active, []uint16{powerOn, replaced, luns}},
	} {
		s := start(t, parse(t, dir, run.config))
		if run.host != away {
			c := dial(t, s.LUNs()[0].URLs[0], name)
			if run.host == active {
				if got := attentions(t, c); !slices.Equal(got, run.want) {
					t.Errorf("run %d: unit attentions %04x, want %04x", i+1, got, run.want)
				}
			}
			c.Close()
		}
		stop(t, s)
	}
}

// TestSightings: what a port found is known after a restart, of each port for itself;
// sessions with random ISIDs are one port. The ports that were there last are remembered.
func TestSightings(t *testing.T) {
	store, err := backstore.Open(t.Context(), backstore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := logrus.NewEntry(logrus.New())
	era := admin.EraID{1}
	load := func() *sightings {
		s, err := loadSightings(store, era, log)
		if err != nil {
			t.Fatal(err)
		}
		s.limit = 4
		return s
	}
	port := func(format, n byte) scsi.NexusID {
		return scsi.NexusID{InitiatorName: "iqn.2026-11.example:host", ISID: [6]byte{format, 2, 3, 0, 0, n}, TargetName: "iqn.2026-11.example.odx:a", TargetPortalGroupTag: 1}
	}
	const oui, random = 0x00, 0x80
	restart := func(s *sightings) *sightings {
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
		return load()
	}
	wantKnown := func(s *sightings, id scsi.NexusID, lun uint16, want byte) {
		t.Helper()
		if unit, ok := s.Last(id, lun); ok != (want != 0) || unit[0] != want {
			t.Errorf("port %x, LUN %d: %x, %v, want %d", id.ISID, lun, unit, ok, want)
		}
	}
	s := load()
	s.Saw(port(oui, 1), 0, [16]byte{1})
	s.Saw(port(oui, 1), 7, [16]byte{2})
	s.Saw(port(random, 1), 0, [16]byte{3})
	wantKnown(s, port(oui, 1), 0, 0) // that was not before this start
	s = restart(s)
	wantKnown(s, port(oui, 1), 0, 1)
	wantKnown(s, port(oui, 1), 7, 2)
	wantKnown(s, port(oui, 2), 0, 0)
	wantKnown(s, port(random, 9), 0, 3)

	for n := byte(10); n < 14; n++ {
		s.Saw(port(oui, n), 0, [16]byte{n})
		s.Saw(port(random, n), 0, [16]byte{3}) // comes again and again
	}
	s = restart(s)
	wantKnown(s, port(oui, 1), 0, 0)
	wantKnown(s, port(oui, 10), 0, 0)
	wantKnown(s, port(oui, 13), 0, 13)
	wantKnown(s, port(random, 0), 0, 3)
	for era, want := range map[admin.EraID]bool{era: true, {2}: false} {
		again, err := loadSightings(store, era, log)
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range map[scsi.NexusID]bool{
			port(oui, 13): want, port(random, 13): want,
			port(oui, 1): false, port(random, 99): false, // another session, for initiators
		} {
			if got := again.Interrupted(id); got != want {
				t.Errorf("era %x: port %x interrupted %v, want %v", era[0], id.ISID, got, want)
			}
		}
	}
	if len(s.now) != 4 {
		t.Errorf("%d ports are remembered, want 4", len(s.now))
	}
}
