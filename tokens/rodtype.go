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

// concrete returns the type of the token that OffloadRead makes when asked for
// t; a request that leaves the choice open gets the default point in time copy.
func (t RODType) concrete() (RODType, error) {
	switch t {
	case RODTypeInternal, RODTypePointInTimeAny, RODTypePointInTimeDefault:
		return RODTypePointInTimeDefault, nil
	}
	return 0, fmt.Errorf("%w: %v", ErrUnsupportedType, t)
}

// usable reports whether a token of type t can stand for data that this
// manager holds.
func (t RODType) usable() bool { return t == RODTypePointInTimeDefault }
