package copymgr

import (
	"context"
	"encoding/binary"
	"errors"

	"odx/target/scsi"
	"odx/target/scsi/sense"
	"odx/tokens"
)

var (
	errNoReport   = errors.New("no copy operation of this I_T nexus with this list identifier")
	errNotRunning = errors.New("no running copy operation of this I_T nexus with this list identifier")
	errRunning    = errors.New("copy operation with this list identifier still running")
)

// Offsets of the list identifier: both kinds share one number space.
func listIDOfLID1(cdb []byte) uint32 { return uint32(cdb[fieldListIdentifier]) }
func listIDOfLID4(cdb []byte) uint32 { return binary.BigEndian.Uint32(cdb[fieldListIdentifier:]) }

// executeReceiveCopyStatusLID4 is RECEIVE COPY STATUS(LID4) (SPC-4 r37 6.24).
func (u *logicalUnit) executeReceiveCopyStatusLID4(_ context.Context, t *scsi.Task) error {
	r, err := u.retrieve(t, nameCopyStatusLID4, listIDOfLID4(t.CDB()))
	if err != nil {
		return err
	}
	t.SetDataIn(r.receiveCopyStatusLID4(), parameterListLength(t.CDB()))
	return nil
}

// executeReceiveCopyStatusLID1 is RECEIVE COPY STATUS(LID1) (SPC-4 r37 6.25). The
// status of a finished operation is reported once.
func (u *logicalUnit) executeReceiveCopyStatusLID1(_ context.Context, t *scsi.Task) error {
	listID := listIDOfLID1(t.CDB())
	r, err := u.retrieve(t, nameCopyStatusLID1, listID)
	if err != nil {
		return err
	}
	t.SetDataIn(r.receiveCopyStatusLID1(), parameterListLength(t.CDB()))
	// Data for other commands is kept: held data, details of a failure.
	if r.finished() && r.sense == nil && len(r.held) == 0 {
		u.manager.operations.discard(owner{u.lu, t.Nexus}, listID)
	}
	return nil
}

// executeReceiveRODTokenInformation is RECEIVE ROD TOKEN INFORMATION (SPC-4 r37 6.26,
// SBC-3 5.22). The token is reported until it was delivered entirely, or until an
// allocation length of zero declines it.
func (u *logicalUnit) executeReceiveRODTokenInformation(_ context.Context, t *scsi.Task) error {
	listID := listIDOfLID4(t.CDB())
	r, err := u.retrieve(t, nameRODTokenInformation, listID)
	if err != nil {
		return err
	}
	if deliver(t, r.receiveRODTokenInformation()) {
		u.manager.operations.change(owner{u.lu, t.Nexus}, listID, func(r *report) { r.token = nil })
	}
	return nil
}

// executeReceiveCopyDataLID1 is RECEIVE COPY DATA(LID1) (SPC-4 r37 6.21): the held
// data, once.
func (u *logicalUnit) executeReceiveCopyDataLID1(_ context.Context, t *scsi.Task) error {
	listID := listIDOfLID1(t.CDB())
	r, err := u.retrieveFinished(t, nameCopyDataLID1, listID)
	if err != nil {
		return err
	}
	u.deliverHeld(t, listID, r.receiveCopyDataLID1())
	return nil
}

// executeReceiveCopyDataLID4 is RECEIVE COPY DATA(LID4) (SPC-4 r37 6.20): the held data
// with the status, also of a running operation.
func (u *logicalUnit) executeReceiveCopyDataLID4(_ context.Context, t *scsi.Task) error {
	listID := listIDOfLID4(t.CDB())
	r, err := u.retrieve(t, nameCopyDataLID4, listID)
	if err != nil {
		return err
	}
	u.deliverHeld(t, listID, r.receiveCopyDataLID4())
	return nil
}

// deliverHeld sets the Data-In to p, and drops the held data once p is delivered.
func (u *logicalUnit) deliverHeld(t *scsi.Task, listID uint32, p []byte) {
	if deliver(t, p) {
		u.manager.operations.change(owner{u.lu, t.Nexus}, listID, func(r *report) {
			r.heldDiscarded = r.heldDiscarded || len(r.held) > 0
			r.held = nil
		})
	}
}

