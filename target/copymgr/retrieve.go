package copymgr

import (
	"context"
	"encoding/binary"
	"errors"

	"odx/target/scsi"
)

var (
	errNoReport   = errors.New("no copy operation with this list identifier is known for this I_T nexus")
	errNotRunning = errors.New("no copy operation with this list identifier is running for this I_T nexus")
)

// executeReceiveCopyStatus is RECEIVE COPY STATUS(LID4) (SPC-4 r37 6.24).
func (u *unit) executeReceiveCopyStatus(_ context.Context, t *scsi.Task) error {
	r, _, err := u.retrieve(t, nameReceiveCopyStatus)
	if err != nil {
		return err
	}
	t.SetDataIn(r.receiveCopyStatus(), parameterListLength(t.CDB()))
	return nil
}

// executeReceiveRODTokenInformation is RECEIVE ROD TOKEN INFORMATION (SPC-4 r37
// 6.26, SBC-3 5.23). The token is told until it was delivered as a whole, or
// until an allocation length of zero says that nobody wants it.
func (u *unit) executeReceiveRODTokenInformation(_ context.Context, t *scsi.Task) error {
	r, listID, err := u.retrieve(t, nameReceiveRODTokenInformation)
	if err != nil {
		return err
	}
	data := r.receiveRODTokenInformation()
	allocationLength := parameterListLength(t.CDB())
	t.SetDataIn(data, allocationLength)
	if delivered := min(allocationLength, t.ExpectedIn); allocationLength == 0 || int64(delivered) >= int64(len(data)) {
		u.operations.discardToken(owner{u.lu, t.Nexus}, listID)
	}
	return nil
}

// retrieve returns the report that a command asks for.
func (u *unit) retrieve(t *scsi.Task, name string) (r report, listID uint32, err error) {
	const fieldListIdentifier = 2
	listID = binary.BigEndian.Uint32(t.CDB()[fieldListIdentifier:])
	r, ok := u.operations.report(owner{u.lu, t.Nexus}, listID)
	if !ok {
		sense := scsi.InvalidFieldInCDB(fieldListIdentifier, scsi.WholeField)
		u.refuse(originOf(t, name), sense, errNoReport)
		return r, listID, sense
	}
	return r, listID, nil
}

// executeCopyOperationAbort is COPY OPERATION ABORT (SPC-4 r37 6.3). It returns
// when the operation moves no more data.
func (u *unit) executeCopyOperationAbort(ctx context.Context, t *scsi.Task) error {
	const fieldListIdentifier = 2
	listID := binary.BigEndian.Uint32(t.CDB()[fieldListIdentifier:])
	op := u.operations.abort(owner{u.lu, t.Nexus}, listID, errAbortedByCommand)
	if op == nil {
		sense := scsi.InvalidFieldInCDB(fieldListIdentifier, scsi.WholeField)
		u.refuse(originOf(t, nameCopyOperationAbort), sense, errNotRunning)
		return sense
	}
	select {
	case <-op.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
