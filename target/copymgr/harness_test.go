package copymgr

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload/offloadtest"
	"odx/target/bufpool"
	"odx/target/scsi"
	"odx/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ctx     = context.Background()
	rewrite = flag.Bool("rewrite", false, "rewrite the golden files")
)

// golden compares p with the hex dump in testdata.
func golden(t *testing.T, name string, p []byte) {
	t.Helper()
	var got strings.Builder
	for off := 0; off < len(p); off += 16 {
		fmt.Fprintf(&got, "%03d  % x\n", off, p[off:min(off+16, len(p))])
	}
	path := "testdata/" + name
	if *rewrite {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s differs; got\n%s", path, got.String())
	}
}

const (
	lunA       = 0 // 512 bytes a block
	lunB       = 1 // 4096 bytes a block
	lunOutside = 2 // 512 bytes a block, not in the store
	lunRO      = 3 // 512 bytes a block, write protected

	unitBytes = 1 << 20
)

// testbed is a target with logical units over an in-memory store, and what an
// initiator sees of it.
type testbed struct {
	store   *offloadtest.Store
	outside *offloadtest.Store // of lunOutside
	tokens  *tokens.Manager
	manager *Manager
	target  *scsi.Target
	volumes []blockdev.Volume
	nexus   *scsi.Nexus
	pool    bufpool.Pool
	log     bytes.Buffer
	// hurry has commands do as little as they can.
	hurry bool
}

func newTestbed(t must.TB, l tokens.Limits) *testbed {
	t.Helper()
	return newTestbedWith(t, tokens.Options{Limits: l})
}

