package clients

import (
	"encoding/binary"
	"math/rand/v2"
)

// damage breaks a PDU in one to three ways.
func damage(r *rand.Rand, b []byte) []byte {
	for range 1 + r.IntN(3) {
		b = damages[r.IntN(len(damages))](r, b)
	}
	return b
}

// damages are the ways to break a PDU of at least a header's length. Most keep
// its length as it is, so that what follows arrives as a header, too.
var damages = []func(r *rand.Rand, b []byte) []byte{
	// bits anywhere in the header
	func(r *rand.Rand, b []byte) []byte {
		b[r.IntN(headerLength)] ^= 1 << r.IntN(8)
		return b
	},
	// a byte of the header
	func(r *rand.Rand, b []byte) []byte {
		b[r.IntN(headerLength)] = byte(r.Uint32())
		return b
	},
	// a 32-bit field of the header at an edge of its range
	func(r *rand.Rand, b []byte) []byte {
		edges := []uint32{0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 511, 1 << 24}
		binary.BigEndian.PutUint32(b[4*(2+r.IntN(10)):], edges[r.IntN(len(edges))])
		return b
	},
	// DataSegmentLength
	func(r *rand.Rand, b []byte) []byte {
		n := []int{0, 1, 3, 4, len(b), 8192, 65537, 1 << 20, 1<<24 - 1, r.IntN(1 << 24)}[r.IntN(10)]
		b[5], b[6], b[7] = byte(n>>16), byte(n>>8), byte(n)
		return b
	},
	// TotalAHSLength, and AHSs that are what the data was
	func(r *rand.Rand, b []byte) []byte {
		b[4] = []byte{1, 2, 255, byte(r.Uint32())}[r.IntN(4)]
		return b
	},
	// an AHS that is really there, and odd
	func(r *rand.Rand, b []byte) []byte {
		ahs := []byte{0, byte(r.IntN(16)), byte(r.IntN(4)), 0, 0xff, 0xff, 0xff, 0xff}
		b[4] = 2
		return append(append(append([]byte{}, b[:headerLength]...), ahs...), b[headerLength:]...)
	},
	// opcode
	func(r *rand.Rand, b []byte) []byte {
		b[0] = byte(r.Uint32())
		return b
	},
	// flags and stages
	func(r *rand.Rand, b []byte) []byte {
		b[1] = byte(r.Uint32())
		return b
	},
	// CDB, or whatever stands there
	func(r *rand.Rand, b []byte) []byte {
		for range 1 + r.IntN(4) {
			b[32+r.IntN(16)] = byte(r.Uint32())
		}
		return b
	},
	// data: some bytes
	func(r *rand.Rand, b []byte) []byte {
		for range r.IntN(8) {
			if n := len(b) - headerLength; n > 0 {
				b[headerLength+r.IntN(n)] = byte(r.Uint32())
			}
		}
		return b
	},
	// data: text without an end, without '=', or all of it noise
	func(r *rand.Rand, b []byte) []byte {
		for i := headerLength; i < len(b); i++ {
			switch r.IntN(3) {
			case 0:
				b[i] = '='
			case 1:
				b[i] = 'A' + byte(i%26)
			}
		}
		return b
	},
	// cut short
	func(r *rand.Rand, b []byte) []byte {
		return b[:max(headerLength, r.IntN(len(b)+1))]
	},
	// followed by noise
	func(r *rand.Rand, b []byte) []byte {
		for range 4 * (1 + r.IntN(16)) {
			b = append(b, byte(r.Uint32()))
		}
		return b
	},
}
