package tokens

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/zeebo/blake3"
)

// TokenLength is the length in bytes of a ROD token.
const TokenLength = 512

// ManagementLength is the length in bytes of a ROD management token, the part
// of a token that REPORT ALL ROD TOKENS shows (SPC-4 r37 6.31).
const ManagementLength = 96

// rodTokenLength is the ROD TOKEN LENGTH field: the bytes after it.
const rodTokenLength = TokenLength - 8

// Token is a ROD token on the wire (SPC-4 r37 5.17.6.4). Its holder may use it, so it
// belongs in no log.
type Token [TokenLength]byte

// Byte offsets in a token. The extended ROD token data, from 256, is ours.
const (
	offType         = 0   // ROD TYPE
	offLength       = 6   // ROD TOKEN LENGTH
	offID           = 8   // COPY MANAGER ROD TOKEN IDENTIFIER
	offCreator      = 16  // CREATOR LOGICAL UNIT DESCRIPTOR, 32 bytes
	offBytes        = 48  // NUMBER OF BYTES REPRESENTED, 128 bits
	offReadCapacity = 96  // device type specific data
	offTarget       = 128 // TARGET DEVICE DESCRIPTOR, 128 bytes
	offMagic        = 256 // marks our extended data and its version
	offStore        = 264 // ID of the store that holds the data
	offName         = 280 // the token's 256-bit random name
	offRandom       = 312 // random
	offChecksum     = 476 // CRC-32C of all bytes before
	offMAC          = 480 // keyed BLAKE3 of all bytes before
)

// nameLength is the length of a token's secret: 256 bits.
const nameLength = offRandom - offName

// magic is "odx token, version 1". A token with other bytes there that does not name
// this store was made by another vendor's copy manager.
var magic = [8]byte{'o', 'd', 'x', 'R', 'O', 'D', 0, 1}

// ID is the COPY MANAGER ROD TOKEN IDENTIFIER: it is unique among live tokens and gives
// no right to use them.
type ID uint64

// String returns the identifier as 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText makes the identifier readable in a log of JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseID is the inverse of ID.String.
func ParseID(s string) (ID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 8 {
		return 0, fmt.Errorf("token identifier %q: want 16 hexadecimal digits", s)
	}
	return ID(binary.BigEndian.Uint64(b)), nil
}

// LU describes the logical unit on which a token was made.
type LU struct {
	// NAA is the 8 or 16 byte NAA designator of the logical unit. Empty: one
	// derived from the store's ID.
	NAA []byte
	// TargetName is the SCSI target device name, an iqn. Empty, or longer than
	// 123 bytes: an NAA designator takes its place.
	TargetName string
	// BlockLength is the logical block length in bytes.
	BlockLength int
	// ReadCapacity is bytes 8 to 31 of the READ CAPACITY(16) parameter data.
	ReadCapacity [24]byte
}

// fields is the readable content of a token.
type fields struct {
	rodType RODType
	id      ID
	lu      LU
	bytes   int64 // NUMBER OF BYTES REPRESENTED
	store   [16]byte
	name    [nameLength]byte
	random  [offChecksum - offRandom]byte
}

// encode returns f in the layout of a token; seal adds the MAC.
func (f *fields) encode() *Token {
	t := new(Token)
	be := binary.BigEndian
	be.PutUint32(t[offType:], uint32(f.rodType))
	be.PutUint16(t[offLength:], rodTokenLength)
	be.PutUint64(t[offID:], uint64(f.id))
	putCreator(t[offCreator:offBytes], &f.lu, f.store)
	be.PutUint64(t[offBytes+8:], uint64(f.bytes))
	copy(t[offReadCapacity:], f.lu.ReadCapacity[:])
	putTarget(t[offTarget:offMagic], f.lu.TargetName, f.store)
	copy(t[offMagic:], magic[:])
	copy(t[offStore:], f.store[:])
	copy(t[offName:], f.name[:])
	copy(t[offRandom:], f.random[:])
	be.PutUint32(t[offChecksum:], checksum(t))
	return t
}

