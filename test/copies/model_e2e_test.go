//go:build e2e

package copies

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

// disk is a LUN and what must be on it.
type disk struct {
	*tokenclient.Session
	t     *testing.T
	model []byte
}

// bench is a target with its disks, and a source of random data.
type bench struct {
	t      *testing.T
	target *kit.Target
	client *tokenclient.Client
	disks  []*disk
	rand   *rand.Rand
	data   *rand.ChaCha8
}

func newBench(t *testing.T, luns ...kit.LUN) *bench {
	t.Helper()
	harness.RequireODX(t)
	b := &bench{t: t, target: harness.Serve(t, luns...), client: harness.Client(t)}
	b.data = rand.NewChaCha8([32]byte{1: byte(len(luns))})
	b.rand = rand.New(b.data)
	for i := range luns {
		s := harness.Open(t, b.client, b.target.URL(i))
		b.disks = append(b.disks, &disk{s, t, make([]byte, s.Blocks*uint64(s.BlockLength))})
	}
	return b
}

// reopen logs in to every disk again, after the target was away.
func (b *bench) reopen() {
	b.t.Helper()
	for i, d := range b.disks {
		if err := d.Close(); err != nil {
			b.t.Fatal(err)
		}
		d.Session = harness.Open(b.t, b.client, b.target.URL(i))
	}
}

// bytes are the model's bytes of a range.
func (d *disk) bytes(r tokenclient.Range) []byte {
	n := uint64(d.BlockLength)
	return d.model[r.LBA*n : (r.LBA+uint64(r.Blocks))*n]
}

// fill writes random data over a range, on the disk and in the model.
func (b *bench) fill(d *disk, r tokenclient.Range) {
	b.t.Helper()
	b.data.Read(d.bytes(r))
	a, err := d.Write(bytes.NewReader(d.bytes(r)), r.LBA, uint64(r.Blocks), tokenclient.WriteOptions{})
	good(b.t, a, err)
}

// verify reads a range back and compares it with the model.
func (d *disk) verify(r tokenclient.Range) {
	d.t.Helper()
	var got bytes.Buffer
	a, err := d.Read(&got, r.LBA, uint64(r.Blocks))
	good(d.t, a, err)
	want := d.bytes(r)
	if bytes.Equal(got.Bytes(), want) {
		return
	}
	for i := range want {
		if got.Bytes()[i] != want[i] {
			d.t.Fatalf("byte %d of block %d differs from the model: %#x, want %#x (range of %d blocks from %d)",
				i%d.BlockLength, r.LBA+uint64(i/d.BlockLength), got.Bytes()[i], want[i], r.Blocks, r.LBA)
		}
	}
}

func (d *disk) verifyAll() {
	d.t.Helper()
	d.verify(tokenclient.Range{LBA: 0, Blocks: uint32(d.Blocks)})
}

// populate makes a token and returns it with the bytes it must stand for.
func (d *disk) populate(o tokenclient.PopulateOptions, ranges ...tokenclient.Range) (token, rod []byte) {
	d.t.Helper()
	a, err := d.PopulateToken(o, ranges...)
	good(d.t, a, err)
	var blocks uint64
	for _, r := range ranges {
		rod = append(rod, d.bytes(r)...)
		blocks += uint64(r.Blocks)
	}
	info, a, err := d.TokenInformation()
	if o.ListID != 0 {
		info, a, err = d.TokenInformationOf(o.ListID)
	}
	good(d.t, a, err)
	if info.ServiceAction != 0x10 || info.OperationStatus != 0x01 || info.CompletionSCSI != 0 || info.Units != 0xf1 ||
		info.TransferCount != blocks || info.Segments != 0 || len(info.Sense) != 0 || info.Token == nil {
		d.t.Fatalf("token information after POPULATE TOKEN of %d blocks: %+v", blocks, info)
	}
	return info.Token, rod
}

// spend writes with a token, on the disk and in the model.
func (d *disk) spend(token, rod []byte, o tokenclient.WriteTokenOptions, ranges ...tokenclient.Range) {
	d.t.Helper()
	a, err := d.WriteUsingToken(token, o, ranges...)
	good(d.t, a, err)
	rod = rod[o.Offset*uint64(d.BlockLength):]
	var blocks uint64
	for _, r := range ranges {
		n := copy(d.bytes(r), rod)
		if n < len(d.bytes(r)) {
			d.t.Fatalf("the test writes more than the token stands for")
		}
		rod, blocks = rod[n:], blocks+uint64(r.Blocks)
	}
	info, a, err := d.TokenInformation()
	good(d.t, a, err)
	if info.ServiceAction != 0x11 || info.OperationStatus != 0x01 || info.TransferCount != blocks || info.Token != nil {
		d.t.Fatalf("token information after WRITE USING TOKEN of %d blocks: %+v", blocks, info)
	}
}

// refused wants a CHECK CONDITION with exactly this sense.
func refused(t *testing.T, a tokenclient.Answer, err error, key, asc, ascq byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != tokenclient.CheckCondition || !a.Sense.Is(key, asc, ascq) {
		t.Fatalf("got %v, want CHECK CONDITION %X/%02X/%02X", a, key, asc, ascq)
	}
}

func good(t *testing.T, a tokenclient.Answer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !a.Good() {
		t.Fatal(a)
	}
}
