package copymgr

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"odx/target/scsi/sense"
	"odx/tokens"
)

// An operation that is aborted before it runs moves nothing, and returns the cause.
func TestOperation_Run_Aborted(t *testing.T) {
	for name, background := range map[string]bool{"foreground": false, "background": true} {
		t.Run(name, func(t *testing.T) {
			b := start(t, tokens.Limits{})
			lu := b.target.LU(lunA)
			op := &operation{manager: b.manager, owner: owner{lu, b.nexus}, listID: 5, identified: true, units: unitsDestinationBlocks}
			o := b.manager.operations
			if err := o.add(op); err != nil {
				t.Fatal(err)
			}
			if o.abort(op.owner, op.listID, errAbortedByCommand) != op {
				t.Fatal("the operation cannot be aborted")
			}
			var met error
			err := b.manager.execute(ctx, op, plan{background: background, work: func(ctx context.Context, _ *operation) (report, error) {
				met = ctx.Err()
				return report{}, met
			}})
			<-op.done
			if met == nil || op.report.status != copyTerminated {
				t.Errorf("its work met %v, its status is %02Xh", met, op.report.status)
			}
			var se *sense.Error
			if !background && !errors.As(err, &se) || background && err != nil {
				t.Errorf("the command ended with %v", err)
			}
		})
	}
}

// The deadline of a command is for moving data: a flush may come after it, and what was
// moved counts.
func TestOperation_Run_Deadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, tokens.Limits{})
		b.manager.foregroundTime = 500 * time.Millisecond
		b.writeThrough(t, lunB)
		b.fill(t, lunA, 1)
		token := b.token(t, lunA, rangeOf{0, 1024})
		b.store.MapAtMost(4096)
		b.store.FailWith(func(op string) error {
			if op == "Map" {
				time.Sleep(190 * time.Millisecond)
			}
			return nil
		})
		// Steps begin until 100 ms before the deadline; the one that ends after it does
		// nothing.
		a := b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{0, 128}))
		b.wantUnderrun(t, lunB, 5, a, 2)
	})
}
