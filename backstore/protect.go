package backstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"odx/backstore/record"
)

// A protection is a record by which something else needs a volume or a file: a replica on
// another server, for example. As records are in one order with volumes, it is there from
// the step on that makes it needed, also for a program that opens the store later.

// protectPrefix begins the keys of protections, and protectVersion is their version. The
// identity of the volume follows in hexadecimal, then the owner.
const (
	protectPrefix  = "store/protect/"
	protectVersion = 1
)

// Protection says why a volume or a file may not be deleted.
type Protection struct {
	// By says to people who needs it.
	By string
	// Frozen: it may not be written to either. Reads, snapshots and Replace go on.
	Frozen bool
}

// ErrProtected is what every *ProtectedError is.
var ErrProtected = errors.New("needed by something else")

// ProtectedError is the error of a change that a protection forbids. Where the volume is
// frozen, it wraps ErrReadOnly.
type ProtectedError struct {
	Object string // "volume NAME" or "file NAME"
	Protection
}

func (e *ProtectedError) Error() string {
	if e.Frozen {
		return fmt.Sprintf("%s: %v, because it is needed by %s", e.Object, ErrReadOnly, e.By)
	}
	return fmt.Sprintf("%s is needed by %s", e.Object, e.By)
}

// Is makes it ErrProtected, and for a frozen volume ErrReadOnly.
func (e *ProtectedError) Is(target error) bool {
	return target == ErrProtected || e.Frozen && target == ErrReadOnly
}

// protectRecord is durable.
type protectRecord struct {
	Version int    `json:"version"`
	By      string `json:"by"`
	Frozen  bool   `json:"frozen,omitempty"`
}

// protectKey is the key of a protection of the volume.
func (v *Volume) protectKey(owner string) []byte {
	return fmt.Appendf(nil, "%s%x/%s", protectPrefix, v.id, owner)
}

// Protect gives the volume the protection of an owner, in place of the one that this owner
// has given before, or ends that with nil; and puts records in the same atomic step. No
// write to a frozen volume takes effect after it. It is durable on return.
func (v *Volume) Protect(ctx context.Context, owner string, p *Protection, recs ...Record) error {
	r := Record{Key: v.protectKey(owner)}
	if p != nil {
		r.Value, _ = json.Marshal(protectRecord{Version: protectVersion, By: p.By, Frozen: p.Frozen}) // plain data cannot fail
	}
	recs = append([]Record{r}, recs...)
	if err := checkRecords(recs); err != nil {
		return err
	}
	// A revert that was allowed before ends first.
	v.store.reverting.Lock()
	err := v.protect(ctx, owner, p, recs)
	v.store.reverting.Unlock()
	if err != nil {
		return err
	}
	return v.store.Flush(ctx)
}

func (v *Volume) protect(ctx context.Context, owner string, p *Protection, recs []Record) error {
	s := v.store
	op, err := s.begin(ctx, &record.PutClients{Records: recs})
	if err != nil {
		return err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.admit(ctx, 0, 0); err != nil {
		return err
	}
	s.records.mu.Lock()
	s.records.put(recs)
	op.Commit()
	s.records.mu.Unlock()
	v.setProtection(owner, p)
	return nil
}

// setProtection changes what is known of the protections. v.mu is held.
func (v *Volume) setProtection(owner string, p *Protection) {
	if p == nil {
		delete(v.protections, owner)
	} else {
		if v.protections == nil {
			v.protections = map[string]Protection{}
		}
		v.protections[owner] = *p
	}
	frozen := false
	for _, p := range v.protections {
		frozen = frozen || p.Frozen
	}
	v.frozen.Store(frozen)
}

// Protected returns a protection of the volume, one that freezes it if there is one; ok is
// false if there is none.
func (v *Volume) Protected() (p Protection, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.protection()
}

// protection is Protected with v.mu held. Of several it returns always the same one.
func (v *Volume) protection() (found Protection, ok bool) {
	for _, p := range v.protections {
		if !ok || p.Frozen && !found.Frozen || p.Frozen == found.Frozen && p.By < found.By {
			found, ok = p, true
		}
	}
	return found, ok
}

// checkUnprotected returns a *ProtectedError for a volume that may not be deleted. v.mu is
// held.
func (v *Volume) checkUnprotected() error {
	if p, ok := v.protection(); ok {
		return &ProtectedError{v.String(), p}
	}
	return nil
}

// checkThawed returns a *ProtectedError for a frozen volume. v.mu is held.
func (v *Volume) checkThawed() error {
	if !v.frozen.Load() {
		return nil
	}
	return v.checkUnprotected()
}

// loadProtections gives the volumes of a store that is being opened their protections.
func (s *Store) loadProtections() error {
	err := s.ScanRecords([]byte(protectPrefix), func(key, value []byte) error {
		var r protectRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("%w: record %q: %w", ErrCorrupt, key, err)
		}
		if r.Version != protectVersion {
			return fmt.Errorf("record %q: version %d, not %d; use a version of odx that reads it", key, r.Version, protectVersion)
		}
		volume, owner, ok := strings.Cut(strings.TrimPrefix(string(key), protectPrefix), "/")
		var id [16]byte
		if n, err := hex.DecodeString(volume); !ok || err != nil || copy(id[:], n) != len(id) || len(n) != len(id) {
			return fmt.Errorf("%w: record %q: no identity of a volume", ErrCorrupt, key)
		}
		v, err := s.VolumeByID(id)
		if errors.Is(err, ErrNotFound) {
			return nil // a repair has lost it
		}
		if err == nil {
			v.setProtection(owner, &Protection{r.By, r.Frozen})
		}
		return err
	})
	if lost := (*LostRecordsError)(nil); errors.As(err, &lost) {
		return nil // Damage lists them
	}
	return err
}