// executeReceiveCopyFailureDetails is RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4
// r37 6.23): those of an EXTENDED COPY(LID1), once.
func (u *logicalUnit) executeReceiveCopyFailureDetails(_ context.Context, t *scsi.Task) error {
	listID := listIDOfLID1(t.CDB())
	r, err := u.retrieveFinished(t, nameFailureDetails, listID)
	if err != nil {
		return err
	}
	if r.serviceAction != actionExtendedCopyLID1 {
		return u.refuseListID(t, nameFailureDetails, errNoReport)
	}
	if deliver(t, r.failureDetails()) {
		u.manager.operations.change(owner{u.lu, t.Nexus}, listID, func(r *report) { r.detailsReported = true })
	}
	return nil
}

// executeReceiveCopyOperatingParameters is RECEIVE COPY OPERATING PARAMETERS
// (SPC-4 r37 6.22).
func (u *logicalUnit) executeReceiveCopyOperatingParameters(_ context.Context, t *scsi.Task) error {
	t.SetDataIn(u.limits().operatingParameters(), parameterListLength(t.CDB()))
	return nil
}

// prepareReportAllRODTokens sets the memory for the list of all tokens, and the parameter
// data of those that are reported, twice.
func (u *logicalUnit) prepareReportAllRODTokens(t *scsi.Task) error {
	t.SetScratch(2 * u.manager.tokens.ListBytes())
	return nil
}

// executeReportAllRODTokens is REPORT ALL ROD TOKENS (SPC-4 r37 6.31): the management
// tokens of the tokens created on this logical unit, and of those that the initiator has
// created on peers, whose copy managers and this one are one for it.
func (u *logicalUnit) executeReportAllRODTokens(ctx context.Context, t *scsi.Task) error {
	data := make([]byte, 8)
	for _, info := range u.manager.tokens.List() {
		if info.Creator.Volume == u.name() {
			data = append(data, info.Management[:]...)
		}
	}
	for _, info := range u.manager.tokens.ListAway(ctx, tokens.Requester{Initiator: t.Nexus.ID.InitiatorName}) {
		data = append(data, info.Management[:]...)
	}
	binary.BigEndian.PutUint32(data, uint32(len(data)-4))
	t.SetDataIn(data, parameterListLength(t.CDB()))
	return nil
}

// executeCopyOperationAbort is COPY OPERATION ABORT (SPC-4 r37 6.3). It returns
// when the operation moves no more data.
func (u *logicalUnit) executeCopyOperationAbort(ctx context.Context, t *scsi.Task) error {
	op := u.manager.operations.abort(owner{u.lu, t.Nexus}, listIDOfLID4(t.CDB()), errAbortedByCommand)
	if op == nil {
		return u.refuseListID(t, nameCopyOperationAbort, errNotRunning)
	}
	select {
	case <-op.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliver sets the Data-In to p, and reports whether the initiator gets all of it, or
// declines it by an allocation length of zero.
func deliver(t *scsi.Task, p []byte) bool {
	allocationLength := parameterListLength(t.CDB())
	t.SetDataIn(p, allocationLength)
	delivered := min(allocationLength, t.ExpectedIn)
	return allocationLength == 0 || int64(delivered) >= int64(len(p))
}

// retrieve returns the report for a command.
func (u *logicalUnit) retrieve(t *scsi.Task, name string, listID uint32) (report, error) {
	r, ok := u.manager.operations.report(owner{u.lu, t.Nexus}, listID)
	if !ok {
		return r, u.refuseListID(t, name, errNoReport)
	}
	return r, nil
}

// retrieveFinished is retrieve for data that exists only after the end.
func (u *logicalUnit) retrieveFinished(t *scsi.Task, name string, listID uint32) (report, error) {
	r, err := u.retrieve(t, name, listID)
	if err == nil && !r.finished() {
		err = u.refuseListID(t, name, errRunning)
	}
	return r, err
}

// refuseListID refuses a command for its list identifier.
func (u *logicalUnit) refuseListID(t *scsi.Task, name string, cause error) error {
	se := sense.InvalidFieldInCDB(fieldListIdentifier, sense.WholeField)
	u.manager.refuse(u.originOf(t, name), se, cause)
	return se
}
