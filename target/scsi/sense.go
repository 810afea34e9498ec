package scsi

import "odx/target/scsi/sense"

// The sense data of package sense, under the names that importers of the device server
// use.
type (
	// ASC is an additional sense code with its qualifier.
	ASC = sense.ASC
	// SenseKey is the class of a condition.
	SenseKey = sense.Key
	// SenseFormat is the layout of sense data.
	SenseFormat = sense.Format
	// SenseError is the error that ends a command with CHECK CONDITION status.
	SenseError = sense.Error
	// ForwardedSense is the status and sense data of a logical unit of a third-party
	// copy.
	ForwardedSense = sense.Forwarded
)

// Sense data formats.
const (
	FixedSense      = sense.Fixed
	DescriptorSense = sense.Descriptor
)

// WholeField makes a field pointer identify a byte without a bit.
const WholeField = sense.WholeField

// NewSense is sense.New.
func NewSense(key SenseKey, asc ASC) *SenseError { return sense.New(key, asc) }

// InvalidFieldInCDB is sense.InvalidFieldInCDB.
func InvalidFieldInCDB(byteIndex, bit int) *SenseError {
	return sense.InvalidFieldInCDB(byteIndex, bit)
}

// InvalidFieldInParameterList is sense.InvalidFieldInParameterList.
func InvalidFieldInParameterList(byteIndex, bit int) *SenseError {
	return sense.InvalidFieldInParameterList(byteIndex, bit)
}

// Additional sense codes.
const (
	ASCNone                                  = sense.ASCNone
	ASCLogicalUnitNotReady                   = sense.ASCLogicalUnitNotReady
	ASCFormatInProgress                      = sense.ASCFormatInProgress
	ASCPortInStandbyState                    = sense.ASCPortInStandbyState
	ASCPortInUnavailableState                = sense.ASCPortInUnavailableState
	ASCSanitizeInProgress                    = sense.ASCSanitizeInProgress
	ASCInvalidFieldInCommandIU               = sense.ASCInvalidFieldInCommandIU
	ASCUnrecoveredReadError                  = sense.ASCUnrecoveredReadError
	ASCParameterListLengthError              = sense.ASCParameterListLengthError
	ASCMiscompareDuringVerify                = sense.ASCMiscompareDuringVerify
	ASCInvalidCommandOperationCode           = sense.ASCInvalidCommandOperationCode
	ASCLBAOutOfRange                         = sense.ASCLBAOutOfRange
	ASCInvalidFieldInCDB                     = sense.ASCInvalidFieldInCDB
	ASCLogicalUnitNotSupported               = sense.ASCLogicalUnitNotSupported
	ASCInvalidFieldInParameterList           = sense.ASCInvalidFieldInParameterList
	ASCInvalidReleaseOfPersistentReservation = sense.ASCInvalidReleaseOfPersistentReservation
	ASCWriteProtected                        = sense.ASCWriteProtected
	ASCSoftwareWriteProtected                = sense.ASCSoftwareWriteProtected
	ASCSpaceAllocationFailed                 = sense.ASCSpaceAllocationFailed
	ASCPowerOnOrReset                        = sense.ASCPowerOnOrReset
	ASCBusDeviceResetFunction                = sense.ASCBusDeviceResetFunction
	ASCITNexusLossOccurred                   = sense.ASCITNexusLossOccurred
	ASCModeParametersChanged                 = sense.ASCModeParametersChanged
	ASCReservationsPreempted                 = sense.ASCReservationsPreempted
	ASCReservationsReleased                  = sense.ASCReservationsReleased
	ASCRegistrationsPreempted                = sense.ASCRegistrationsPreempted
	ASCAsymmetricAccessStateChanged          = sense.ASCAsymmetricAccessStateChanged
	ASCCapacityDataChanged                   = sense.ASCCapacityDataChanged
	ASCCommandTimeoutDuringProcessing        = sense.ASCCommandTimeoutDuringProcessing
	ASCCommandsClearedByOther                = sense.ASCCommandsClearedByOther
	ASCMediumFormatCorrupted                 = sense.ASCMediumFormatCorrupted
	ASCFormatCommandFailed                   = sense.ASCFormatCommandFailed
	ASCSanitizeCommandFailed                 = sense.ASCSanitizeCommandFailed
	ASCSoftThresholdReached                  = sense.ASCSoftThresholdReached
	ASCSavingParametersNotSupported          = sense.ASCSavingParametersNotSupported
	ASCInquiryDataChanged                    = sense.ASCInquiryDataChanged
	ASCReportedLUNsDataChanged               = sense.ASCReportedLUNsDataChanged
	ASCInternalTargetFailure                 = sense.ASCInternalTargetFailure
	ASCInvalidMessageError                   = sense.ASCInvalidMessageError
	ASCInsufficientRegistrationResources     = sense.ASCInsufficientRegistrationResources
)

// Sense keys.
const (
	KeyNoSense        = sense.KeyNoSense
	KeyRecoveredError = sense.KeyRecoveredError
	KeyNotReady       = sense.KeyNotReady
	KeyMediumError    = sense.KeyMediumError
	KeyHardwareError  = sense.KeyHardwareError
	KeyIllegalRequest = sense.KeyIllegalRequest
	KeyUnitAttention  = sense.KeyUnitAttention
	KeyDataProtect    = sense.KeyDataProtect
	KeyCopyAborted    = sense.KeyCopyAborted
	KeyAbortedCommand = sense.KeyAbortedCommand
	KeyMiscompare     = sense.KeyMiscompare
	KeyCompleted      = sense.KeyCompleted
)
