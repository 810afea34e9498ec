package scsi

import (
	"sync"
	"testing"
)

// Nexuses come and go, units are reset, reserved, reconfigured and added while
// commands run: every command ends with a status, and what a nexus held is gone
// when it is. The race detector has the last word.
func TestTarget_Concurrent(t *testing.T) {
	f := newFixture(t)
	commands := []struct{ cdb, out []byte }{
		{cdb10(0x28, 0, 8, 16), nil}, {cdb10(0x2A, 0x08, 8, 16), make([]byte, 8192)}, {reserve6, nil}, {release6, nil},
		{requestSense, nil}, {reportLUNsCDB(0, 255), nil}, {modeSense6(0x3F, 0xFF, 255), nil},
		{modeSelect6(cachingPage(0)), cachingPage(0)}, {modeSelect6(cachingPage(4)), cachingPage(4)},
		{stopUnit, nil}, {startUnit, nil}, {inquiryCDB(1, 0x83, 255), nil}, {compareAndWriteCDB(0, 8, 1), make([]byte, 1024)},
	}
	var initiators, others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for lun := 1; ; lun++ {
			select {
			case <-stop:
				return
			default:
			}
			f.target.ResetLU(f.nexus, [8]byte{})
			f.target.TasksAborted(f.nexus, [8]byte{})
			f.lu.Resized()
			if lun <= 8 {
				lu, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096)})
				if err == nil {
					err = f.target.AddLU(uint16(lun), lu)
				}
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 4 {
		initiators.Go(func() {
			for round := range 20 {
				n := f.target.Attach(NexusID{TargetName: f.target.Name()})
				for step := range 60 {
					c := commands[(i+round*7+step*5)%len(commands)]
					r := f.run(request{nexus: n, cdb: c.cdb, out: c.out, expectedOut: -1})
					switch r.status {
					case StatusGood, StatusCheckCondition, StatusReservationConflict:
					default:
						t.Errorf("% x: status %02Xh", c.cdb, r.status)
					}
				}
				f.target.Detach(n)
			}
		})
	}
	initiators.Wait()
	close(stop)
	others.Wait()
	if len(f.lu.nexuses) != 1 || f.lu.Reserved(new(Nexus), AccessWrite) != nil {
		t.Errorf("%d nexuses and a reservation (%t) are left, want the fixture's nexus", len(f.lu.nexuses), f.lu.Reserved(new(Nexus), AccessWrite) != nil)
	}
}
