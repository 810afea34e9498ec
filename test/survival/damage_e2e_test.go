//go:build e2e

package survival

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	damagedSize = 1 << 20
	// block is what a checksum of the store covers.
	block   = 4096
	damaged = 37 * block // where the damaged one begins, in bytes
)

// damagedTarget is a target with a damaged block in each of its LUNs.
type damagedTarget struct {
	*kit.Target
	sessions []*tokenclient.Session
	data     [][]byte // what was written to each LUN
}

func newDamagedTarget(t *testing.T, client *tokenclient.Client, luns ...kit.LUN) *damagedTarget {
	t.Helper()
	d := &damagedTarget{Target: harness.Serve(t, luns...)}
	rng := rand.NewChaCha8([32]byte{'d'})
	for i := range luns {
		data := make([]byte, damagedSize)
		rng.Read(data)
		s := harness.Open(t, client, d.URL(i))
		good(t)(s.Write(bytes.NewReader(data), 0, s.Blocks, tokenclient.WriteOptions{}))
		s.Close()
		d.data = append(d.data, data)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, data := range d.data {
		if err := FlipBit(filepath.Join(d.Dir, "data"), data[damaged:damaged+block]); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range luns {
		d.sessions = append(d.sessions, harness.Open(t, client, d.URL(i)))
	}
	return d
}

func good(t *testing.T) func(tokenclient.Answer, error) {
	return func(a tokenclient.Answer, err error) {
		t.Helper()
		if err != nil || !a.Good() {
			t.Fatalf("%v, %v", a, err)
		}
	}
}

func read16(lba uint64, blocks uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0] = 0x88
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], blocks)
	return cdb
}

func read10(lba uint64, blocks uint32) []byte {
	cdb := make([]byte, 10)
	cdb[0] = 0x28
	binary.BigEndian.PutUint32(cdb[2:], uint32(lba))
	binary.BigEndian.PutUint16(cdb[7:], uint16(blocks))
	return cdb
}

// senseFormat chooses descriptor sense data, or not, in the control mode page
// (SPC-4 7.5.8).
func senseFormat(t *testing.T, s *tokenclient.Session, descriptor bool) {
	t.Helper()
	const header, dSense = 8, 0x04
	a, err := s.Command([]byte{0x5a, 0x08, 0x0a, 0, 0, 0, 0, 0, header + 12, 0}, nil, header+12)
	good(t)(a, err)
	list := a.Data
	clear(list[:header])
	list[header] &= 0x3f // PS
	list[header+2] &^= dSense
	if descriptor {
		list[header+2] |= dSense
	}
	good(t)(s.Command([]byte{0x55, 0x10, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}, list, 0))
}

// TestDamagedBlocksOverSCSI reads around damage with each length of logical
// blocks.
func TestDamagedBlocksOverSCSI(t *testing.T) {
	harness.RequireODX(t)
	client := harness.Client(t)
	lengths := []int{512, 4096}
	d := newDamagedTarget(t, client, kit.LUN{Size: damagedSize}, kit.LUN{Size: damagedSize, BlockSize: 4096})
	for i, length := range lengths {
		s, data := d.sessions[i], d.data[i]
		first, last := uint64(damaged/length), uint64((damaged+block)/length-1)
		t.Run(fmt.Sprintf("%d byte blocks", length), func(t *testing.T) {
			for _, descriptor := range []bool{false, true} {
				senseFormat(t, s, descriptor)
				badReads(t, s, data, first, last)
			}
			goodReads(t, s, data, first, last)
			damagedCopy(t, s, first, last)
		})
	}
	scrubNames(t, d.ConfigFile(), 2)
	for i, length := range lengths {
		writeAgain(t, d.sessions[i], d.data[i], uint64(damaged/length), uint64((damaged+block)/length-1))
	}
}

