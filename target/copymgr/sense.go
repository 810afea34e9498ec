package copymgr

import (
	"errors"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/tokens"
)

// Additional sense codes of third-party copies (SPC-4 r37 annex F).
const (
	ascExtendedCopyInformation      scsi.ASC = 0x0020
	ascUnreachableCopyTarget        scsi.ASC = 0x0804
	ascThirdPartyDeviceFailure      scsi.ASC = 0x0D01
	ascCopyTargetNotReachable       scsi.ASC = 0x0D02
	ascIncorrectCopyTargetType      scsi.ASC = 0x0D03
	ascTooManyTargetDescriptors     scsi.ASC = 0x2606
	ascUnsupportedTargetDescriptor  scsi.ASC = 0x2607
	ascUnsupportedSegmentDescriptor scsi.ASC = 0x2609
	ascUnexpectedInexactSegment     scsi.ASC = 0x260A
	ascInlineDataLengthExceeded     scsi.ASC = 0x260B

	ascInvalidOperationForCopySourceOrDestination scsi.ASC = 0x260C

	ascNoAccessRights                scsi.ASC = 0x2002
	ascOperationInProgress           scsi.ASC = 0x0016
	ascTargetDataUnderrun            scsi.ASC = 0x0D04
	ascTokenInvalid                  scsi.ASC = 0x2300 // cause not reportable
	ascTokenUnsupportedType          scsi.ASC = 0x2301
	ascTokenRemote                   scsi.ASC = 0x2302
	ascTokenUnknown                  scsi.ASC = 0x2304
	ascTokenCorrupt                  scsi.ASC = 0x2305
	ascTokenRevoked                  scsi.ASC = 0x2306
	ascTokenExpired                  scsi.ASC = 0x2307
	ascTokenCancelled                scsi.ASC = 0x2308
	ascTokenDeleted                  scsi.ASC = 0x2309
	ascTokenInvalidLength            scsi.ASC = 0x230A
	ascTooManySegmentDescriptors     scsi.ASC = 0x2608
	ascCommandsClearedByDeviceServer scsi.ASC = 0x2F02
	ascInsufficientRODResources      scsi.ASC = 0x550C
	ascInsufficientRODTokens         scsi.ASC = 0x550D
)

// Offsets of the fields for field pointers.
const (
	fieldInactivityTimeout = 4
	fieldRODType           = 8
	fieldOffsetIntoROD     = 8
)

// senseRow is one row of the tables that turn an error of the token manager into sense
// data.
type senseRow struct {
	err   error
	sense *scsi.SenseError
}

// illegal returns sense data with key ILLEGAL REQUEST.
func illegal(asc scsi.ASC) *scsi.SenseError { return scsi.NewSense(scsi.KeyIllegalRequest, asc) }

// populateSense has the errors of OffloadRead.
var populateSense = []senseRow{
	{errRule, illegal(ascNoAccessRights)},
	{tokens.ErrTimeout, scsi.InvalidFieldInParameterList(fieldInactivityTimeout, scsi.WholeField)},
	{tokens.ErrUnsupportedType, scsi.InvalidFieldInParameterList(fieldRODType, scsi.WholeField)},
	{tokens.ErrNoResources, illegal(ascInsufficientRODTokens)},
	{blockdev.ErrNoSpace, illegal(ascInsufficientRODResources)},
	{blockdev.ErrRange, illegal(scsi.ASCLBAOutOfRange)},
	{tokens.ErrTooLong, illegal(scsi.ASCInvalidFieldInParameterList)},
	{tokens.ErrUnmapped, illegal(ascInsufficientRODResources)},
}

// writeUsingSense has the errors of OffloadWrite.
var writeUsingSense = []senseRow{
	{errRule, illegal(ascNoAccessRights)},
	{tokens.ErrInvalidLength, illegal(ascTokenInvalidLength)},
	{tokens.ErrCorrupt, illegal(ascTokenCorrupt)},
	{tokens.ErrUnsupportedType, illegal(ascTokenUnsupportedType)},
	{tokens.ErrRemote, illegal(ascTokenRemote)},
	{tokens.ErrExpired, illegal(ascTokenExpired)},
	{tokens.ErrCancelled, illegal(ascTokenCancelled)},
	{tokens.ErrRevoked, illegal(ascTokenRevoked)},
	{tokens.ErrDeleted, illegal(ascTokenDeleted)},
	{tokens.ErrUnknown, illegal(ascTokenUnknown)},
	{tokens.ErrAccess, illegal(ascTokenInvalid)},
	{tokens.ErrOffset, scsi.InvalidFieldInParameterList(fieldOffsetIntoROD, scsi.WholeField)},
	{blockdev.ErrRange, illegal(scsi.ASCLBAOutOfRange)},
}

// senseOf looks up err in rows, and then among the errors of all commands of the
// logical unit.
func senseOf(lu *scsi.LogicalUnit, rows []senseRow, err error) *scsi.SenseError {
	for _, row := range rows {
		if errors.Is(err, row.err) {
			return row.sense
		}
	}
	return lu.Sense(err)
}

// underrun returns the sense data of a copy that ended early after count blocks (SBC-3
// 4.28.2). Windows continues from there.
func underrun(count uint64) *scsi.SenseError {
	key := scsi.KeyCopyAborted
	if count == 0 {
		key = scsi.KeyIllegalRequest
	}
	return scsi.NewSense(key, ascTargetDataUnderrun).WithInformation(count)
}