// newTestbedWith is newTestbed with policies for tokens.
func newTestbedWith(t must.TB, o tokens.Options) *testbed {
	t.Helper()
	b := &testbed{store: offloadtest.NewStore([16]byte{1}), outside: offloadtest.NewStore([16]byte{2})}
	o.Store, o.Log = b.store, logs.Discard()
	m, err := tokens.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(&b.log)
	b.tokens, b.manager = m, New(m, nil, logrus.NewEntry(log))
	b.target = scsi.NewTarget(scsi.TargetConfig{Name: "iqn.2026-11.example.odx:disks"})
	outside := offloadtest.Foreign{Volume: b.outside.NewVolume("c", unitBytes), BlockLength: 512}
	for i, c := range []scsi.LUConfig{
		{Volume: b.store.NewVolume("a", unitBytes), LogicalBlockLength: 512, Thin: true},
		{Volume: b.store.NewVolume("b", unitBytes), LogicalBlockLength: 4096, Thin: true},
		{Volume: outside, LogicalBlockLength: 512},
		{Volume: b.store.NewVolume("d", unitBytes), LogicalBlockLength: 512, ReadOnly: true},
	} {
		c.ID = [16]byte{byte(i + 1)}
		c.Space.Usage = func() (used, left int64) { return unitBytes, 10 * unitBytes }
		lu, err := scsi.NewLogicalUnit(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.manager.Install(lu, fmt.Sprintf("volume%d", i)); err != nil {
			t.Fatal(err)
		}
		if err := b.target.AddLU(uint16(i), lu); err != nil {
			t.Fatal(err)
		}
		b.volumes = append(b.volumes, c.Volume)
	}
	b.nexus = b.attach("iqn.2026-11.example:host")
	return b
}

// start is newTestbed for a plain test.
func start(t testing.TB, l tokens.Limits) *testbed {
	t.Helper()
	return startWith(t, tokens.Options{Limits: l})
}

func startWith(t testing.TB, o tokens.Options) *testbed {
	t.Helper()
	b := newTestbedWith(t, o)
	t.Cleanup(func() {
		if err := b.manager.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := b.tokens.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// attach opens a nexus and takes its unit attentions.
func (b *testbed) attach(initiator string) *scsi.Nexus {
	n := b.target.Attach(scsi.NexusID{InitiatorName: initiator, TargetName: b.target.Name(), TargetPortalGroupTag: 1})
	for lun := range b.volumes {
		b.clearAttentions(n, lun)
	}
	return n
}

func (b *testbed) clearAttentions(n *scsi.Nexus, lun int) {
	for b.send(ctx, n, lun, make([]byte, 6), nil).status != scsi.StatusGood {
	}
}

// answer is what an initiator gets for a command.
type answer struct {
	status byte
	sense  []byte
	data   []byte
}

// code returns status GOOD or the sense key and additional sense code as in the
// tables of the standard: "5/26/08".
func (a answer) code() string {
	switch {
	case a.status == scsi.StatusGood:
		return "GOOD"
	case a.status != scsi.StatusCheckCondition || len(a.sense) < 14:
		return fmt.Sprintf("status %02Xh", a.status)
	}
	return fmt.Sprintf("%X/%02X/%02X", a.sense[2]&0xF, a.sense[12], a.sense[13])
}

// field returns the field pointer: "cdb 2" or "list 8", empty when there is none.
func (a answer) field() string {
	if len(a.sense) < 18 || a.sense[15]&0x80 == 0 {
		return ""
	}
	where := "list"
	if a.sense[15]&0x40 != 0 {
		where = "cdb"
	}
	return fmt.Sprintf("%s %d", where, binary.BigEndian.Uint16(a.sense[16:]))
}

// information returns the INFORMATION field if VALID is set.
func (a answer) information() (uint32, bool) {
	if len(a.sense) < 7 || a.sense[0] != 0xF0 {
		return 0, false
	}
	return binary.BigEndian.Uint32(a.sense[3:]), true
}

const offeredIn = 1 << 16

// writeThrough turns the write cache of a logical unit off: MODE SELECT(6) of the
// caching page with WCE=0.
func (b *testbed) writeThrough(t testing.TB, lun int) {
	t.Helper()
	page := append([]byte{0, 0, 0, 0, 0x08, 0x12}, make([]byte, 18)...)
	if a := b.send(ctx, b.nexus, lun, []byte{0x15, 0x10, 0, 0, byte(len(page)), 0}, page); a.code() != "GOOD" {
		t.Fatalf("MODE SELECT: %s", a.code())
	}
}

// hurried has commands that can do less than they are asked to do one step.
func (b *testbed) hurried() *testbed {
	b.hurry = true
	return b
}

// send runs one command as the transport would.
func (b *testbed) send(ctx context.Context, n *scsi.Nexus, lun int, cdb, out []byte) answer {
	if b.hurry {
		ctx = blockdev.StopAfter(ctx, 0)
	}
	task := scsi.NewTask(&b.pool)
	task.Reset(n, cdb)
	task.Lun[1] = byte(lun)
	task.ExpectedOut, task.ExpectedIn = uint32(len(out)), offeredIn
	if !b.target.Prepare(task) {
		wanted := min(task.Wanted, task.ExpectedOut)
		copy(task.AllocDataOut(int(wanted)), out)
		b.target.Execute(ctx, task)
	}
	a := answer{status: task.Result}
	a.sense = append(a.sense, task.Sense()...)
	a.data = append(a.data, task.DataIn()...)
	task.Release()
	return a
}

// rangeOf is a block device range descriptor in the making.
type rangeOf struct {
	lba    uint64
	blocks uint32
}

func appendRanges(p []byte, ranges []rangeOf) []byte {
	for _, r := range ranges {
		p = binary.BigEndian.AppendUint64(p, r.lba)
		p = binary.BigEndian.AppendUint32(p, r.blocks)
		p = append(p, 0, 0, 0, 0)
	}
	return p
}

func populateParameters(ranges ...rangeOf) []byte {
	p := appendRanges(make([]byte, 16), ranges)
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint16(p[14:], uint16(len(p)-16))
	return p
}

func writeParameters(token []byte, offset uint64, ranges ...rangeOf) []byte {
	p := appendRanges(make([]byte, 536), ranges)
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint64(p[8:], offset)
	copy(p[16:528], token)
	binary.BigEndian.PutUint16(p[534:], uint16(len(p)-536))
	return p
}

func copyOutCDB(action byte, listID, length uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, action
	binary.BigEndian.PutUint32(cdb[6:], listID)
	binary.BigEndian.PutUint32(cdb[10:], length)
	return cdb
}

func copyInCDB(action byte, listID, length uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x84, action
	binary.BigEndian.PutUint32(cdb[2:], listID)
	binary.BigEndian.PutUint32(cdb[10:], length)
	return cdb
}

func (b *testbed) populate(lun int, listID uint32, parameters []byte) answer {
	return b.send(ctx, b.nexus, lun, copyOutCDB(0x10, listID, uint32(len(parameters))), parameters)
}

func (b *testbed) writeUsing(lun int, listID uint32, parameters []byte) answer {
	return b.send(ctx, b.nexus, lun, copyOutCDB(0x11, listID, uint32(len(parameters))), parameters)
}

func (b *testbed) rodTokenInformation(lun int, listID, length uint32) answer {
	return b.send(ctx, b.nexus, lun, copyInCDB(0x07, listID, length), nil)
}

func (b *testbed) copyStatus(lun int, listID, length uint32) answer {
	return b.send(ctx, b.nexus, lun, copyInCDB(0x05, listID, length), nil)
}

// token populates a token and fetches it.
func (b *testbed) token(t must.TB, lun int, ranges ...rangeOf) []byte {
	t.Helper()
	if a := b.populate(lun, 77, populateParameters(ranges...)); a.code() != "GOOD" {
		t.Fatalf("POPULATE TOKEN: %s", a.code())
	}
	a := b.rodTokenInformation(lun, 77, 1024)
	if a.code() != "GOOD" || len(a.data) != 550 {
		t.Fatalf("RECEIVE ROD TOKEN INFORMATION: %s, %d bytes", a.code(), len(a.data))
	}
	return a.data[38:]
}

// fill writes a pattern over a volume and returns it.
func (b *testbed) fill(t must.TB, lun int, seed byte) []byte {
	t.Helper()
	p := make([]byte, b.volumes[lun].Size())
	for i := range p {
		p[i] = seed ^ byte(i) ^ byte(i>>9)*7
	}
	if err := b.volumes[lun].WriteAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *testbed) contents(t must.TB, lun int) []byte {
	t.Helper()
	p := make([]byte, b.volumes[lun].Size())
	if err := b.volumes[lun].ReadAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}
