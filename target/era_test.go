package target

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	client "odx/initiator"
	"odx/internal/kit/must"
)

const (
	nexusLoss = 0x2907
	eraConfig = `
data_dir: data
portals: ["127.0.0.1:0,1", "127.0.0.1:0,2"]
targets:
  - name: iqn.2026-11.example.odx:paths
    initiators_set_paths: true
    paths:
      - {portal_group: 2, state: nonoptimized}
    luns:
      - {lun: 0, volume: a, size: 1MiB}
      - {lun: 1, view: ahead}
views:
  - {name: ahead, cache: {of: c0, memory: 1MiB, mode: write-back}, size: 1MiB}
`
)

// host is an initiator with one ISID, of LUN 0 or 1.
func host(t *testing.T, s *Service, portal int, name string, lun uint16) *client.Session {
	t.Helper()
	url, err := client.ParseURL(s.LUNs()[0].URLs[portal])
	must.Succeed(t, err)
	url.LUN = lun
	c, err := client.Dial(t.Context(), client.Options{InitiatorName: name, ISID: [6]byte{0, 2, 3, 0, 0, byte(lun)}, URL: url})
	must.Succeed(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// modeSelect sets D_SENSE, without SP.
func modeSelect(t *testing.T, c *client.Session) {
	t.Helper()
	list := append(make([]byte, 4), 0x0A, 0x0A, 0x06, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0)
	must.Succeed(t, run(t, c, []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list))
}

// describe returns what a takeover must not forget, as an initiator sees it.
func describe(t *testing.T, c *client.Session) string {
	t.Helper()
	in := func(cdb ...byte) []byte {
		cmd := &client.Command{CDB: cdb, In: make([]byte, 256)}
		must.Succeed(t, c.Do(t.Context(), cmd))
		return cmd.In[:cmd.Received]
	}
	keys := in(0x5E, 0, 0, 0, 0, 0, 0, 1, 0, 0)
	ports := in(0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
	control := in(0x1A, 0x08, 0x0A, 0, 0xFF, 0)
	return fmt.Sprintf("generation %d, %d keys, D_SENSE %t, ports %x and %x", binary.BigEndian.Uint32(keys),
		binary.BigEndian.Uint32(keys[4:])/8, control[6]&0x04 != 0, ports[4]&0xF, ports[16]&0xF)
}

// TestEra: the end of a process is no loss of power. Its successor has every persistent
// reservation, current mode page and path state, and a nexus that was there begins with the
// loss of the nexus. A clean stop, and a start of the machine, are losses of power.
func TestEra(t *testing.T) {
	const owner, other = "iqn.2026-11.example:owner", "iqn.2026-11.example:other"
	const set = "generation 2, 2 keys, D_SENSE true, ports 1 and 0"
	const restored = "generation 2, 2 keys, D_SENSE true, ports 0 and 1"
	const afresh = "generation 0, 0 keys, D_SENSE false, ports 0 and 1"
	dir := t.TempDir()
	s := start(t, parse(t, dir, eraConfig))
	c := host(t, s, 0, owner, 0)
	attentions(t, c)
	d := host(t, s, 1, other, 0)
	attentions(t, d)
	attentions(t, host(t, s, 0, owner, 1))
	persistentReserveOut(t, c, 0, 0, 0xAA, 0)
	persistentReserveOut(t, d, 6, 0, 0xBB, 0)
	persistentReserveOut(t, c, 1, 0xAA, 0, 0)
	modeSelect(t, c)
	list := []byte{7: 2} // port 2 optimized; port 1 gets its state
	must.Succeed(t, run(t, c, []byte{0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, list))
	must.Succeed(t, s.sightings.save())

	left := killed(t, s, eraConfig)
	for _, back := range []struct {
		who    string
		portal int
		lun    uint16
		want   []uint16
	}{
		{"iqn.2026-11.example:new", 1, 0, []uint16{powerOn}},
		{other, 1, 0, []uint16{nexusLoss}},
		{owner, 0, 1, []uint16{powerOn}}, // its cache is lost
		{owner, 0, 0, []uint16{nexusLoss}},
	} {
		c = host(t, left, back.portal, back.who, back.lun)
		if got := attentions(t, c); !slices.Equal(got, back.want) {
			t.Errorf("LUN %d of %s: unit attentions %04x, want %04x", back.lun, back.who, got, back.want)
		}
	}
	if got := describe(t, c); got != set {
		t.Errorf("after the end of the process: %s, want %s", got, set)
	}
	must.Succeed(t, left.sightings.save())
	again := killed(t, left, eraConfig)
	c = host(t, again, 0, owner, 0)
	attentions(t, c)
	if got := describe(t, c); got != set {
		t.Errorf("after its end once more: %s, want %s", got, set)
	}
	c.Close()
	c = host(t, again, 0, owner, 0)
	attentions(t, c)
	if got := describe(t, c); got != restored {
		t.Errorf("after the return of the path: %s, want %s", got, restored)
	}
	c = host(t, killed(t, again, eraConfig), 0, owner, 0)
	attentions(t, c)
	if got := describe(t, c); got != restored {
		t.Errorf("after another end: %s, want %s", got, restored)
	}

	left.era.boot = "another"
	must.Succeed(t, left.era.save(t.Context(), false), left.store.WriteOut(t.Context()))
	for name, next := range map[string]*Service{
		"a start of the machine": killed(t, left, eraConfig),
		"a clean stop":           func() *Service { stop(t, s); return start(t, parse(t, dir, eraConfig)) }(),
	} {
		c := host(t, next, 0, owner, 0)
		if got := attentions(t, c); !slices.Equal(got, []uint16{powerOn}) {
			t.Errorf("after %s: unit attentions %04x", name, got)
		}
		if got := describe(t, c); got != afresh {
			t.Errorf("after %s: %s, want %s", name, got, afresh)
		}
	}
}
