package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"odx/backstore"
)

// Source is what an offload read takes its bytes from.
type Source struct {
	Volume Volume
	// LU goes into the token. Ranges are whole blocks of LU.BlockLength.
	LU LU
}

// ReadOptions are the choices of an offload read. The zero value is valid.
type ReadOptions struct {
	// Type asks for a kind of token; the zero value leaves the choice open.
	Type RODType
	// InactivityTimeout is how long the token lives without being used; 0 means
	// the default.
	InactivityTimeout time.Duration
	Creator           Creator
	// Priority is kept with the token.
	Priority int
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
// Errors: ErrUnsupportedType, ErrTimeout, ErrRange, ErrTooLong, ErrNoResources,
// and those of the store and the source.
func (m *Manager) OffloadRead(ctx context.Context, src Source, ranges []backstore.Range, o ReadOptions) (ReadResult, error) {
	rodType, err := o.Type.concrete()
	if err != nil {
		return ReadResult{}, err
	}
	timeout, err := m.timeout(o.InactivityTimeout)
	if err != nil {
		return ReadResult{}, err
	}
	total, err := sumRanges(src.Volume.Size(), src.LU.BlockLength, ranges)
	if err != nil {
		return ReadResult{}, err
	}
	if total == 0 {
		return ReadResult{}, fmt.Errorf("%w: no bytes to represent", ErrRange)
	}
	if total > m.limits.TokenBytes {
		return ReadResult{}, fmt.Errorf("%w: %d, at most %d", ErrTooLong, total, m.limits.TokenBytes)
	}
	if err := m.reserve(); err != nil {
		return ReadResult{}, err
	}
	defer m.unreserve()

	space, shared := m.store.AddressSpace(src.Volume)
	if !shared {
		if rodType.holding() != inSnapshot {
			return ReadResult{}, fmt.Errorf("%w: %v, of a volume outside the store", ErrUnsupportedType, rodType)
		}
		stage, n, err := m.stage(ctx, src, ranges, total)
		if err != nil {
			return ReadResult{}, err
		}
		defer stage.remove()
		space, ranges, total = stage.space, []backstore.Range{{Offset: 0, Length: n}}, n
	}
	now := time.Now().UTC()
	t := &pending{fields: fields{rodType: rodType, lu: src.LU, bytes: total, store: m.sealer.store}}
	t.record = record{
		Type: rodType, Length: total, BlockLength: src.LU.BlockLength, Creator: o.Creator,
		Created: now, LastUsed: now, Inactivity: timeout, Priority: o.Priority,
	}
	if !rodType.expires() {
		t.record.Inactivity = 0
	}
	if err := m.create(ctx, space, ranges, t); err != nil {
		return ReadResult{}, err
	}
	return ReadResult{Token: t.token, Represented: total}, nil
}

// timeout returns the inactivity timeout for a token that asks for want.
func (m *Manager) timeout(want time.Duration) (time.Duration, error) {
	if want == 0 {
		return m.limits.DefaultInactivity, nil
	}
	if want < 0 || want > m.limits.MaxInactivity {
		return 0, fmt.Errorf("%w: %v, at most %v", ErrTimeout, want, m.limits.MaxInactivity)
	}
	return max(want, m.limits.MinInactivity), nil
}

// reserve takes a place among the live tokens. This is where a policy that
// gives up other tokens has its say.
func (m *Manager) reserve() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if len(m.live)+m.reserved >= m.limits.Tokens {
		return fmt.Errorf("%w: the limit is %d", ErrNoResources, m.limits.Tokens)
	}
	m.reserved++
	return nil
}

func (m *Manager) unreserve() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved--
}

// pending is a token that is being made.
type pending struct {
	fields
	record record
	token  *Token
}

// create gives the token its name and its record, durably, and brings it to life.
func (m *Manager) create(ctx context.Context, space AddressSpace, ranges []backstore.Range, t *pending) error {
	newName(&t.fields)
	t.token = t.encode()
	m.sealer.seal(t.token)
	t.record.Name, t.record.Management = t.name[:], t.token[:ManagementLength]
	if t.rodType.holding() != inSnapshot {
		id := space.ID()
		t.record.Volume, t.record.Ranges = id[:], slices.Clone(ranges)
	}
	e := &entry{id: t.id, rec: t.record, saved: t.record.LastUsed, index: -1}
	var err error
	switch t.rodType.holding() {
	case inSnapshot:
		err = m.pin(ctx, space, ranges, t)
		e.rec.Snapshot = t.record.Snapshot
	case inVolume:
		err = m.store.PutRecords(ctx, t.live())
	case inUnchangedVolume:
		if e.watch, err = space.Watch(ctx, ranges, []backstore.Record{t.live()}, m.endOnChange(e)); errors.Is(err, backstore.ErrTooMany) {
			err = fmt.Errorf("%w: %w", ErrNoResources, err)
		}
	}
	if err != nil {
		return err
	}
	if err := m.store.Flush(ctx); err != nil {
		return errors.Join(err, m.undo(ctx, e))
	}
	m.enter(e)
	return nil
}

// live is the record of the token.
func (t *pending) live() backstore.Record {
	return backstore.Record{Key: tokenKey(livePrefix, t.id), Value: t.record.encode()}
}

// pin makes the snapshot and the record of t in one step.
func (m *Manager) pin(ctx context.Context, space AddressSpace, ranges []backstore.Range, t *pending) error {
	s, err := space.Snapshot(ctx, ranges, func(snapshot uint64) []backstore.Record {
		t.record.Snapshot = snapshot
		return []backstore.Record{t.live()}
	})
	if err != nil {
		return err
	}
	s.Release()
	return nil
}

// undo removes a token that nobody will learn of.
func (m *Manager) undo(ctx context.Context, e *entry) error {
	e.record.Lock()
	defer e.record.Unlock()
	return m.bury(context.WithoutCancel(ctx), e, []backstore.Record{deletion(livePrefix, e.id)})
}

// enter makes a token one of the live ones. A change vulnerable token can have
// ended since it was made; it counts all the same.
func (m *Manager) enter(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Created++
	if e.dying != 0 {
		return
	}
	m.live[e.id] = e
	m.stats.PinnedBytes += e.rec.pinned()
	m.rest(e, time.Now().Add(e.rec.Inactivity))
}

// sumRanges adds the lengths of ranges, each of which must be whole blocks
// inside a volume of size bytes.
func sumRanges(size int64, blockLength int, ranges []backstore.Range) (int64, error) {
	var total int64
	for _, r := range ranges {
		if r.Offset < 0 || r.Length < 0 || r.Offset > size || r.Length > size-r.Offset {
			return 0, fmt.Errorf("%w: %d bytes at %d, volume of %d", ErrRange, r.Length, r.Offset, size)
		}
		if bl := int64(blockLength); bl <= 0 || r.Offset%bl != 0 || r.Length%bl != 0 {
			return 0, fmt.Errorf("%w: %d bytes at %d are not whole blocks of %d", ErrRange, r.Length, r.Offset, bl)
		}
		if total += r.Length; total < 0 {
			return 0, fmt.Errorf("%w: the lengths overflow", ErrRange)
		}
	}
	return total, nil
}
