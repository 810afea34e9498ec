package copymgr

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"odx/target/handover"
	"odx/target/scsi"
	"odx/target/scsi/sense"
	"odx/tokens"
)

// Operation codes and service actions of third-party copies (SPC-4 r37 tables
// 103 and 104).
const (
	opThirdPartyCopyOut = 0x83
	opThirdPartyCopyIn  = 0x84

	actionExtendedCopyLID1   = 0x00
	actionExtendedCopyLID4   = 0x01
	actionPopulateToken      = 0x10
	actionWriteUsingToken    = 0x11
	actionCopyOperationAbort = 0x1C

	actionReceiveCopyStatusLID1          = 0x00
	actionReceiveCopyDataLID1            = 0x01
	actionReceiveCopyOperatingParameters = 0x03
	actionReceiveCopyFailureDetails      = 0x04
	actionReceiveCopyStatusLID4          = 0x05
	actionReceiveCopyDataLID4            = 0x06
	actionReceiveRODTokenInformation     = 0x07
	actionReportAllRODTokens             = 0x08
)

// Names of the commands, for reports and logs.
const (
	nameExtendedCopyLID1    = "EXTENDED COPY(LID1)"
	nameExtendedCopyLID4    = "EXTENDED COPY(LID4)"
	namePopulateToken       = "POPULATE TOKEN"
	nameWriteUsingToken     = "WRITE USING TOKEN"
	nameCopyOperationAbort  = "COPY OPERATION ABORT"
	nameCopyStatusLID1      = "RECEIVE COPY STATUS(LID1)"
	nameCopyDataLID1        = "RECEIVE COPY DATA(LID1)"
	nameOperatingParameters = "RECEIVE COPY OPERATING PARAMETERS"
	nameFailureDetails      = "RECEIVE COPY FAILURE DETAILS(LID1)"
	nameCopyStatusLID4      = "RECEIVE COPY STATUS(LID4)"
	nameCopyDataLID4        = "RECEIVE COPY DATA(LID4)"
	nameRODTokenInformation = "RECEIVE ROD TOKEN INFORMATION"
	nameReportAllRODTokens  = "REPORT ALL ROD TOKENS"
)

// pageThirdPartyCopy is the Third-party Copy VPD page.
const pageThirdPartyCopy = 0x8F

// fieldListIdentifier is the offset of the list identifier in CDBs that refer to an
// operation.
const fieldListIdentifier = 2

// Recommended timeouts in seconds. Token commands end early, in less than a second;
// EXTENDED COPY copies all data that cannot be mapped.
const (
	tokenCommandTimeout = 30
	extendedCopyTimeout = 300
)

// logicalUnit is a logical unit with its state in the copy manager.
type logicalUnit struct {
	manager *Manager
	lu      *scsi.LogicalUnit
	volume  atomic.Pointer[string] // its name
	mapped  atomic.Bool            // it is in the store
	table   []scsi.Operation

	announced atomic.Pointer[announced]
}

// announced is what initiators learn from VPD page 8Fh.
type announced struct {
	limits copyLimits
	page   []byte
}

// limit adopts limits of tokens.
func (u *logicalUnit) limit(l tokens.Limits) {
	a := &announced{limits: newCopyLimits(u.lu.LogicalBlockLength(), u.mapped.Load(), l)}
	a.page = a.limits.thirdPartyCopyPage(u.table)
	u.announced.Store(a)
}

func (u *logicalUnit) limits() *copyLimits { return &u.announced.Load().limits }

// Install adds the third-party copy commands and VPD page 8Fh to a logical unit. volume
// is its name in token records and in copy rules. It belongs to the set-up, before
// commands arrive.
func (m *Manager) Install(lu *scsi.LogicalUnit, volume string) error {
	mapped := m.engine.Shares(lu.Volume())
	u := &logicalUnit{manager: m, lu: lu}
	u.volume.Store(&volume)
	u.mapped.Store(mapped)
	table := u.operationTable()
	u.table = table
	u.limit(m.tokens.Limits())
	for _, op := range table {
		if err := lu.Install(op.Usage[0], int(op.Usage[1]), op); err != nil {
			return fmt.Errorf("third-party copy on volume %s: %w", volume, err)
		}
	}
	for _, code := range [...]byte{opThirdPartyCopyOut, opThirdPartyCopyIn} {
		lu.OnRefusal(code, func(t *scsi.Task, err error) { u.refusedBefore(t, commandName(table, t.CDB()), err) })
	}
	lu.InstallVPD(pageThirdPartyCopy, func(*scsi.Nexus) []byte { return u.announced.Load().page })
	lu.OnReset(func() { m.operations.dropLU(lu, errReset) })
	lu.OnPreemptAndAbort(func(preempted []scsi.NexusID) { m.operations.preempt(lu, preempted) })
	lu.OnNexusLoss(func(n *scsi.Nexus) { m.operations.dropNexus(owner{lu, n}) })
	lu.OnSuspend(func(ctx context.Context, n *scsi.Nexus, h *handover.Unit) { m.suspend(ctx, owner{lu, n}, h) })
	lu.OnContinue(u.restore)
	m.mu.Lock()
	m.units = append(m.units, u)
	m.mu.Unlock()
	if !mapped {
		m.log.WithField("volume", volume).Info("copy offload without mapping: volume is not in the extent store")
	}
	return nil
}

// Remove takes a logical unit, to which no command comes any more, out of what EXTENDED COPY
// reaches, and aborts the copies that access it. It returns when no data of them moves.
func (m *Manager) Remove(lu *scsi.LogicalUnit) {
	m.mu.Lock()
	m.units = slices.DeleteFunc(m.units, func(u *logicalUnit) bool { return u.lu == lu })
	m.mu.Unlock()
	m.operations.removeLU(lu)
}

