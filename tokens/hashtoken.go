package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

// maxCandidates bounds the objects that are searched for the bytes of a hash token.
const maxCandidates = 8

// findHash returns an entry, in none of the manager's tables, for a genuine hash token,
// or why the token cannot be used. m.mu is held.
func (m *Manager) findHash(t *Token) (*entry, error) {
	if ts, ok := m.ended.byID[t.ID()]; ok {
		return nil, ts.Reason.err()
	}
	var sealed [locatorLength]byte
	copy(sealed[:], t[offRandom:offChecksum])
	m.sealer.maskLocator(t, &sealed)
	l, err := decodeLocator(&sealed, t.bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !time.Now().Before(l.expires) {
		return nil, ErrExpired
	}
	e := newEntry(t.ID(), record{Type: RODTypeHash, Name: t.name(), Length: t.bytes(), Volume: l.volume[:], Ranges: l.ranges})
	copy(e.digest[:], t.name())
	e.located = l
	e.deadline = l.expires
	return e, nil
}

// admitHash is admit for a hash token.
func (m *Manager) admitHash(l *locator, who Requester) error {
	if who == (Requester{}) || l.access == forAnyone {
		return nil
	}
	if l.access == forInitiator && who.Initiator != "" && l.who == nameHash(who.Initiator) {
		return nil
	}
	if l.access == forGroup {
		for _, g := range m.policy().Groups {
			if nameHash(g.Name) == l.who && slices.ContainsFunc(g.Initiators, func(p Pattern) bool { return p.Matches(who.Initiator) }) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: initiator %s", ErrAccess, who.Initiator)
}

// openHashed opens the bytes of a hash token: where they were, or at the same place of
// another object, such as a clone or a snapshot. ErrCancelled when the digest of none
// of these matches.
func (m *Manager) openHashed(ctx context.Context, e *entry) (offload.Snapshot, error) {
	origin, err := m.store.ObjectByID(e.located.volume)
	if err != nil && !errors.Is(err, backstore.ErrNotFound) {
		return nil, err
	}
	candidates := m.store.Objects()
	if err == nil {
		candidates = slices.DeleteFunc(candidates, func(s offload.Object) bool { return s.ID() == origin.ID() })
		candidates = append([]offload.Object{origin}, candidates...)
	}
	for _, object := range candidates[:min(len(candidates), maxCandidates)] {
		s, err := m.engine.Transient(ctx, object.Snapshot, e.rec.Ranges)
		if errors.Is(err, blockdev.ErrRange) || errors.Is(err, backstore.ErrNotFound) {
			continue // it is smaller, or was deleted since
		}
		if err != nil {
			return nil, err
		}
		digest, err := s.Digest(ctx, 0, s.Length())
		if err == nil && digest == e.digest {
			return s, nil
		}
		s.Release()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: its bytes were deleted or overwritten", ErrCancelled)
}

// endHash stores a tombstone for a hash token. Tombstones are dropped when their number
// is at its limit; the token's expiry still holds.
func (m *Manager) endHash(ctx context.Context, id ID, reason Reason) error {
	ts := tombstone{Reason: reason, Ended: time.Now().UTC()}
	m.mu.Lock()
	forgotten := m.ended.surplus()
	m.mu.Unlock()
	recs := []backstore.Record{{Key: tokenKey(tombstonePrefix, id), Value: ts.encode()}}
	for _, old := range forgotten {
		recs = append(recs, deletion(tombstonePrefix, old))
	}
	if err := m.store.PutRecords(ctx, recs...); err != nil {
		return fmt.Errorf("end token %v (%v): %w", id, reason, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended.add(id, ts, forgotten)
	m.countEnd(nil, ts)
	return nil
}

// DeleteToken ends the token t for reason, as Delete does. Only this way ends a hash
// token, of which the manager has no record.
func (m *Manager) DeleteToken(ctx context.Context, t *Token, reason Reason) error {
	h, err := m.resolve(t)
	if err != nil {
		return fmt.Errorf("delete token: %w", err)
	}
	return h.Delete(ctx, reason)
}

// Verdict is what a verification found.
type Verdict uint8

// The verdicts.
const (
	Mismatch Verdict = iota
	Match
)

// String returns the verdict as a word.
func (v Verdict) String() string {
	if v == Match {
		return "match"
	}
	return "mismatch"
}

// Verify compares ranges of dst, as they are now, with the checksum token t: a
// Match proves that they hold exactly the bytes that the token was made of. Ranges
// of a volume of the store are compared by the fingerprints of their extents, and
// what has none, or lies elsewhere, by reading it. They have to hold as many
// bytes as the token stands for; what is more, as in the last block of an offload
// write, does not count.
//
// Errors: those that refuse a token, blockdev.ErrRange, ErrTooLong, and those of the store
// and the volume.
func (m *Manager) Verify(ctx context.Context, t *Token, dst offload.Destination, ranges []blockdev.Range) (Verdict, error) {
	v, err := m.verify(ctx, t, dst, ranges)
	if err != nil {
		m.refused(err)
	}
	return v, err
}

func (m *Manager) verify(ctx context.Context, t *Token, dst offload.Destination, ranges []blockdev.Range) (Verdict, error) {
	if err := m.sealer.check(t); err != nil {
		return Mismatch, err
	}
	if t.Type() != RODTypeChecksum {
		return Mismatch, fmt.Errorf("%w: %v is not a checksum token", ErrUnsupportedType, t.Type())
	}
	total, err := blockdev.Sum(ranges, dst.Volume.Size(), dst.BlockLength)
	if err != nil {
		return Mismatch, err
	}
	length := t.bytes()
	if total < length {
		return Mismatch, fmt.Errorf("%w: %d bytes, the checksum is of %d", blockdev.ErrRange, total, length)
	}
	var digest [32]byte
	if object, shared := m.store.Object(dst.Volume); shared {
		s, err := m.engine.Transient(ctx, object.Snapshot, ranges)
		if err != nil {
			return Mismatch, err
		}
		defer s.Release()
		digest, err = s.Digest(ctx, 0, length)
		if err != nil {
			return Mismatch, err
		}
	} else if digest, err = m.digestOf(ctx, dst, ranges, length); err != nil {
		return Mismatch, err
	}
	if digest == [32]byte(t.name()) {
		return Match, nil
	}
	return Mismatch, nil
}

// digestOf reads length bytes of ranges of a volume outside the store.
func (m *Manager) digestOf(ctx context.Context, dst offload.Destination, ranges []blockdev.Range, length int64) ([32]byte, error) {
	d := m.store.NewDigest()
	for _, r := range ranges {
		for r.Length > 0 && length > 0 {
			err := m.engine.WithBuffer(ctx, func(ctx context.Context, buf []byte) error {
				p := buf[:min(r.Length, int64(len(buf)))]
				if err := dst.Volume.ReadAt(ctx, p, r.Offset); err != nil {
					return err
				}
				d.Write(p[:min(int64(len(p)), length)])
				length -= min(int64(len(p)), length)
				r.Offset, r.Length = r.Offset+int64(len(p)), r.Length-int64(len(p))
				return nil
			})
			if err != nil {
				return [32]byte{}, err
			}
		}
	}
	return d.Sum(), nil
}
