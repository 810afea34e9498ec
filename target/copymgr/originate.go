package copymgr

import (
	"context"
	"encoding/binary"
	"errors"

	"odx/target/scsi"
	"odx/target/scsi/sense"
)

var errListTooLong = errors.New("parameter list exceeds the maximum length")

// plan is a copy operation whose parameters are valid.
type plan struct {
	background bool // IMMED
	work       work
}

// tokenCommand runs a command of SBC-3 that originates a copy operation: it uses the
// list identifier, and leaves a report for it, whatever the result of the command.
func (u *logicalUnit) tokenCommand(ctx context.Context, t *scsi.Task, name string, rows []senseRow, parse func(*scsi.Nexus, []byte) (plan, error)) error {
	cdb := t.CDB()
	if parameterListLength(cdb) == 0 {
		return nil // no error, nothing to do
	}
	op := &operation{
		manager: u.manager, account: t.Account(),
		owner: owner{u.lu, t.Nexus}, origin: u.originOf(t, name), serviceAction: cdb[1] & 0x1F,
		listID: binary.BigEndian.Uint32(cdb[6:]), identified: true, units: unitsDestinationBlocks,
		uses: []use{{u.lu, t.Nexus.ID}},
	}
	if err := u.manager.operations.add(op); err != nil {
		return u.refuseStart(op, err)
	}
	if parameterListLength(cdb) > maxParameterListLength {
		return u.refuseParameters(op, illegal(sense.ASCParameterListLengthError), errListTooLong)
	}
	p, err := parse(t.Nexus, t.DataOut())
	if err != nil {
		return u.refuseParameters(op, senseOf(u.lu, rows, err), err)
	}
	if p.background {
		op.keepCommand(t)
	}
	return u.manager.execute(ctx, op, p)
}

// refuseStart returns the error of a command that did not become an operation.
func (u *logicalUnit) refuseStart(op *operation, cause error) error {
	switch cause {
	case errTooMany:
		u.manager.refuseStatus(op.origin, statusBusy, cause)
		return scsi.ErrBusy
	case errListFormat:
		se := illegal(sense.ASCInvalidFieldInParameterList)
		u.manager.refuse(op.origin, se, cause)
		return se
	}
	se := illegal(ascOperationInProgress)
	u.manager.refuse(op.origin, se, cause)
	return se
}

// refuseParameters ends an operation before it has done anything.
func (u *logicalUnit) refuseParameters(op *operation, se *sense.Error, cause error) error {
	u.manager.finish(op, report{sense: se}, cause, nil)
	return se
}

// execute runs an operation: in the background it continues after the command's status;
// in the foreground it runs on the command's goroutine, which saves two switches in an
// operation of microseconds.
func (m *Manager) execute(ctx context.Context, op *operation, p plan) error {
	m.operations.setPlan(op, p)
	if p.background {
		m.running.Go(func() { op.Run(m.base) })
		return nil
	}
	m.running.Add(1)
	defer m.running.Done()
	op.Run(ctx)
	return op.outcome()
}

// outcome returns the error of a command whose operation ran in the foreground.
func (op *operation) outcome() error {
	r := &op.report // immutable after done
	switch {
	case r.status == copyTerminated:
		// The initiator has aborted the command itself and ignores its status.
		return sense.New(sense.KeyCopyAborted, ascCommandsClearedByDeviceServer)
	case r.completion == statusBusy:
		return scsi.ErrBusy
	case r.sense != nil:
		return r.sense
	}
	return nil
}
