package copymgr

import (
	"encoding/binary"
	"fmt"

	"odx/target/scsi"
)

// Operation codes and service actions of third-party copies (SPC-4 r37 table 103).
const (
	opThirdPartyCopyOut = 0x83
	opThirdPartyCopyIn  = 0x84

	actionExtendedCopyLID1           = 0x00
	actionExtendedCopyLID4           = 0x01
	actionPopulateToken              = 0x10
	actionWriteUsingToken            = 0x11
	actionCopyOperationAbort         = 0x1C
	actionReceiveCopyStatus          = 0x05
	actionReceiveRODTokenInformation = 0x07
)

// Names of the commands, for reports and logs.
const (
	namePopulateToken              = "POPULATE TOKEN"
	nameWriteUsingToken            = "WRITE USING TOKEN"
	nameCopyOperationAbort         = "COPY OPERATION ABORT"
	nameReceiveCopyStatus          = "RECEIVE COPY STATUS(LID4)"
	nameReceiveRODTokenInformation = "RECEIVE ROD TOKEN INFORMATION"
)

// pageThirdPartyCopy is the Third-party Copy VPD page.
const pageThirdPartyCopy = 0x8F

// copyTimeout is the recommended timeout of a copy command in seconds. Each one
// stops early rather than take much longer than a second.
const copyTimeout = 30

// unit is a logical unit with what the copy manager knows of it.
type unit struct {
	*Manager
	lu     *scsi.LogicalUnit
	volume string
	limits copyLimits
}

// Install gives the third-party copy commands and VPD page 8Fh to a logical
// unit, whose volume goes by a name in what is told of tokens. It belongs to the
// set-up, before commands arrive.
func (m *Manager) Install(lu *scsi.LogicalUnit, volume string) error {
	mapped := m.tokens.Shares(lu.Volume())
	u := &unit{
		Manager: m, lu: lu, volume: volume,
		limits: newCopyLimits(lu.LogicalBlockLength(), mapped, m.tokens.Limits()),
	}
	for _, op := range u.operationTable() {
		if err := lu.Install(op.Usage[0], int(op.Usage[1]), op); err != nil {
			return fmt.Errorf("third-party copy on volume %s: %w", volume, err)
		}
	}
	page := u.limits.thirdPartyCopyPage()
	lu.InstallVPD(pageThirdPartyCopy, func(*scsi.Nexus) []byte { return page })
	lu.OnReset(func() { m.operations.dropLU(lu, errReset) })
	lu.OnNexusLoss(func(n *scsi.Nexus) { m.operations.dropNexus(owner{lu, n}) })
	if !mapped {
		m.log.WithField("volume", volume).Info("token copies from and to this volume move its data: it is not in the extent store")
	}
	return nil
}

// operationTable lists the commands with their CDB usage. Whether WRITE USING
// TOKEN may write is checked when it runs, so that its refusal is on record
// like any other.
func (u *unit) operationTable() []scsi.Operation {
	const naca = 0x04
	out := func(action byte) []byte {
		return []byte{opThirdPartyCopyOut, action, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
	}
	in := func(action byte) []byte {
		return []byte{opThirdPartyCopyIn, action, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
	}
	return []scsi.Operation{
		{Name: namePopulateToken, Usage: out(actionPopulateToken), Access: scsi.AccessRead, Medium: true,
			Prepare: prepareParameterList, Execute: u.executePopulateToken, RecommendedTimeout: copyTimeout},
		{Name: nameWriteUsingToken, Usage: out(actionWriteUsingToken), Access: scsi.AccessWrite, Medium: true,
			Prepare: prepareParameterList, Execute: u.executeWriteUsingToken, RecommendedTimeout: copyTimeout},
		{Name: nameCopyOperationAbort, Access: scsi.AccessAlways,
			Usage:   []byte{opThirdPartyCopyOut, actionCopyOperationAbort, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, naca},
			Execute: u.executeCopyOperationAbort, RecommendedTimeout: copyTimeout},
		{Name: nameReceiveCopyStatus, Usage: in(actionReceiveCopyStatus), Access: scsi.AccessAlways,
			Execute: u.executeReceiveCopyStatus},
		{Name: nameReceiveRODTokenInformation, Usage: in(actionReceiveRODTokenInformation), Access: scsi.AccessAlways,
			Execute: u.executeReceiveRODTokenInformation},
	}
}

// parameterListLength is the PARAMETER LIST LENGTH or ALLOCATION LENGTH field.
func parameterListLength(cdb []byte) uint32 { return binary.BigEndian.Uint32(cdb[10:]) }

// prepareParameterList asks for the parameter list, unless it is longer than
// one can be: then there is nothing to fetch, and Execute says why.
func prepareParameterList(t *scsi.Task) error {
	if n := parameterListLength(t.CDB()); n <= maxParameterListLength {
		t.Wanted = n
	}
	return nil
}
