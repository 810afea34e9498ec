package copymgr

import (
	"testing"
	"testing/synctest"

	"odx/target/qos"
	"odx/target/scsi"
	"odx/tokens"
)

// passing returns how many reads of blocks at a LUN limits let pass at once.
func (b *testbed) passing(t *testing.T, lun int, blocks byte) (n int64) {
	t.Helper()
	for ; ; n++ {
		task := scsi.NewTask(&b.pool)
		task.Reset(b.nexus, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, blocks, 0})
		task.Lun, task.ExpectedIn = scsi.EncodeLUN(uint16(lun)), 1<<20
		if b.target.Prepare(task) {
			t.Fatalf("READ refused: % x", task.Sense())
		}
		if !task.Enabled() {
			task.Release()
			return n
		}
		b.target.Execute(ctx, task)
		task.Release()
	}
}

// A copy counts for its initiator with its bytes, and is charged as the map nodes that it
// takes, or as what it has to move.
func TestOperation_Charge(t *testing.T) {
	const burst, length = 1000, 512 << 10
	for name, tt := range map[string]struct {
		copy  func(b *testbed, t *testing.T, token []byte) (lun int)
		limit qos.Limits
		block byte  // blocks of each read afterwards
		want  int64 // reads that pass afterwards
	}{
		"operations of a copy that is mapped": {func(b *testbed, t *testing.T, token []byte) int {
			b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{0, length / 4096}))
			return lunB
		}, qos.Limits{Operations: 1, OperationsBurst: burst}, 1, burst - 2},
		"its bytes": {func(b *testbed, t *testing.T, token []byte) int {
			b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{0, length / 4096}))
			return lunB
		}, qos.Limits{Bytes: 1, BytesBurst: 1 << 20}, 1, 1<<20/4096 - 1},
		"bytes of a copy that is moved": {func(b *testbed, t *testing.T, token []byte) int {
			b.writeUsing(lunOutside, 5, writeParameters(token, 0, rangeOf{0, length / 512}))
			return lunOutside
		}, qos.Limits{Bytes: 1, BytesBurst: 1 << 20}, 128, (1<<20 - length) / (128 * 512)},
		"a copy in the background": {func(b *testbed, t *testing.T, token []byte) int {
			p := writeParameters(token, 0, rangeOf{0, length / 4096})
			p[2] |= 0x02 // IMMED
			b.writeUsing(lunB, 5, p)
			b.awaitEnd(t, lunB, 5)
			return lunB
		}, qos.Limits{Operations: 1, OperationsBurst: burst}, 1, burst - 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, tokens.Limits{})
				b.fill(t, lunA, 1)
				token := b.token(t, lunA, rangeOf{0, length / 512})
				for _, lu := range b.target.LUs() {
					lu.SetLimits(tt.limit, nil)
				}
				lun := tt.copy(b, t, token)
				if got := b.passing(t, lun, tt.block); got < tt.want-1 || got > tt.want {
					t.Errorf("%d reads pass after it, want %d", got, tt.want)
				}
				stats := b.target.LU(uint16(lun)).Stats()
				if c := stats.Total[scsi.KindCopy]; c.Commands != 1 || c.Bytes != length || c.Errors != 0 {
					t.Errorf("%d copies of %d bytes, %d failed", c.Commands, c.Bytes, c.Errors)
				}
				if c := stats.Initiators[b.nexus.ID.InitiatorName]; c[scsi.KindCopy].Bytes != length {
					t.Errorf("%d bytes of the initiator", c[scsi.KindCopy].Bytes)
				}
			})
		})
	}
}
