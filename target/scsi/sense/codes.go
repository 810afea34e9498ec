package sense

import "fmt"

// ASC is an additional sense code in the high byte with its qualifier (ASCQ)
// in the low byte (SPC-4 r37 annex F).
type ASC uint16

// Additional sense codes, named as in SPC-4.
const (
	ASCNone                                  ASC = 0x0000
	ASCLogicalUnitNotReady                   ASC = 0x0400
	ASCBecomingReady                         ASC = 0x0401
	ASCFormatInProgress                      ASC = 0x0404
	ASCAsymmetricAccessStateTransition       ASC = 0x040A
	ASCPortInStandbyState                    ASC = 0x040B
	ASCPortInUnavailableState                ASC = 0x040C
	ASCSanitizeInProgress                    ASC = 0x041B
	ASCInvalidFieldInCommandIU               ASC = 0x0E03
	ASCUnrecoveredReadError                  ASC = 0x1100
	ASCParameterListLengthError              ASC = 0x1A00
	ASCMiscompareDuringVerify                ASC = 0x1D00
	ASCInvalidCommandOperationCode           ASC = 0x2000
	ASCLBAOutOfRange                         ASC = 0x2100
	ASCInvalidFieldInCDB                     ASC = 0x2400
	ASCLogicalUnitNotSupported               ASC = 0x2500
	ASCInvalidFieldInParameterList           ASC = 0x2600
	ASCInvalidReleaseOfPersistentReservation ASC = 0x2604
	ASCWriteProtected                        ASC = 0x2700
	ASCSoftwareWriteProtected                ASC = 0x2702
	ASCSpaceAllocationFailed                 ASC = 0x2707
	ASCMediumMayHaveChanged                  ASC = 0x2800
	ASCPowerOnOrReset                        ASC = 0x2900
	ASCBusDeviceResetFunction                ASC = 0x2903
	ASCITNexusLossOccurred                   ASC = 0x2907
	ASCModeParametersChanged                 ASC = 0x2A01
	ASCReservationsPreempted                 ASC = 0x2A03
	ASCReservationsReleased                  ASC = 0x2A04
	ASCRegistrationsPreempted                ASC = 0x2A05
	ASCAsymmetricAccessStateChanged          ASC = 0x2A06
	ASCCapacityDataChanged                   ASC = 0x2A09
	ASCCommandTimeoutDuringProcessing        ASC = 0x2E02
	ASCCommandsClearedByOther                ASC = 0x2F00
	ASCMediumFormatCorrupted                 ASC = 0x3100
	ASCFormatCommandFailed                   ASC = 0x3101
	ASCSanitizeCommandFailed                 ASC = 0x3103
	ASCSoftThresholdReached                  ASC = 0x3807
	ASCSavingParametersNotSupported          ASC = 0x3900
	ASCInquiryDataChanged                    ASC = 0x3F03
	ASCReportedLUNsDataChanged               ASC = 0x3F0E
	ASCInternalTargetFailure                 ASC = 0x4400
	ASCInvalidMessageError                   ASC = 0x4900
	ASCInsufficientRegistrationResources     ASC = 0x5504
)

// String returns the code in the notation of the standards, "27h/07h".
func (a ASC) String() string { return fmt.Sprintf("%02Xh/%02Xh", byte(a>>8), byte(a)) }

// Key is the class of a condition (SPC-4 r37 4.5.6).
type Key byte

// Sense keys.
const (
	KeyNoSense        Key = 0x0
	KeyRecoveredError Key = 0x1
	KeyNotReady       Key = 0x2
	KeyMediumError    Key = 0x3
	KeyHardwareError  Key = 0x4
	KeyIllegalRequest Key = 0x5
	KeyUnitAttention  Key = 0x6
	KeyDataProtect    Key = 0x7
	KeyCopyAborted    Key = 0xA
	KeyAbortedCommand Key = 0xB
	KeyMiscompare     Key = 0xE
	KeyCompleted      Key = 0xF
)

var senseKeyNames = [16]string{
	"NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR", "ILLEGAL REQUEST",
	"UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND",
	"reserved", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED",
}

// String returns the standard's name of the key.
func (k Key) String() string { return senseKeyNames[k&0xF] }
