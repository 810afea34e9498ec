package tokens

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/blake3"

	"odx/blockdev"
)

// A hash token has no record: everything about it is in the token. The place of
// its secret name holds the digest of its bytes, that of its random bytes the
// locator, which says where to look for them. The locator is encrypted, so that a
// token shows no block addresses, and sealed like all of the token.
//
// Its layout: volume ID 16, expiry 8 (Unix seconds), kind of access 1, hash of
// the initiator's or the group's name 16, number of ranges 1, ranges of 16
// (offset 8, length 8), zeros.
type locator struct {
	volume  [16]byte
	expires time.Time
	access  accessKind
	who     [16]byte
	ranges  []blockdev.Range
}

const (
	locatorLength = offChecksum - offRandom
	locatorHead   = 16 + 8 + 1 + 16 + 1
	// maxHashRanges is how many ranges a hash token has room for.
	maxHashRanges = (locatorLength - locatorHead) / 16
)

// accessKind is an Access as a hash token carries it.
type accessKind uint8

const (
	forAnyone accessKind = iota
	forInitiator
	forGroup
)

var errLocator = errors.New("malformed locator")

// setAccess notes who may use the token; names are kept as hashes.
func (l *locator) setAccess(a Access, creator string) {
	name, isGroup := a.group()
	switch {
	case isGroup:
		l.access, l.who = forGroup, nameHash(name)
	case a == AccessInitiator:
		l.access, l.who = forInitiator, nameHash(creator)
	}
}

func nameHash(name string) [16]byte {
	sum := blake3.Sum256([]byte(name))
	return [16]byte(sum[:16])
}

func (l *locator) encode() (p [locatorLength]byte) {
	copy(p[:], l.volume[:])
	be := binary.BigEndian
	be.PutUint64(p[16:], uint64(l.expires.Unix()))
	p[24] = byte(l.access)
	copy(p[25:41], l.who[:])
	p[41] = byte(len(l.ranges))
	for i, r := range l.ranges {
		be.PutUint64(p[locatorHead+16*i:], uint64(r.Offset))
		be.PutUint64(p[locatorHead+16*i+8:], uint64(r.Length))
	}
	return p
}

// decodeLocator reads a locator of ranges with so many bytes together.
func decodeLocator(p *[locatorLength]byte, bytes int64) (*locator, error) {
	be := binary.BigEndian
	l := &locator{volume: [16]byte(p[:16]), expires: time.Unix(int64(be.Uint64(p[16:])), 0), access: accessKind(p[24]), who: [16]byte(p[25:41])}
	n := int(p[41])
	if l.access > forGroup || n > maxHashRanges {
		return nil, fmt.Errorf("%w: access %d, %d ranges", errLocator, l.access, n)
	}
	var total int64
	for i := range n {
		r := blockdev.Range{Offset: int64(be.Uint64(p[locatorHead+16*i:])), Length: int64(be.Uint64(p[locatorHead+16*i+8:]))}
		if r.Offset < 0 || r.Length < 0 || r.Offset+r.Length < r.Offset || total+r.Length < total {
			return nil, fmt.Errorf("%w: %d bytes at %d", errLocator, r.Length, r.Offset)
		}
		total += r.Length
		l.ranges = append(l.ranges, r)
	}
	if total != bytes || total == 0 {
		return nil, fmt.Errorf("%w: %d bytes in ranges of %d", errLocator, bytes, total)
	}
	return l, nil
}

// maskLocator encrypts a locator for the token t, or decrypts it: all that comes
// before it in the token, a random identifier among it, gives the key stream.
func (s *sealer) maskLocator(t *Token, p *[locatorLength]byte) {
	var key [32]byte
	blake3.DeriveKey("odx 2026-11-22 locator of a hash token", s.key[:], key[:])
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes
	}
	h.Write(t[:offRandom])
	var stream [locatorLength]byte
	h.Digest().Read(stream[:]) // never fails
	for i := range p {
		p[i] ^= stream[i]
	}
}