// putCreator writes an identification CSCD descriptor (SPC-4 r37 6.4.6.4) with
// an NAA designator into the 32 bytes of p.
func putCreator(p []byte, lu *LU, store [16]byte) {
	naa := lu.NAA
	if len(naa) != 8 && len(naa) != 16 {
		local := localNAA(store[:])
		naa = local[:]
	}
	p[0] = 0xE4
	p[4] = 0x01 // code set: binary
	p[5] = 0x03 // association: logical unit; designator type: NAA
	p[7] = byte(len(naa))
	copy(p[8:28], naa)
	p[29], p[30], p[31] = byte(lu.BlockLength>>16), byte(lu.BlockLength>>8), byte(lu.BlockLength)
}

// putTarget writes the designation descriptor of the SCSI target device
// (SPC-4 r37 7.8.6.1, association 10b) into p.
func putTarget(p []byte, name string, store [16]byte) {
	const protocolISCSI, codeSetBinary, codeSetUTF8 = 0x50, 0x01, 0x03
	const pivTargetDevice, typeNAA, typeSCSIName = 0xA0, 0x03, 0x08
	// A SCSI name string ends in a null and fills a multiple of four bytes.
	n := (len(name) + 4) &^ 3
	if name == "" || n > len(p)-4 {
		naa := localNAA(append(store[:], name...))
		p[0], p[1], p[3] = protocolISCSI|codeSetBinary, pivTargetDevice|typeNAA, byte(len(naa))
		copy(p[4:], naa[:])
		return
	}
	p[0], p[1], p[3] = protocolISCSI|codeSetUTF8, pivTargetDevice|typeSCSIName, byte(n)
	copy(p[4:], name)
}

// localNAA returns a locally assigned NAA designator (NAA 3h) that depends on
// seed only.
func localNAA(seed []byte) [8]byte {
	sum := blake3.Sum256(seed)
	naa := [8]byte(sum[:8])
	naa[0] = 0x30 | naa[0]&0x0F
	return naa
}

// Type returns the ROD TYPE field.
func (t *Token) Type() RODType { return RODType(binary.BigEndian.Uint32(t[offType:])) }

// ID returns the COPY MANAGER ROD TOKEN IDENTIFIER field.
func (t *Token) ID() ID { return ID(binary.BigEndian.Uint64(t[offID:])) }

// Store returns the ID of the store that the token names, if it is one of this package: that
// of the server that made it.
func (t *Token) Store() [16]byte { return [16]byte(t[offStore:offName]) }

// name returns the token's secret.
func (t *Token) name() []byte { return t[offName:offRandom] }

// bytes returns the NUMBER OF BYTES REPRESENTED field.
func (t *Token) bytes() int64 {
	if be := binary.BigEndian; be.Uint64(t[offBytes:]) == 0 && be.Uint64(t[offBytes+8:]) <= math.MaxInt64 {
		return int64(be.Uint64(t[offBytes+8:]))
	}
	return 0 // not a token of this store
}

// setRandom replaces the random bytes.
func (t *Token) setRandom(p *[offChecksum - offRandom]byte) {
	copy(t[offRandom:], p[:])
	binary.BigEndian.PutUint32(t[offChecksum:], checksum(t))
}

// isZero reports whether t is the block device zero ROD token (SBC-3 4.28.4),
// which type and length alone identify.
func (t *Token) isZero() bool {
	return t.Type() == RODTypeBlockDeviceZero
}

// checkLength returns ErrInvalidLength unless the ROD TOKEN LENGTH is right.
func (t *Token) checkLength() error {
	if n := binary.BigEndian.Uint16(t[offLength:]); n != rodTokenLength {
		return fmt.Errorf("%w: ROD TOKEN LENGTH %d, want %d", ErrInvalidLength, n, rodTokenLength)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the value for offChecksum. It distinguishes a damaged token from one
// of another store, whose MAC cannot be checked here; it authenticates nothing.
func checksum(t *Token) uint32 { return crc32.Checksum(t[:offChecksum], castagnoli) }
