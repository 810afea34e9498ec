package target

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	client "odx/initiator"
)

const twoTargets = `data_dir: %s
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:one
    luns: [{lun: 0, volume: src, size: 16MiB}]
  - name: iqn.2026-11.example.odx:two
    luns: [{lun: 7, volume: dst, size: 16MiB, block_size: 4096}]
`

// A token that one initiator made at one target is good for another initiator at
// another target, as long as none of them has gone, and afterwards.
func TestTokensCrossTargetsAndInitiators(t *testing.T) {
	dir := t.TempDir()
	s := start(t, parse(t, dir, fmt.Sprintf(twoTargets, dir)))
	at := func(target, who string, lun uint16) *client.Disk {
		t.Helper()
		d, err := client.Open(t.Context(), client.Options{InitiatorName: who,
			URL: client.URL{Address: s.Portals()[0], Target: "iqn.2026-11.example.odx:" + target, LUN: lun}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a, b := at("one", "iqn.2026-11.example:a", 0), at("two", "iqn.2026-11.example:b", 7)
	data := random(1, 1<<20)
	if err := a.WriteAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	token, n, err := a.PopulateToken(t.Context(), 0, 1<<20)
	if err != nil || n != 1<<20 {
		t.Fatal(n, err)
	}
	for _, gone := range []bool{false, true} {
		if gone {
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Zero(t.Context(), 0, 2<<20); err != nil {
			t.Fatal(err)
		}
		if n, err := b.WriteUsingToken(t.Context(), token, 0, 1<<20, 1<<20); err != nil || n != 1<<20 {
			t.Fatalf("maker gone %v: %d bytes, %v", gone, n, err)
		}
		got := make([]byte, 1<<20)
		if err := b.ReadAt(t.Context(), got, 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Errorf("maker gone %v: %v, equal %v", gone, err, bytes.Equal(got, data))
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// EXTENDED COPY copies between two targets, for who is logged in to both.
func TestExtendedCopyCrossesTargets(t *testing.T) {
	dir := t.TempDir()
	s := start(t, parse(t, dir, fmt.Sprintf(twoTargets, dir)))
	url := func(target string, lun uint16) client.URL {
		return client.URL{Address: s.Portals()[0], Target: "iqn.2026-11.example.odx:" + target, LUN: lun}
	}
	open := func(u client.URL) *client.Disk {
		t.Helper()
		d, err := client.Open(t.Context(), client.Options{URL: u})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	src, dst := open(url("one", 0)), open(url("two", 7))
	data := random(2, 1<<20)
	if err := src.WriteAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	// cscd names a disk by the first designator of its page 83h.
	cscd := func(d *client.Disk) []byte {
		page, err := d.VPD(t.Context(), 0x83)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 32)
		p[0] = 0xE4
		copy(p[4:], page[4:8+page[7]])
		p[30], p[31] = byte(d.BlockLength>>8), byte(d.BlockLength)
		return p
	}
	be := binary.BigEndian
	list := make([]byte, 16+2*32+28)
	list[1] = 3 << 3 // no list identifier
	list[3], list[11] = 2*32, 28
	copy(list[16:], cscd(src))
	copy(list[48:], cscd(dst))
	segment := list[80:]
	segment[0], segment[3], segment[7] = 0x02, 0x18, 1
	be.PutUint16(segment[10:], 1<<20/512)
	be.PutUint64(segment[20:], 256)
	send := func() error {
		session, err := client.Dial(t.Context(), client.Options{URL: url("one", 0)})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		cdb := make([]byte, 16)
		cdb[0] = 0x83
		be.PutUint32(cdb[10:], uint32(len(list)))
		for {
			err := session.Do(t.Context(), &client.Command{CDB: cdb, Out: list})
			if sense, ok := err.(*client.SenseError); !ok || sense.Key != client.KeyUnitAttention {
				return err
			}
		}
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<20)
	if err := dst.ReadAt(t.Context(), got, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, equal %v", err, bytes.Equal(got, data))
	}
	if err := dst.Close(); err != nil {
		t.Error(err)
	}
	const unreachable = "the logical unit answered COPY ABORTED, 08/04"
	if err := send(); fmt.Sprint(err) != unreachable {
		t.Errorf("logged out of the other target: %v", err)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
}
