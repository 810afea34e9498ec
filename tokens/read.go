package tokens

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

// Source is what an offload read takes its bytes from.
type Source struct {
	Volume blockdev.Volume
	// LU goes into the token. Ranges are whole blocks of LU.BlockLength.
	LU LU
}

// ReadOptions are the choices of an offload read. The zero value is valid.
type ReadOptions struct {
	// Type is the ROD type of the token; the zero value leaves it to the manager.
	Type RODType
	// InactivityTimeout is how long the token lives without being used; 0 means
	// the default.
	InactivityTimeout time.Duration
	// Creator is recorded with the token. The caller has checked that it may read the
	// source.
	Creator Creator
	// Use is what the token is for, as Rule.Use matches it.
	Use string
	// Priority is that of the token when no rule of the policy gives another.
	Priority int
	// Access narrows who may use the token; empty leaves that to the policy.
	Access Access
}

// ReadResult is what an offload read made.
type ReadResult struct {
	Token *Token
	// Represented is the number of bytes that the token stands for: those asked
	// for, or fewer, from the first one on, if the source had to be copied and
	// time ran out.
	Represented int64
}

// OffloadRead makes a token that stands for ranges of src as they are now. It
// is durable when OffloadRead returns.
//
// Errors: ErrUnsupportedType, ErrTimeout, blockdev.ErrRange, ErrTooLong, ErrNoResources,
// ErrAccess, ErrUnmapped, and those of the store and the source.
func (m *Manager) OffloadRead(ctx context.Context, src Source, ranges []blockdev.Range, o ReadOptions) (ReadResult, error) {
	switch o.Type {
	case RODTypeHash:
		return m.onlyOf(ctx, src, ranges, o, ProviderHash)
	case RODTypeChecksum:
		return m.onlyOf(ctx, src, ranges, o, ProviderChecksum)
	}
	_, t, err := m.offloadRead(ctx, src, ranges, o)
	if err != nil {
		m.refused(err)
		return ReadResult{}, err
	}
	return ReadResult{Token: t.token, Represented: t.bytes}, nil
}

// onlyOf makes a token of one provider.
func (m *Manager) onlyOf(ctx context.Context, src Source, ranges []blockdev.Range, o ReadOptions, p ProviderID) (ReadResult, error) {
	made, n, err := m.OffloadReadEach(ctx, src, ranges, o, Choice{Providers: []ProviderID{p}})
	if err != nil {
		return ReadResult{}, err
	}
	return ReadResult{Token: made[0].Token, Represented: n}, nil
}

func (m *Manager) offloadRead(ctx context.Context, src Source, ranges []blockdev.Range, o ReadOptions) (*entry, *pending, error) {
	t, err := m.plan(src, ranges, o)
	if err != nil {
		return nil, nil, err
	}
	release, err := m.reserve(ctx, &t.record)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	var e *entry
	err = m.engine.Pin(ctx, src.Volume, ranges, src.LU.BlockLength, func(object offload.Object, ranges []blockdev.Range, n int64) error {
		t.bytes, t.record.Length = n, n
		e, err = m.create(ctx, object, ranges, t)
		return err
	})
	if err != nil {
		return nil, t, err
	}
	return e, t, m.finish(ctx, e)
}

// plan checks the arguments of an offload read and returns the token to be made.
func (m *Manager) plan(src Source, ranges []blockdev.Range, o ReadOptions) (*pending, error) {
	rodType, err := o.Type.concrete()
	if err != nil {
		return nil, err
	}
	timeout, err := m.timeout(o.InactivityTimeout)
	if err != nil {
		return nil, err
	}
	if err := checkPriority(o.Priority); err != nil {
		return nil, err
	}
	total, err := blockdev.Sum(ranges, src.Volume.Size(), src.LU.BlockLength)
	if err != nil {
		return nil, err
	}
	if total == 0 {
		return nil, fmt.Errorf("%w: no bytes to represent", blockdev.ErrRange)
	}
	if total > m.limits().TokenBytes {
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooLong, total, m.limits().TokenBytes)
	}
	if err := m.policy().checkAccess(o.Access); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAccess, err)
	}
	t := &pending{fields: fields{rodType: rodType, lu: src.LU, bytes: total, store: m.sealer.store}}
	t.record = record{Type: rodType, Length: total, BlockLength: src.LU.BlockLength, Creator: o.Creator, Inactivity: timeout}
	t.record.Priority, t.record.Access = m.policy().rule(&o)
	if !rodType.expires() {
		t.record.Inactivity = 0
	}
	object, shared := m.store.Object(src.Volume)
	if !shared {
		return t, m.planForeign(t, src.Volume)
	}
	if rodType.holding() != inSnapshot {
		id := object.ID()
		t.record.Volume, t.record.Ranges = id[:], slices.Clone(ranges)
	}
	return t, nil
}

