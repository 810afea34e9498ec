package copymgr

import (
	"context"
	"encoding/binary"
	"errors"

	"odx/target/scsi"
)

var errListTooLong = errors.New("parameter list is longer than any can be")

// plan is a copy operation whose parameters were found good.
type plan struct {
	background bool // IMMED
	work       work
}

// tokenCommand runs a command of SBC-3 that originates a copy operation: it
// takes its list identifier, and leaves a report for it, whatever becomes of the
// command.
func (u *unit) tokenCommand(ctx context.Context, t *scsi.Task, name string, rows []senseRow, parse func(*scsi.Task) (plan, error)) error {
	cdb := t.CDB()
	if parameterListLength(cdb) == 0 {
		return nil // no error, and nothing to do
	}
	op := &operation{
		manager: u.manager,
		owner:   owner{u.lu, t.Nexus}, origin: u.originOf(t, name), serviceAction: cdb[1] & 0x1F,
		listID: binary.BigEndian.Uint32(cdb[6:]), identified: true, units: unitsDestinationBlocks,
		uses: []use{{u.lu, t.Nexus.ID}},
	}
	if err := u.manager.operations.begin(op); err != nil {
		return u.refuseToBegin(op, err)
	}
	if parameterListLength(cdb) > maxParameterListLength {
		return u.refuseParameters(op, illegal(scsi.ASCParameterListLengthError), errListTooLong)
	}
	p, err := parse(t)
	if err != nil {
		return u.refuseParameters(op, senseOf(u.lu, rows, err), err)
	}
	return u.manager.carryOut(ctx, op, p)
}

// refuseToBegin returns what a command ends with that did not get to be an
// operation.
func (u *unit) refuseToBegin(op *operation, cause error) error {
	switch cause {
	case errTooMany:
		u.manager.refuseStatus(op.origin, statusBusy, cause)
		return scsi.ErrBusy
	case errListFormat:
		sense := illegal(scsi.ASCInvalidFieldInParameterList)
		u.manager.refuse(op.origin, sense, cause)
		return sense
	}
	sense := illegal(ascOperationInProgress)
	u.manager.refuse(op.origin, sense, cause)
	return sense
}

// refuseParameters ends an operation that has done nothing.
func (u *unit) refuseParameters(op *operation, sense *scsi.SenseError, cause error) error {
	u.manager.finish(op, report{sense: sense}, cause, nil)
	return sense
}

// carryOut runs an operation: in the background it goes on after the command's
// status, and in the foreground its end is that of the command, which saves two changes
// of goroutine in what takes microseconds.
func (m *Manager) carryOut(ctx context.Context, op *operation, p plan) error {
	m.operations.plan(op, p)
	if p.background {
		m.running.Go(func() { op.Run(m.base) })
		return nil
	}
	m.running.Add(1)
	defer m.running.Done()
	op.Run(ctx)
	return op.outcome()
}

// outcome is what the command of an operation in the foreground ends with.
func (op *operation) outcome() error {
	r := &op.report // nobody changes it after done
	switch {
	case r.status == copyTerminated:
		// Who aborted the command itself looks at nothing that it says.
		return scsi.NewSense(scsi.KeyCopyAborted, ascCommandsClearedByDeviceServer)
	case r.completion == statusBusy:
		return scsi.ErrBusy
	case r.sense != nil:
		return r.sense
	}
	return nil
}
