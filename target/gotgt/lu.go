package gotgt

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
	uuid "github.com/satori/go.uuid"

	"odx/target/bufpool"
	"odx/target/scsi"
)

// maxNexuses bounds the I_T nexuses that one gotgt logical unit keeps.
// gotgt never says that a nexus ended.
const maxNexuses = 256

// unit lets gotgt's target service drive a logical unit of ours: it is the
// api.SCSIDeviceProtocol of an api.SCSILu. The operation table starts as gotgt's
// own; every entry is replaced, since gotgt's commands work on its own backing
// store, and those that we do not support have to be refused here as well.
type unit struct {
	gotgt.SBCSCSIDeviceProtocol

	target *scsi.Target
	lun    uint16
	pool   bufpool.Pool

	mu      sync.Mutex // guards nexuses
	nexuses map[uuid.UUID]*scsi.Nexus
}

// LU returns LUN lun of a target as a logical unit of gotgt.
func LU(tg *scsi.Target, lun uint16) (*api.SCSILu, error) {
	lu := tg.LU(lun)
	if lu == nil {
		return nil, fmt.Errorf("LUN %d: no logical unit", lun)
	}
	protocol, ok := gotgt.NewSBCDevice(api.TYPE_DISK).(gotgt.SBCSCSIDeviceProtocol)
	if !ok {
		return nil, fmt.Errorf("gotgt's block device is a %T", protocol)
	}
	u := &unit{SBCSCSIDeviceProtocol: protocol, target: tg, lun: lun, nexuses: make(map[uuid.UUID]*scsi.Nexus)}
	for code := range u.SCSIDeviceOps {
		u.SCSIDeviceOps[code] = gotgt.NewSCSIDeviceOperation(u.perform, nil, 0)
	}
	dev := &api.SCSILu{
		UUID:           uint64(lun),
		BlockShift:     uint(bits.TrailingZeros(uint(lu.LogicalBlockLength()))),
		Size:           lu.Blocks() * uint64(lu.LogicalBlockLength()),
		DeviceProtocol: u,
		PerformCommand: u.perform,
	}
	if err := u.InitLu(dev); err != nil {
		return nil, fmt.Errorf("gotgt logical unit: %w", err)
	}
	dev.Attrs.Online = true
	dev.Attrs.Readonly = lu.ReadOnly()
	dev.Attrs.ThinProvisioning = thin(lu)
	return dev, nil
}

// thin reports whether a logical unit is thin provisioned, as its LBPME bit says.
func thin(lu *scsi.LogicalUnit) bool {
	capacity := lu.ReadCapacity16()
	return capacity[14]&0x80 != 0
}

// nexus returns the I_T nexus of a command.
func (u *unit) nexus(cmd *api.SCSICommand) *scsi.Nexus {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.nexuses[cmd.ITNexusID]
	if n != nil {
		return n
	}
	if len(u.nexuses) >= maxNexuses {
		for id, old := range u.nexuses {
			delete(u.nexuses, id)
			u.target.Detach(old)
			break
		}
	}
	n = u.target.Attach(scsi.NexusID{InitiatorName: cmd.ITNexusID.String(), TargetName: u.target.Name()})
	u.nexuses[cmd.ITNexusID] = n
	return n
}

// perform is an api.CommandFunc: it runs cmd as a Task and gives the result back
// in gotgt's terms, where Resid counts the bytes of Data-In.
func (u *unit) perform(_ int, cmd *api.SCSICommand) api.SAMStat {
	t := scsi.NewTask(&u.pool)
	defer t.Release()
	t.Reset(u.nexus(cmd), cmd.SCB)
	t.Lun, t.Tag = scsi.EncodeLUN(u.lun), cmd.Tag
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
	case scsi.StatusGood:
		return api.SAMStatGood
	case scsi.StatusReservationConflict:
		return api.SAMStatReservationConflict
	}
	sense := bytes.Clone(t.Sense())
	cmd.SenseBuffer = &api.SenseBuffer{Buffer: sense, Length: uint32(len(sense))}
	return api.SAMStatCheckCondition
}