// badReads reads ranges with damage: each reports the first block of it that cannot be
// read.
func badReads(t *testing.T, s *tokenclient.Session, data []byte, first, last uint64) {
	t.Helper()
	type span struct{ lba, blocks, want uint64 }
	spans := []span{
		{0, s.Blocks, first}, {first - 5, 6, first}, {first - 1, last - first + 3, first},
		{last, 1, last}, {last, 9, last}, {first, last - first + 1, first},
	}
	for _, r := range spans {
		for _, cdb := range [][]byte{read16(r.lba, uint32(r.blocks)), read10(r.lba, uint32(r.blocks))} {
			a, err := s.Command(cdb, nil, int(r.blocks)*s.BlockLength)
			if err != nil {
				t.Fatal(err)
			}
			if !a.Sense.Is(0x3, 0x11, 0x00) || !a.Sense.HasInformation || a.Sense.Information != r.want {
				t.Errorf("read of %d blocks at %d: %v, want 3/11/00 information %d", r.blocks, r.lba, a, r.want)
			}
			if at := int(r.lba) * s.BlockLength; !bytes.HasPrefix(data[at:min(at+len(a.Data), max(at, damaged))], a.Data) {
				t.Errorf("read of %d blocks at %d: %d bytes of data came along", r.blocks, r.lba, len(a.Data))
			}
		}
	}
}

// goodReads reads all that is not damaged, up to its very edge.
func goodReads(t *testing.T, s *tokenclient.Session, data []byte, first, last uint64) {
	t.Helper()
	for _, r := range [][2]uint64{{0, first}, {first - 1, 1}, {last + 1, 1}, {last + 1, s.Blocks - last - 1}} {
		var got bytes.Buffer
		good(t)(s.Read(&got, r[0], r[1]))
		want := data[int(r[0])*s.BlockLength:][:int(r[1])*s.BlockLength]
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("read of %d blocks at %d: other data than was written", r[1], r[0])
		}
	}
}

// damagedCopy copies the damage by token: the error has the copy's own address.
func damagedCopy(t *testing.T, s *tokenclient.Session, first, last uint64) {
	t.Helper()
	n := uint32(last - first + 1)
	to := s.Blocks - uint64(n)
	good(t)(s.PopulateToken(tokenclient.PopulateOptions{}, tokenclient.Range{LBA: first, Blocks: n}))
	info, a, err := s.TokenInformation()
	good(t)(a, err)
	good(t)(s.WriteUsingToken(info.Token, tokenclient.WriteTokenOptions{}, tokenclient.Range{LBA: to, Blocks: n}))
	good(t)(s.WriteUsingToken(info.Token, tokenclient.WriteTokenOptions{Delete: true}, tokenclient.Range{}))
	a, err = s.Command(read16(to, n), nil, int(n)*s.BlockLength)
	if err != nil || !a.Sense.Is(0x3, 0x11, 0x00) || a.Sense.Information != to {
		t.Errorf("read of the copy: %v, %v, want 3/11/00 information %d", a, err, to)
	}
}

// scrubNames runs odx store scrub next to the server: it names every range that shows
// damage, here the damaged block and its copy at the end of each volume.
func scrubNames(t *testing.T, config string, volumes int) {
	t.Helper()
	binary, err := kit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "store", "scrub", "--json", "--config", config).Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("odx store scrub ended with %v, want status 3; it said:\n%s", err, out)
	}
	var result struct {
		Damages []struct {
			Uses []struct {
				Volume         string
				Offset, Length int64
			}
		}
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, d := range result.Damages {
		for _, u := range d.Uses {
			found[fmt.Sprint(u)] = true
		}
	}
	for i := range volumes {
		for _, offset := range []int64{damaged, damagedSize - block} {
			if use := fmt.Sprintf("{vol%d %d %d}", i, offset, block); !found[use] {
				t.Errorf("odx store scrub does not name %s:\n%s", use, out)
			}
		}
	}
	if len(found) != 2*volumes {
		t.Errorf("odx store scrub names %d ranges, want %d:\n%s", len(found), 2*volumes, out)
	}
}

// writeAgain writes the damaged blocks once more, with the data that they had:
// it must not be taken for a duplicate of what is damaged.
func writeAgain(t *testing.T, s *tokenclient.Session, data []byte, first, last uint64) {
	t.Helper()
	good(t)(s.Write(bytes.NewReader(data[damaged:damaged+block]), first, last-first+1, tokenclient.WriteOptions{}))
	var got bytes.Buffer
	good(t)(s.Read(&got, 0, s.Blocks/2))
	if !bytes.Equal(got.Bytes(), data[:damagedSize/2]) {
		t.Error("after the damaged block was written again: other data than was written")
	}
}
