package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"odx/blockdev"
	"odx/offload"
)

// ProviderID names an offload provider: one that makes tokens of one kind.
type ProviderID uint16

// The providers, in the order of preference.
const (
	// ProviderData makes tokens that the manager keeps a record of: the
	// point in time and access upon reference types.
	ProviderData ProviderID = 1
	// ProviderHash makes tokens of type RODTypeHash.
	ProviderHash ProviderID = 2
	// ProviderChecksum makes tokens of type RODTypeChecksum.
	ProviderChecksum ProviderID = 3
)

// Provider describes an offload provider.
type Provider struct {
	ID   ProviderID
	Name string
	// Types are the ROD types of its tokens, the one made by default first.
	Types []RODType
}

// Providers returns the offload providers in the order of preference, which is
// the order in which Choice.Skip counts.
func Providers() []Provider {
	return []Provider{
		{ProviderData, "data", []RODType{
			RODTypePointInTimeDefault, RODTypePointInTimePersistent, RODTypePointInTimeChangeVulnerable, RODTypeAccessUponReference,
		}},
		{ProviderHash, "hash", []RODType{RODTypeHash}},
		{ProviderChecksum, "checksum", []RODType{RODTypeChecksum}},
	}
}

// Choice says which providers' tokens are wanted.
type Choice struct {
	// Providers are the ones wanted; one that cannot make a token is an error.
	// Empty: all that can.
	Providers []ProviderID
	// Skip passes over the first so many of those that can. It counts only when
	// Providers is empty.
	Skip int
	// Count is how many tokens are wanted at most; 0: all.
	Count int
}

// Provided is a token and who made it.
type Provided struct {
	Provider ProviderID
	Token    *Token
}

// OffloadReadEach makes tokens of several providers that represent the same bytes:
// those of the data token, if there is one, at the time of the call. o.Type is that of
// the data token.
//
// Errors are those of OffloadRead, for a provider that was asked for;
// blockdev.ErrRange, when Skip leaves none. After an error no token is left.
func (m *Manager) OffloadReadEach(ctx context.Context, src Source, ranges []blockdev.Range, o ReadOptions, c Choice) ([]Provided, int64, error) {
	made, n, err := m.readEach(ctx, src, ranges, o, c)
	if err != nil {
		m.refused(err)
	}
	return made, n, err
}

func (m *Manager) readEach(ctx context.Context, src Source, ranges []blockdev.Range, o ReadOptions, c Choice) ([]Provided, int64, error) {
	if err := checkPriority(o.Priority); err != nil {
		return nil, 0, err
	}
	wanted, err := m.choose(src, ranges, c)
	if err != nil {
		return nil, 0, err
	}
	var made []Provided
	var s offload.Snapshot
	if wanted[0] == ProviderData {
		e, t, err := m.offloadRead(ctx, src, ranges, o)
		if err != nil {
			return nil, 0, err
		}
		made, wanted = append(made, Provided{ProviderData, t.token}), wanted[1:]
		if len(wanted) == 0 {
			return made, t.bytes, nil
		}
		if s, err = m.openData(ctx, e); err != nil {
			return nil, 0, errors.Join(err, m.end(context.WithoutCancel(ctx), e, Cancelled, 0))
		}
		defer s.Release()
		rest, err := m.digestTokens(ctx, src, ranges, s, o, wanted)
		if err != nil {
			return nil, 0, errors.Join(err, m.end(context.WithoutCancel(ctx), e, Cancelled, 0))
		}
		return append(made, rest...), t.bytes, nil
	}
	if s, err = m.engine.Snapshot(ctx, src.Volume, ranges, src.LU.BlockLength); err != nil {
		return nil, 0, err
	}
	defer s.Release()
	made, err = m.digestTokens(ctx, src, ranges, s, o, wanted)
	return made, s.Length(), err
}

// choose returns the providers that are to make a token, in the order of
// preference: the data provider, if at all, comes first.
func (m *Manager) choose(src Source, ranges []blockdev.Range, c Choice) ([]ProviderID, error) {
	var wanted []ProviderID
	skip := c.Skip
	for _, p := range Providers() {
		err := m.able(p.ID, src, ranges)
		if len(c.Providers) > 0 {
			if !slices.Contains(c.Providers, p.ID) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s provider: %w", p.Name, err)
			}
		} else if err != nil {
			continue
		} else if skip > 0 {
			skip--
			continue
		}
		if c.Count == 0 || len(wanted) < c.Count {
			wanted = append(wanted, p.ID)
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("%w: no provider is left", ErrUnsupportedType)
	}
	return wanted, nil
}

// able returns why a provider cannot make a token of these ranges.
func (m *Manager) able(p ProviderID, src Source, ranges []blockdev.Range) error {
	total, err := blockdev.Sum(ranges, src.Volume.Size(), src.LU.BlockLength)
	if err != nil {
		return err
	}
	if p == ProviderData {
		return nil
	}
	if total == 0 {
		return fmt.Errorf("%w: no bytes to represent", blockdev.ErrRange)
	}
	if total > m.limits().DigestBytes {
		return fmt.Errorf("%w: %d, at most %d for a digest", ErrTooLong, total, m.limits().DigestBytes)
	}
	if p == ProviderHash {
		if _, shared := m.store.Object(src.Volume); !shared {
			return fmt.Errorf("%w: a hash token needs a volume of the store", ErrUnsupportedType)
		}
		if len(ranges) > maxHashRanges {
			return fmt.Errorf("%w: %d ranges, a hash token has room for %d", ErrUnsupportedType, len(ranges), maxHashRanges)
		}
	}
	return nil
}

// digestTokens makes the tokens that contain the digest of the bytes of s.
func (m *Manager) digestTokens(ctx context.Context, src Source, ranges []blockdev.Range, s offload.Snapshot, o ReadOptions, wanted []ProviderID) ([]Provided, error) {
	if err := m.policy().checkAccess(o.Access); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAccess, err)
	}
	digest, err := s.Digest(ctx, 0, s.Length())
	if err != nil {
		return nil, err
	}
	var made []Provided
	for _, p := range wanted {
		f := fields{rodType: RODTypeChecksum, lu: src.LU, bytes: s.Length(), store: m.sealer.store}
		newName(&f)
		f.name = digest
		var l *locator
		if p == ProviderHash {
			f.rodType = RODTypeHash
			l = m.locate(src, ranges, &o)
		}
		t := f.encode()
		if l != nil {
			sealed := l.encode()
			m.sealer.maskLocator(t, &sealed)
			t.setRandom(&sealed)
		}
		m.sealer.seal(t)
		made = append(made, Provided{p, t})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	m.stats.Created += uint64(len(made))
	return made, nil
}

// locate returns the locator of a hash token.
func (m *Manager) locate(src Source, ranges []blockdev.Range, o *ReadOptions) *locator {
	l := &locator{expires: time.Now().Add(m.limits().HashLifetime), ranges: ranges}
	if object, shared := m.store.Object(src.Volume); shared {
		l.volume = object.ID()
	}
	_, access := m.policy().rule(o)
	l.setAccess(access, o.Creator.Initiator)
	return l
}
