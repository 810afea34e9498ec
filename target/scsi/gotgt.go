package scsi

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
	uuid "github.com/satori/go.uuid"

	"odx/target/bufpool"
)

// maxGotgtNexuses bounds the I_T nexuses that one gotgt logical unit keeps.
// gotgt never says that a nexus ended.
const maxGotgtNexuses = 256

// gotgtUnit lets gotgt's target service drive a logical unit of ours: it is the
// api.SCSIDeviceProtocol of an api.SCSILu. The operation table starts as gotgt's
// own; every entry is replaced, since gotgt's commands work on its own backing
// store, and those that we do not support have to be refused here as well.
type gotgtUnit struct {
	gotgt.SBCSCSIDeviceProtocol

	target *Target
	lun    uint16
	pool   bufpool.Pool

	mu      sync.Mutex // guards nexuses
	nexuses map[uuid.UUID]*Nexus
}

// GotgtLU returns LUN lun of the target as a logical unit of gotgt.
func (tg *Target) GotgtLU(lun uint16) (*api.SCSILu, error) {
	lu := tg.LU(lun)
	if lu == nil {
		return nil, fmt.Errorf("LUN %d: no logical unit", lun)
	}
	protocol, ok := gotgt.NewSBCDevice(api.TYPE_DISK).(gotgt.SBCSCSIDeviceProtocol)
	if !ok {
		return nil, fmt.Errorf("gotgt's block device is a %T", protocol)
	}
	unit := &gotgtUnit{SBCSCSIDeviceProtocol: protocol, target: tg, lun: lun, nexuses: make(map[uuid.UUID]*Nexus)}
	for code := range unit.SCSIDeviceOps {
		unit.SCSIDeviceOps[code] = gotgt.NewSCSIDeviceOperation(unit.perform, nil, 0)
	}
	dev := &api.SCSILu{
		UUID:           uint64(lun),
		BlockShift:     lu.blockShift,
		Size:           lu.Blocks() << lu.blockShift,
		DeviceProtocol: unit,
		PerformCommand: unit.perform,
	}
	if err := unit.InitLu(dev); err != nil {
		return nil, fmt.Errorf("gotgt logical unit: %w", err)
	}
	dev.Attrs.Online = true
	dev.Attrs.Readonly = lu.ReadOnly()
	dev.Attrs.ThinProvisioning = lu.config.Thin
	return dev, nil
}

// nexus returns the I_T nexus of a command.
func (u *gotgtUnit) nexus(cmd *api.SCSICommand) *Nexus {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.nexuses[cmd.ITNexusID]
	if n != nil {
		return n
	}
	if len(u.nexuses) >= maxGotgtNexuses {
		for id, old := range u.nexuses {
			delete(u.nexuses, id)
			u.target.Detach(old)
			break
		}
	}
	n = u.target.Attach(NexusID{InitiatorName: cmd.ITNexusID.String(), TargetName: u.target.name})
	u.nexuses[cmd.ITNexusID] = n
	return n
}

// perform is an api.CommandFunc: it runs cmd as a Task and gives the result back
// in gotgt's terms, where Resid counts the bytes of Data-In.
func (u *gotgtUnit) perform(_ int, cmd *api.SCSICommand) api.SAMStat {
	t := NewTask(&u.pool)
	defer t.Release()
	t.Reset(u.nexus(cmd), cmd.SCB)
	t.Lun, t.Tag = encodeLUN(u.lun), cmd.Tag
	if cmd.OutSDBBuffer != nil {
		t.ExpectedOut = uint32(len(cmd.OutSDBBuffer.Buffer))
	}
	in := cmd.InSDBBuffer
	if in != nil {
		t.ExpectedIn = uint32(len(in.Buffer))
	}
	received := 0
	if !u.target.Prepare(t) {
		if n := min(t.Wanted, t.ExpectedOut); n > 0 {
			copy(t.AllocDataOut(int(n)), cmd.OutSDBBuffer.Buffer)
		}
		for u.target.Execute(context.Background(), t); t.More(); u.target.Execute(context.Background(), t) {
			received += copy(in.Buffer[received:], t.DataIn())
		}
	}
	if in != nil {
		copy(in.Buffer[min(received, len(in.Buffer)):], t.DataIn())
		in.Resid = uint32(received + len(t.DataIn()))
	}
	cmd.Result = t.Result
	cmd.State = api.SCSICommandProcessed
	switch t.Result {
	case StatusGood:
		return api.SAMStatGood
	case StatusReservationConflict:
		return api.SAMStatReservationConflict
	}
	sense := bytes.Clone(t.Sense())
	cmd.SenseBuffer = &api.SenseBuffer{Buffer: sense, Length: uint32(len(sense))}
	return api.SAMStatCheckCondition
}
