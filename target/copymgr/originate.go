package copymgr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"odx/target/scsi"
	"odx/tokens"
)

var (
	errListTooLong = errors.New("parameter list is longer than any can be")
	errListID      = errors.New("an operation with this list identifier is running")
)

// originate runs a command that originates a copy operation: it takes its list
// identifier, and leaves a report for it, whatever becomes of the command.
func (u *unit) originate(ctx context.Context, t *scsi.Task, name string, run func(context.Context, *scsi.Task) (report, error)) error {
	cdb := t.CDB()
	if parameterListLength(cdb) == 0 {
		return nil // no error, and nothing to do
	}
	by := owner{u.lu, t.Nexus}
	op, err := u.operations.begin(by, binary.BigEndian.Uint32(cdb[6:]), cdb[1]&0x1F)
	if err != nil {
		sense := illegal(ascOperationInProgress)
		u.refuse(t, name, sense, errListID)
		return sense
	}
	var r report
	if parameterListLength(cdb) > maxParameterListLength {
		r, err = report{sense: illegal(scsi.ASCParameterListLengthError)}, errListTooLong
	} else {
		r, err = run(ctx, t)
	}
	r.conclude(err)
	u.operations.finish(op, r)
	if r.sense == nil {
		return err
	}
	if r.transferCount == 0 {
		u.refuse(t, name, r.sense, err)
	} else {
		u.describe(t, name).WithField("blocks", r.transferCount).WithError(err).Info("copy command ended early")
	}
	return r.sense
}

// conclude sets the status fields of a report from what it says already.
func (r *report) conclude(err error) {
	switch {
	case aborted(err):
		r.status, r.completion, r.sense = copyTerminated, statusTaskAborted, nil
	case r.sense == nil:
		r.completion = statusGood
		if r.status == 0 {
			r.status = copyDone
		}
	case r.transferCount > 0:
		r.status, r.completion = copyDoneWithResidual, statusCheckCondition
	default:
		r.status, r.completion = copyDoneWithErrors, statusCheckCondition
	}
}

// executePopulateToken is POPULATE TOKEN (SBC-3 5.11).
func (u *unit) executePopulateToken(ctx context.Context, t *scsi.Task) error {
	return u.originate(ctx, t, namePopulateToken, u.populate)
}

func (u *unit) populate(ctx context.Context, t *scsi.Task) (report, error) {
	list, err := parsePopulate(t.DataOut(), maxRangeDescriptors)
	if err != nil {
		return report{sense: u.lu.Sense(err)}, err
	}
	blocks, err := checkRanges(list.ranges, u.lu.Blocks(), u.limits.maxBlocks())
	if err != nil {
		return report{sense: u.lu.Sense(err)}, err
	}
	o := tokens.ReadOptions{
		InactivityTimeout: time.Duration(list.inactivityTimeout) * time.Second,
		Creator:           tokens.Creator{Initiator: t.Nexus.ID.InitiatorName, Target: t.Nexus.ID.TargetName, Volume: u.volume},
	}
	if list.rtv {
		if o.Type = list.rodType; o.Type == tokens.RODTypeInternal {
			err := fmt.Errorf("%w: %v", tokens.ErrUnsupportedType, o.Type)
			return report{sense: senseOf(u.lu, populateSense, err)}, err
		}
	}
	if blocks == 0 {
		// Nothing to represent: good, and no token.
		return report{}, nil
	}
	blockLength := u.lu.LogicalBlockLength()
	res, err := u.tokens.OffloadRead(ctx, u.source(t), byteRanges(list.ranges, blockLength), o)
	if err != nil {
		return report{sense: senseOf(u.lu, populateSense, err)}, err
	}
	r := report{token: res.Token, transferCount: uint64(res.Represented) / uint64(blockLength)}
	partial := r.transferCount < blocks
	if partial {
		// Good status, and the count tells how much of it the token represents.
		r.status = copyDoneWithResidual
	}
	u.countCopy(&u.stats.Populated, &u.stats.PopulatedBytes, uint64(res.Represented), partial)
	return r, nil
}

// source describes the logical unit for the tokens made on it.
func (u *unit) source(t *scsi.Task) tokens.Source {
	naa, capacity := u.lu.NAA(), u.lu.ReadCapacity16()
	return tokens.Source{
		Volume: u.lu.Volume(),
		LU: tokens.LU{
			NAA: naa[:], TargetName: t.Nexus.ID.TargetName, BlockLength: u.lu.LogicalBlockLength(),
			ReadCapacity: [24]byte(capacity[8:]),
		},
	}
}

// executeWriteUsingToken is WRITE USING TOKEN (SBC-3 5.55).
func (u *unit) executeWriteUsingToken(ctx context.Context, t *scsi.Task) error {
	return u.originate(ctx, t, nameWriteUsingToken, u.writeUsing)
}

func (u *unit) writeUsing(ctx context.Context, t *scsi.Task) (report, error) {
	list, err := parseWriteUsing(t.DataOut(), maxRangeDescriptors)
	if err != nil {
		return report{sense: u.lu.Sense(err)}, err
	}
	if err := t.Nexus.WriteProtected(u.lu); err != nil {
		return report{sense: u.lu.Sense(err)}, err
	}
	blocks, err := checkRanges(list.ranges, u.lu.Blocks(), u.limits.maxBlocks())
	if err != nil {
		return report{sense: u.lu.Sense(err)}, err
	}
	n, err := u.write(ctx, list)
	r := report{transferCount: uint64(n) / uint64(u.lu.LogicalBlockLength())}
	if n > 0 && u.lu.WriteThrough() {
		if flushErr := u.lu.Volume().Flush(ctx); flushErr != nil {
			r.transferCount, err = 0, flushErr
		}
	}
	partial := r.transferCount < blocks
	switch {
	case err != nil && r.transferCount == 0:
		r.sense = senseOf(u.lu, writeUsingSense, err)
		return r, err
	case err != nil || partial:
		// The initiator goes on from the count, and meets the error, if any, again.
		r.sense = underrun(r.transferCount)
	}
	if blocks > 0 {
		u.countCopy(&u.stats.Written, &u.stats.WrittenBytes, uint64(n), partial)
	}
	return r, err
}

// write hands the command to the token manager and returns the bytes done.
func (u *unit) write(ctx context.Context, list *writeUsingList) (int64, error) {
	blockLength := u.lu.LogicalBlockLength()
	offset, ok := byteOffset(list.offsetIntoROD, blockLength)
	if list.token.Type() == tokens.RODTypeBlockDeviceZero {
		offset, ok = 0, true // it has no end
	}
	if !ok {
		// No token is so long; one that is bad for another reason is told so.
		if _, err := u.tokens.Lookup(list.token); err != nil {
			return 0, err
		}
		return 0, tokens.ErrOffset
	}
	dst := tokens.Destination{Volume: u.lu.Volume(), BlockLength: blockLength}
	o := tokens.WriteOptions{}
	if list.deleteToken {
		o.Completion = tokens.DeleteToken
	}
	return u.tokens.OffloadWrite(ctx, list.token, offset, dst, byteRanges(list.ranges, blockLength), o)
}
