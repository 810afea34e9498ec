package foreign_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"

	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/target/foreign"
	"odx/target/scsi"
)

// answerOnce has the target end the next command with an operation code by CHECK CONDITION, once it
// has done it or without that.
func (o *other) answerOnce(code byte, done bool, se ...byte) (answered *atomic.Bool) {
	answered = new(atomic.Bool)
	fn := func(t *scsi.Task) bool {
		if t.CDB()[0] != code || answered.Swap(true) {
			return false
		}
		if done {
			o.Target.Execute(context.Background(), t)
		}
		t.Result = scsi.StatusCheckCondition
		t.SetSense(se)
		return true
	}
	o.answer.Store(&fn)
	return answered
}

// Conditions that are no failure of the command: it has completed, or is sent again.
func TestDisk_Recovered(t *testing.T) {
	for name, tt := range map[string]struct {
		done  bool
		sense []byte
	}{
		"recovered, fixed":      {true, []byte{0x70, 0, 1, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x18, 0x02, 0, 0, 0, 0}},
		"recovered, descriptor": {true, []byte{0x72, 1, 0x5d, 0, 0, 0, 0, 0}},
		"no sense":              {false, []byte{0x72, 0, 0, 0, 0, 0, 0, 0}},
		"no sense data":         {false, nil},
		"deferred, recovered":   {false, []byte{0x73, 1, 0x0c, 1, 0, 0, 0, 0}},
		"deferred":              {false, []byte{0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOther(t)
			d, ctx := o.open(t, o.options()), t.Context()
			got := make([]byte, 4096)
			for _, code := range []byte{0x8a, 0x91, 0x88} {
				answered := o.answerOnce(code, tt.done, tt.sense...)
				must.Succeed(t, d.Served().WriteAt(ctx, pattern(4096, code), 0))
				must.Succeed(t, d.Flush(ctx))
				must.Succeed(t, d.ReadAt(ctx, got, 0))
				if !answered.Load() {
					t.Errorf("%02Xh was not sent", code)
				}
				if !bytes.Equal(got, pattern(4096, code)) || !bytes.Equal(o.memory.durable[:4096], got) {
					t.Errorf("%02Xh: something else is read, or it is not durable", code)
				}
			}
		})
	}
}

// A deferred error says that an earlier write is lost, which the command that it ends has nothing
// to do with: the next flush says so, once.
func TestDisk_Flush_Deferred(t *testing.T) {
	o := newOther(t)
	d, ctx := o.open(t, o.options()), t.Context()
	must.Succeed(t, d.WriteAt(ctx, pattern(4096, 1), 0))
	o.memory.lose()
	o.answerOnce(0x88, false, 0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0x00, 0, 0, 0, 0) // WRITE ERROR
	must.Succeed(t, d.ReadAt(ctx, make([]byte, 512), 8192))
	if err := d.Flush(ctx); err == nil {
		t.Error("no error, and the write is lost")
	}
	must.Succeed(t, d.WriteAt(ctx, pattern(4096, 1), 0))
	must.Succeed(t, d.Flush(ctx))
}

// A login that Close ends is no failure of the target.
func TestDisk_Close_LoggingIn(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	defer silent.Close()
	log := new(logs.Text)
	d, err := foreign.Open(t.Context(), foreign.Options{
		URL: initiator.URL{Address: silent.Addr().String(), Target: targetName}, InitiatorName: "iqn.2026-11.example.odx:proxy", ISID: [6]byte{0x80, 1},
		Known: foreign.Geometry{ID: "naa.6001", Size: diskSize, BlockLength: 512}, Log: log.Entry(),
	})
	must.Succeed(t, err)
	conn, err := silent.Accept() // it logs in
	must.Succeed(t, err)
	defer conn.Close()
	must.Succeed(t, d.Close())
	if text := log.String(); text != "" {
		t.Errorf("the log has %q", text)
	}
}
