package copymgr

import (
	"errors"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/target/scsi/sense"
	"odx/tokens"
)

// Additional sense codes of third-party copies (SPC-4 r37 annex F).
const (
	ascExtendedCopyInformation      sense.ASC = 0x0020
	ascUnreachableCopyTarget        sense.ASC = 0x0804
	ascThirdPartyDeviceFailure      sense.ASC = 0x0D01
	ascCopyTargetNotReachable       sense.ASC = 0x0D02
	ascIncorrectCopyTargetType      sense.ASC = 0x0D03
	ascTooManyTargetDescriptors     sense.ASC = 0x2606
	ascUnsupportedTargetDescriptor  sense.ASC = 0x2607
	ascUnsupportedSegmentDescriptor sense.ASC = 0x2609
	ascUnexpectedInexactSegment     sense.ASC = 0x260A
	ascInlineDataLengthExceeded     sense.ASC = 0x260B

	ascInvalidOperationForCopySourceOrDestination sense.ASC = 0x260C

	ascNoAccessRights                sense.ASC = 0x2002
	ascOperationInProgress           sense.ASC = 0x0016
	ascTargetDataUnderrun            sense.ASC = 0x0D04
	ascTokenInvalid                  sense.ASC = 0x2300 // cause not reportable
	ascTokenUnsupportedType          sense.ASC = 0x2301
	ascTokenRemote                   sense.ASC = 0x2302
	ascTokenUnknown                  sense.ASC = 0x2304
	ascTokenCorrupt                  sense.ASC = 0x2305
	ascTokenRevoked                  sense.ASC = 0x2306
	ascTokenExpired                  sense.ASC = 0x2307
	ascTokenCancelled                sense.ASC = 0x2308
	ascTokenDeleted                  sense.ASC = 0x2309
	ascTokenInvalidLength            sense.ASC = 0x230A
	ascTooManySegmentDescriptors     sense.ASC = 0x2608
	ascCommandsClearedByDeviceServer sense.ASC = 0x2F02
	ascInsufficientRODResources      sense.ASC = 0x550C
	ascInsufficientRODTokens         sense.ASC = 0x550D
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
	sense *sense.Error
}

// illegal returns sense data with key ILLEGAL REQUEST.
func illegal(asc sense.ASC) *sense.Error { return sense.New(sense.KeyIllegalRequest, asc) }

// populateSense has the errors of OffloadRead.
var populateSense = []senseRow{
	{errRule, illegal(ascNoAccessRights)},
	{tokens.ErrTimeout, sense.InvalidFieldInParameterList(fieldInactivityTimeout, sense.WholeField)},
	{tokens.ErrUnsupportedType, sense.InvalidFieldInParameterList(fieldRODType, sense.WholeField)},
	{tokens.ErrNoResources, illegal(ascInsufficientRODTokens)},
	{blockdev.ErrNoSpace, illegal(ascInsufficientRODResources)},
	{blockdev.ErrRange, illegal(sense.ASCLBAOutOfRange)},
	{tokens.ErrTooLong, illegal(sense.ASCInvalidFieldInParameterList)},
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
	{tokens.ErrOffset, sense.InvalidFieldInParameterList(fieldOffsetIntoROD, sense.WholeField)},
	{blockdev.ErrRange, illegal(sense.ASCLBAOutOfRange)},
}

// senseOf looks up err in rows, and then among the errors of all commands of the
// logical unit.
func senseOf(lu *scsi.LogicalUnit, rows []senseRow, err error) *sense.Error {
	for _, row := range rows {
		if errors.Is(err, row.err) {
			return row.sense
		}
	}
	return lu.Sense(err)
}

// underrun returns the sense data of a copy that ended early after count blocks (SBC-3
// 4.28.2). Windows continues from there.
func underrun(count uint64) *sense.Error {
	key := sense.KeyCopyAborted
	if count == 0 {
		key = sense.KeyIllegalRequest
	}
	return sense.New(key, ascTargetDataUnderrun).WithInformation(count)
}
