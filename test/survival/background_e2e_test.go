//go:build e2e

package survival

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	backgroundRounds = 9
	backgroundDisk   = 64 << 20
	// Half of the disk is copied to the other half, some blocks off, so that its
	// data has to be moved.
	halfDisk = backgroundDisk / blockLength / 2
	copied   = halfDisk - 8
	// A copy is killed at a random time before this.
	longestCopy = 150 * time.Millisecond
	// Idle tokens have expired this much after a round.
	tokenTimeout = 1 // seconds
)

// What is killed.
const (
	writeUsingToken = iota
	extendedCopy
	populateToken
	copyKinds
)

// TestKilledWhileCopyingInBackground kills the target by SIGKILL while it copies after
// the status of WRITE USING TOKEN, EXTENDED COPY or POPULATE TOKEN. After the restart
// every block is old or new, what was counted and flushed is new, the list identifier
// is unknown, and in the end nothing stays pinned: no token, no snapshot, no data that
// no volume has.
func TestKilledWhileCopyingInBackground(t *testing.T) {
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: backgroundDisk})
	c := &backgroundCopies{t: t, r: rand.New(rand.NewPCG(7, 11)), m: newModel(backgroundDisk / blockLength)}
	client := harness.Client(t)
	for round := range backgroundRounds {
		c.s = harness.Open(t, client, target.URL(0))
		c.prepare()
		killed := make(chan error, 1)
		listID, err := c.begin(round % copyKinds)
		time.AfterFunc(time.Duration(c.r.Int64N(int64(longestCopy))), func() { killed <- target.Kill() })
		for err == nil {
			err = c.look(listID)
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		c.s.Close()
		if err := target.Restart(context.Background()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		c.s = harness.Open(t, client, target.URL(0))
		if _, a, err := c.s.TokenInformationOf(listID); err != nil || !a.Sense.Is(0x5, 0x24, 0x00) {
			t.Errorf("round %d: report of a copy that the restart ended: %v, %v", round, a, err)
		}
		var disk bytes.Buffer
		a, err := c.s.Read(&disk, 0, c.s.Blocks)
		if err != nil || !a.Good() {
			t.Fatalf("round %d: read it all: %v, %v", round, a, err)
		}
		if err := c.m.check(disk.Bytes()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		c.s.Close()
	}
	t.Logf("%d rounds, %d of them killed on the way, %d flushes of a part", backgroundRounds, c.onTheWay, c.flushes)
	if c.onTheWay == 0 || c.flushes == 0 {
		t.Error("too little to prove anything")
	}
	wantNothingPinned(t, target)
}

// backgroundCopies is a client, and what it knows.
type backgroundCopies struct {
	t *testing.T
	r *rand.Rand
	m *model
	s *tokenclient.Session

	writes            bool // the copy under way writes
	running           bool // when it last looked
	onTheWay, flushes int
	counted           uint64 // blocks, when it last looked
	to                uint64 // where the copy goes
}

// prepare rewrites some of the source, durably.
func (c *backgroundCopies) prepare() {
	c.t.Helper()
	lba, n := uint64(0), halfDisk // all of it, first
	if c.m.last > 0 {
		n = 4096
		lba = c.r.Uint64N(uint64(halfDisk - n))
	}
	data := c.m.write(lba, n)
	a, err := c.s.Write(bytes.NewReader(data), lba, uint64(n), tokenclient.WriteOptions{})
	if err == nil && a.Good() {
		a, err = c.s.Flush()
	}
	if err != nil || !a.Good() {
		c.t.Fatalf("write the source: %v, %v", a, err)
	}
	c.m.flushed()
	c.running, c.counted = false, 0
}

// begin has half of the disk copied in the background, and returns the list
// identifier.
func (c *backgroundCopies) begin(kind int) (listID uint32, err error) {
	c.t.Helper()
	c.to = halfDisk + 1 + c.r.Uint64N(7)
	c.writes = kind != populateToken
	if kind == populateToken {
		listID = 1000 + c.r.Uint32N(1000)
		a, err := c.s.PopulateToken(tokenclient.PopulateOptions{ListID: listID, Timeout: tokenTimeout, Immediate: true}, tokenclient.Range{LBA: 0, Blocks: copied})
		if err == nil && !a.Good() {
			c.t.Fatalf("begin to populate: %v", a)
		}
		return listID, err
	}
	var token []byte
	if kind == writeUsingToken {
		a, err := c.s.PopulateToken(tokenclient.PopulateOptions{Timeout: tokenTimeout}, tokenclient.Range{LBA: 0, Blocks: copied})
		if err != nil || !a.Good() {
			c.t.Fatalf("populate: %v, %v", a, err)
		}
		info, _, err := c.s.TokenInformation()
		if err != nil {
			c.t.Fatal(err)
		}
		token = info.Token
	}
	listID = 1000 + c.r.Uint32N(1000)
	c.m.copied(c.to, c.m.snapshot(0, copied))
	var a tokenclient.Answer
	if kind == writeUsingToken {
		a, err = c.s.WriteUsingToken(token, tokenclient.WriteTokenOptions{ListID: listID, Immediate: true}, tokenclient.Range{LBA: c.to, Blocks: copied})
	} else {
		list := extendedCopyList(listID, c.to)
		cdb := []byte{0x83, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}
		a, err = c.s.Command(cdb, list, 0)
	}
	if err == nil && !a.Good() {
		c.t.Fatalf("begin a copy: %v", a)
	}
	return listID, err
}

// extendedCopyList is the parameter list of EXTENDED COPY(LID4) with IMMED: one
// segment with byte offsets, within the logical unit.
func extendedCopyList(listID uint32, to uint64) []byte {
	be := binary.BigEndian
	p := make([]byte, 48+32)
	p[0], p[3], p[15], p[16] = 1, 0x20, 0x01, 0xFF
	be.PutUint32(p[20:], listID)
	be.PutUint16(p[44:], 32)
	s := p[48:]
	s[0], s[3] = 0x0A, 0x1C
	be.PutUint16(s[4:], 0xFFFF)
	be.PutUint16(s[6:], 0xFFFF)
	be.PutUint32(s[8:], copied*blockLength)
	be.PutUint64(s[20:], to)
	return p
}

// look asks how far the copy is, and now and then flushes what is counted. An
// error says that the target had ended.
func (c *backgroundCopies) look(listID uint32) error {
	c.t.Helper()
	be := binary.BigEndian
	cdb := []byte{0x84, 0x05, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0}
	be.PutUint32(cdb[2:], listID)
	a, err := c.s.Command(cdb, nil, 64)
	if err != nil {
		if c.running {
			c.onTheWay++
		}
		return err
	}
	if !a.Good() || len(a.Data) < 32 {
		c.t.Fatalf("RECEIVE COPY STATUS: %v", a)
	}
	status, units, count := a.Data[5], a.Data[15], be.Uint64(a.Data[16:])
	if units == 0 {
		count /= blockLength
	}
	if count < c.counted || status != 0x01 && status != 0x12 {
		c.t.Errorf("status %02Xh, %d blocks after %d", status, count, c.counted)
	}
	c.running, c.counted = status == 0x12, count
	if c.r.IntN(4) > 0 {
		return nil
	}
	if a, err = c.s.Flush(); err != nil {
		if c.running {
			c.onTheWay++
		}
		return err
	}
	if !a.Good() {
		c.t.Fatalf("flush: %v", a)
	}
	if c.writes {
		c.m.durable(c.to, int(count))
	}
	if c.running && count > 0 {
		c.flushes++
	}
	return nil
}

// wantNothingPinned waits for the tokens to expire and their space to be given
// back, and proves the store.
func wantNothingPinned(t *testing.T, target *kit.Target) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		p, err := target.Pinned(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if p.Tokens.Count == 0 && p.Snapshots == 0 && p.Live <= p.Logical {
			break
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("%d tokens, %d snapshots, and %d bytes live where volumes map %d, stay", p.Tokens.Count, p.Snapshots, p.Live, p.Logical)
		}
	}
	if err := target.CheckStore(ctx); err != nil {
		t.Error(err)
	}
}
