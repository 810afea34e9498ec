package tokens

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

// sealer authenticates the tokens of one store.
type sealer struct {
	store [16]byte
	key   [32]byte

	hashers sync.Pool // of *blake3.Hasher with key
}

// newName sets the random parts of a new token.
func newName(f *fields) {
	// crypto/rand.Read never fails (it ends the process instead).
	var id [8]byte
	rand.Read(id[:])
	f.id = ID(binary.BigEndian.Uint64(id[:]))
	rand.Read(f.name[:])
	rand.Read(f.random[:])
}

// seal completes a token.
func (s *sealer) seal(t *Token) {
	sum := s.mac(t)
	copy(t[offMAC:], sum[:])
}

// check returns nil if t is, byte for byte, a token that this store made. The order of
// its errors is the standard's (SPC-4 r37 5.17.6.5.2.3).
func (s *sealer) check(t *Token) error {
	if err := t.checkLength(); err != nil {
		return err
	}
	marked := [8]byte(t[offMagic:offStore]) == magic
	if t.Store() == s.store {
		mac := s.mac(t)
		if subtle.ConstantTimeCompare(mac[:], t[offMAC:]) != 1 {
			return fmt.Errorf("%w: its MAC is wrong", ErrCorrupt)
		}
	} else if marked && binary.BigEndian.Uint32(t[offChecksum:]) != checksum(t) {
		return fmt.Errorf("%w: its checksum is wrong", ErrCorrupt)
	} else if t[offCreator] != 0xE4 {
		return fmt.Errorf("%w: no creator logical unit descriptor", ErrCorrupt)
	}
	if !t.Type().known() {
		return fmt.Errorf("%w: %v", ErrUnsupportedType, t.Type())
	}
	if t.Store() != s.store {
		return ErrRemote
	}
	return nil
}

// mac returns the keyed hash of everything before it.
func (s *sealer) mac(t *Token) (sum [32]byte) {
	h, ok := s.hashers.Get().(*blake3.Hasher)
	if !ok {
		var err error
		if h, err = blake3.NewKeyed(s.key[:]); err != nil {
			panic(err) // only for a key that is not 32 bytes
		}
	}
	defer s.hashers.Put(h)
	h.Reset()
	h.Write(t[:offMAC])
	h.Sum(sum[:0])
	return sum
}
