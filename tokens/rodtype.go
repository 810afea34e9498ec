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

	// RODTypeHash, of the vendor specific types, is a token without a record: it
	// carries the digest of its bytes, and is good as long as the store has them
	// where they were.
	RODTypeHash RODType = 0xFFFFFFF0
	// RODTypeChecksum, of the vendor specific types, only proves what bytes are.
	RODTypeChecksum RODType = 0xFFFFFFF1
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
	case RODTypeHash:
		return "hash"
	case RODTypeChecksum:
		return "checksum"
	}
	return fmt.Sprintf("ROD type %08Xh", uint32(t))
}

// PointInTime reports whether a token of type t stands for its data as it was
// when the token was made: the only kind that POPULATE TOKEN may make (SBC-3
// 5.7).
func (t RODType) PointInTime() bool {
	switch t {
	case RODTypePointInTimeDefault, RODTypePointInTimeChangeVulnerable, RODTypePointInTimePersistent, RODTypePointInTimeAny:
		return true
	}
	return false
}

// Pinned reports whether a token of type t keeps its data as it was, wherever it came from,
// so that each use sees the same.
func (t RODType) Pinned() bool { return t.PointInTime() || t == RODTypeHash }

// VendorSpecific reports whether a token of type t is one of this package's own
// kinds, in the range that SPC-4 leaves to vendors.
func (t RODType) VendorSpecific() bool { return t == RODTypeHash || t == RODTypeChecksum }

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
	if t.holding() == nowhere || t == RODTypeHash {
		return 0, fmt.Errorf("%w: %v", ErrUnsupportedType, t)
	}
	return t, nil
}

// holding is where the data of a token is.
type holding uint8

const (
	nowhere           holding = iota // no such token is made or accepted
	inSnapshot                       // pinned
	inVolume                         // as the volume is when the token is used
	inUnchangedVolume                // in the volume until the next write to the ranges
	whereFound                       // in any volume, if the digest says so
)

func (t RODType) holding() holding {
	switch t {
	case RODTypePointInTimeDefault, RODTypePointInTimePersistent:
		return inSnapshot
	case RODTypeAccessUponReference:
		return inVolume
	case RODTypePointInTimeChangeVulnerable:
		return inUnchangedVolume
	case RODTypeHash:
		return whereFound
	}
	return nowhere
}

// known reports whether a manager like this one makes tokens of type t.
func (t RODType) known() bool { return t.holding() != nowhere || t == RODTypeChecksum }
