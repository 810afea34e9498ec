package tokens

import "fmt"

// RODType is the ROD TYPE field (SPC-4 r37 table 107, SBC-3 table 30).
type RODType uint32

// The ROD types that this package knows by name.
const (
	RODTypeInternal                    RODType = 0x00000000
	RODTypeAccessUponReference         RODType = 0x00010000
	RODTypePointInTimeDefault          RODType = 0x00800000
	RODTypePointInTimeChangeVulnerable RODType = 0x00800001
	RODTypePointInTimePersistent       RODType = 0x00800002
	RODTypePointInTimeAny              RODType = 0x0080FFFF
	RODTypeBlockDeviceZero             RODType = 0xFFFF0001
)

// String returns the standard's name of the type.
func (t RODType) String() string {
	switch t {
	case RODTypeInternal:
		return "copy manager internal"
	case RODTypeAccessUponReference:
		return "access upon reference"
	case RODTypePointInTimeDefault:
		return "point in time copy - default"
	case RODTypePointInTimeChangeVulnerable:
		return "point in time copy - change vulnerable"
	case RODTypePointInTimePersistent:
		return "point in time copy - persistent"
	case RODTypePointInTimeAny:
		return "point in time copy - any"
	case RODTypeBlockDeviceZero:
		return "block device zero"
	}
	return fmt.Sprintf("ROD type %08Xh", uint32(t))
}

// PointInTime reports whether a token of type t stands for its data as it was
// when the token was made: the only kind that POPULATE TOKEN may make (SBC-3
// 5.11).
func (t RODType) PointInTime() bool {
	switch t {
	case RODTypePointInTimeDefault, RODTypePointInTimeChangeVulnerable, RODTypePointInTimePersistent, RODTypePointInTimeAny:
		return true
	}
	return false
}

// expires reports whether a token of type t ends when it was not used for its
// inactivity timeout.
func (t RODType) expires() bool { return t != RODTypePointInTimePersistent }

// concrete returns the type of the token that OffloadRead makes when asked for
// t; a request that leaves the choice open gets the default point in time copy.
func (t RODType) concrete() (RODType, error) {
	switch t {
	case RODTypeInternal, RODTypePointInTimeAny:
		return RODTypePointInTimeDefault, nil
	}
	if t.holding() == nowhere {
		return 0, fmt.Errorf("%w: %v", ErrUnsupportedType, t)
	}
	return t, nil
}

// holding is where the data is that a token stands for.
type holding uint8

const (
	nowhere           holding = iota // the manager makes and takes no such token
	inSnapshot                       // pinned
	inVolume                         // as the volume is when the token is used
	inUnchangedVolume                // in the volume until somebody writes there
)

func (t RODType) holding() holding {
	switch t {
	case RODTypePointInTimeDefault, RODTypePointInTimePersistent:
		return inSnapshot
	case RODTypeAccessUponReference:
		return inVolume
	case RODTypePointInTimeChangeVulnerable:
		return inUnchangedVolume
	}
	return nowhere
}

// usable reports whether a token of type t can stand for data that this
// manager knows of.
func (t RODType) usable() bool { return t.holding() != nowhere }