// commandName returns the standard's name of the command of a CDB, or else its
// operation code and service action.
func commandName(table []scsi.Operation, cdb []byte) string {
	if len(cdb) < 2 {
		return "third-party copy command without service action"
	}
	for _, op := range table {
		if op.Usage[0] == cdb[0] && op.Usage[1] == cdb[1]&0x1F {
			return op.Name
		}
	}
	return fmt.Sprintf("operation code %02Xh, service action %02Xh", cdb[0], cdb[1]&0x1F)
}

// refusedBefore counts a command that the logical unit ended before its execution. A
// unit attention is not a refusal: the initiator sends the command again.
func (u *logicalUnit) refusedBefore(t *scsi.Task, name string, err error) {
	status, se := u.lu.Status(err)
	if se != nil && se.Key == sense.KeyUnitAttention {
		return
	}
	if se == nil {
		u.manager.refuseStatus(u.originOf(t, name), status, err)
		return
	}
	u.manager.refuse(u.originOf(t, name), se, err)
}

// operationTable lists the commands with their CDB usage, by operation code and service
// action. The right to write is checked during execution, so that a refusal is recorded
// like any other.
func (u *logicalUnit) operationTable() []scsi.Operation {
	return append(u.originatingCommands(), u.retrievingCommands()...)
}

const naca = 0x04 // of the CONTROL byte

func (u *logicalUnit) originatingCommands() []scsi.Operation {
	extended := func(action byte) []byte {
		return []byte{opThirdPartyCopyOut, action, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
	}
	byToken := func(action byte) []byte {
		return []byte{opThirdPartyCopyOut, action, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
	}
	return []scsi.Operation{
		{Name: nameExtendedCopyLID1, Usage: extended(actionExtendedCopyLID1), Kind: scsi.KindCopy, Access: scsi.AccessWrite, Partial: true,
			Prepare: prepareParameterList, Execute: u.executeExtendedCopyLID1, RecommendedTimeout: extendedCopyTimeout},
		{Name: nameExtendedCopyLID4, Usage: extended(actionExtendedCopyLID4), Kind: scsi.KindCopy, Access: scsi.AccessWrite, Partial: true,
			Prepare: prepareParameterList, Execute: u.executeExtendedCopyLID4, RecommendedTimeout: extendedCopyTimeout},
		{Name: namePopulateToken, Usage: byToken(actionPopulateToken), Kind: scsi.KindCopy, Access: scsi.AccessRead, Medium: true, Partial: true,
			Prepare: prepareParameterList, Execute: u.executePopulateToken, RecommendedTimeout: tokenCommandTimeout},
		{Name: nameWriteUsingToken, Usage: byToken(actionWriteUsingToken), Kind: scsi.KindCopy, Access: scsi.AccessWrite, Medium: true, Partial: true,
			Prepare: prepareParameterList, Execute: u.executeWriteUsingToken, RecommendedTimeout: tokenCommandTimeout},
		{Name: nameCopyOperationAbort, Access: scsi.AccessAlways,
			Usage:   []byte{opThirdPartyCopyOut, actionCopyOperationAbort, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, naca},
			Execute: u.executeCopyOperationAbort, RecommendedTimeout: tokenCommandTimeout},
	}
}

func (u *logicalUnit) retrievingCommands() []scsi.Operation {
	// The list identifier is the first idLength bytes after the service action.
	usage := func(action byte, idLength int) []byte {
		cdb := []byte{opThirdPartyCopyIn, action, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
		for i := range idLength {
			cdb[fieldListIdentifier+i] = 0xFF
		}
		return cdb
	}
	return []scsi.Operation{
		{Name: nameCopyStatusLID1, Usage: usage(actionReceiveCopyStatusLID1, 1), Execute: u.executeReceiveCopyStatusLID1},
		{Name: nameCopyDataLID1, Usage: usage(actionReceiveCopyDataLID1, 1), Execute: u.executeReceiveCopyDataLID1},
		{Name: nameOperatingParameters, Usage: usage(actionReceiveCopyOperatingParameters, 0), Execute: u.executeReceiveCopyOperatingParameters},
		{Name: nameFailureDetails, Usage: usage(actionReceiveCopyFailureDetails, 1), Execute: u.executeReceiveCopyFailureDetails},
		{Name: nameCopyStatusLID4, Usage: usage(actionReceiveCopyStatusLID4, 4), Execute: u.executeReceiveCopyStatusLID4},
		{Name: nameCopyDataLID4, Usage: usage(actionReceiveCopyDataLID4, 4), Execute: u.executeReceiveCopyDataLID4},
		{Name: nameRODTokenInformation, Usage: usage(actionReceiveRODTokenInformation, 4), Execute: u.executeReceiveRODTokenInformation},
		{Name: nameReportAllRODTokens, Usage: usage(actionReportAllRODTokens, 0), Prepare: u.prepareReportAllRODTokens, Execute: u.executeReportAllRODTokens},
	}
}

// parameterListLength returns the PARAMETER LIST LENGTH or ALLOCATION LENGTH field.
func parameterListLength(cdb []byte) uint32 { return binary.BigEndian.Uint32(cdb[10:]) }

// prepareParameterList requests the parameter list, unless it exceeds the maximum
// length: then nothing is fetched, and Execute returns the reason.
func prepareParameterList(t *scsi.Task) error {
	if n := parameterListLength(t.CDB()); n <= maxParameterListLength {
		t.Wanted = n
	}
	return nil
}