// planForeign applies the policy to a token of v, which is a view or a volume
// outside the store.
func (m *Manager) planForeign(t *pending, v blockdev.Volume) error {
	if t.rodType.holding() != inSnapshot {
		return fmt.Errorf("%w: %v, the source is not a volume of the store", ErrUnsupportedType, t.rodType)
	}
	if m.engine.Shares(v) {
		return nil
	}
	switch m.policy().Unmapped {
	case RefuseUnmapped:
		return ErrUnmapped
	case LowerUnmapped:
		t.record.Priority = MinPriority - 1
	}
	return nil
}

// timeout returns the inactivity timeout for a token that asks for want.
func (m *Manager) timeout(want time.Duration) (time.Duration, error) {
	if want == 0 {
		return m.limits().DefaultInactivity, nil
	}
	if want < 0 || want > m.limits().MaxInactivity {
		return 0, fmt.Errorf("%w: %v, at most %v", ErrTimeout, want, m.limits().MaxInactivity)
	}
	return max(want, m.limits().MinInactivity), nil
}

// pending is a token that is being made.
type pending struct {
	fields
	record record
	token  *Token
}

// create names the token and stores its record. It becomes live in finish.
func (m *Manager) create(ctx context.Context, object offload.Object, ranges []blockdev.Range, t *pending) (*entry, error) {
	now := time.Now().UTC()
	t.record.Created, t.record.LastUsed = now, now
	newName(&t.fields)
	t.token = t.encode()
	m.sealer.seal(t.token)
	// Copies, so that the arrays that they are parts of can be freed.
	t.record.Name, t.record.Management = bytes.Clone(t.name[:]), bytes.Clone(t.token[:ManagementLength])
	e := newEntry(t.id, t.record)
	var err error
	switch t.rodType.holding() {
	case inSnapshot:
		err = m.pin(ctx, object, ranges, t)
		e.rec.Snapshot = t.record.Snapshot
	case inVolume:
		err = m.store.PutRecords(ctx, t.live())
	case inUnchangedVolume:
		if e.watch, err = object.Watch(ctx, ranges, []backstore.Record{t.live()}, m.endOnChange(e)); errors.Is(err, backstore.ErrTooMany) {
			err = fmt.Errorf("%w: %w", ErrNoResources, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// finish makes the token durable and adds it to the live ones.
func (m *Manager) finish(ctx context.Context, e *entry) error {
	if err := m.store.Flush(ctx); err != nil {
		return errors.Join(err, m.undo(ctx, e))
	}
	m.addLive(e)
	return nil
}

// live is the record of the token.
func (t *pending) live() backstore.Record {
	return backstore.Record{Key: tokenKey(livePrefix, t.id), Value: t.record.encode()}
}

// pin makes the snapshot and the record of t in one step.
func (m *Manager) pin(ctx context.Context, object offload.Object, ranges []blockdev.Range, t *pending) error {
	s, err := object.Snapshot(ctx, ranges, func(snapshot uint64) []backstore.Record {
		t.record.Snapshot = snapshot
		return []backstore.Record{t.live()}
	})
	if err != nil {
		return err
	}
	s.Release()
	return nil
}

// undo removes a token that no caller has got.
func (m *Manager) undo(ctx context.Context, e *entry) error {
	e.record.Lock()
	defer e.record.Unlock()
	return m.storeEnd(context.WithoutCancel(ctx), e, []backstore.Record{deletion(livePrefix, e.id)})
}

// addLive adds a token to the live ones. A change vulnerable token can have ended since
// it was made; it is counted as created nevertheless.
func (m *Manager) addLive(e *entry) {
	e.record.Lock() // waits for an end that is under way
	defer e.record.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Created++
	if e.ended != 0 {
		return
	}
	m.live[e.id] = e
	m.tally(&e.rec, 1)
	m.stats.PinnedBytes += e.rec.pinned()
	m.setIdle(e, time.Now().Add(e.rec.Inactivity))
}
