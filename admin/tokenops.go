package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"odx/blockdev"
	"odx/offload"
	"odx/tokens"
)

// blockLength is the logical block length of tokens made by this package, in bytes: the
// shortest of any LUN, so that every LUN can use them.
const blockLength = 512

// requestTime is how long a request copies. Then it returns how much it did, and the
// caller continues from there.
const requestTime = 400 * time.Millisecond

func (s *Store) CreateToken(ctx context.Context, r TokenRequest) (MadeToken, error) {
	if r.Peer != "" {
		return s.createAtPeer(ctx, &r)
	}
	v, err := s.Object(r.Volume)
	if err != nil {
		return MadeToken{}, err
	}
	m, err := s.TokenManager(ctx)
	if err != nil {
		return MadeToken{}, err
	}
	if r.Length == 0 {
		r.Length = v.Size() - r.Offset
	}
	inactivity, err := r.inactivity()
	if err != nil {
		return MadeToken{}, err
	}
	src := tokens.Source{Volume: v, LU: tokens.LU{BlockLength: blockLength}}
	binary.BigEndian.PutUint32(src.LU.ReadCapacity[:], blockLength)
	ranges := []blockdev.Range{{Offset: r.Offset, Length: r.Length}}
	o := tokens.ReadOptions{
		Type: r.Type, InactivityTimeout: inactivity,
		Creator: tokens.Creator{Volume: r.Volume}, Priority: r.Priority, Use: "api", Access: r.Access,
	}
	if r.each() {
		return createEach(ctx, m, src, ranges, o, &r)
	}
	made, err := m.OffloadRead(blockdev.StopAfter(ctx, requestTime), src, ranges, o)
	if err != nil {
		return MadeToken{}, err
	}
	return describeMade(m, made.Token, made.Represented)
}

// inactivity returns the inactivity timeout, 0 for the default.
func (r *TokenRequest) inactivity() (time.Duration, error) {
	if r.InactivitySeconds < 0 || r.InactivitySeconds > int64(time.Duration(1<<63-1)/time.Second) {
		return 0, fmt.Errorf("%w: inactivity timeout of %d seconds", blockdev.ErrInvalid, r.InactivitySeconds)
	}
	return time.Duration(r.InactivitySeconds) * time.Second, nil
}

// createEach makes tokens of several providers.
func createEach(ctx context.Context, m *tokens.Manager, src tokens.Source, ranges []blockdev.Range, o tokens.ReadOptions, r *TokenRequest) (MadeToken, error) {
	choice := tokens.Choice{Skip: r.Skip}
	names := map[tokens.ProviderID]string{}
	for _, p := range tokens.Providers() {
		names[p.ID] = p.Name
		if slices.Contains(r.Providers, p.Name) {
			choice.Providers = append(choice.Providers, p.ID)
		}
	}
	if r.Skip < 0 || len(choice.Providers) != len(r.Providers) {
		return MadeToken{}, fmt.Errorf("%w: providers %q, skip %d; there are data, hash and checksum", blockdev.ErrInvalid, r.Providers, r.Skip)
	}
	made, length, err := m.OffloadReadEach(blockdev.StopAfter(ctx, requestTime), src, ranges, o, choice)
	if err != nil {
		return MadeToken{}, err
	}
	first, err := describeMade(m, made[0].Token, length)
	for _, p := range made[1:] {
		first.Others = append(first.Others, ProvidedToken{names[p.Provider], p.Token[:]})
	}
	return first, err
}

func describeMade(m *tokens.Manager, t *tokens.Token, length int64) (MadeToken, error) {
	// A checksum token represents no data, so that Lookup refuses it.
	info, err := tokens.Info{ID: t.ID(), Type: t.Type(), Length: length}, error(nil)
	if t.Type() != tokens.RODTypeChecksum {
		info, err = m.Lookup(t)
	}
	return MadeToken{Token: t[:], Length: length, TokenInfo: tokenInfo(info)}, err
}

func (s *Store) WriteToken(ctx context.Context, r TokenWrite) (TokenWritten, error) {
	t, err := ParseToken(r.Token)
	if err != nil {
		return TokenWritten{}, err
	}
	end, err := s.BeginWrite(r.Volume)
	if err != nil {
		return TokenWritten{}, err
	}
	defer end()
	v, err := s.Object(r.Volume)
	if err != nil {
		return TokenWritten{}, err
	}
	m, err := s.TokenManager(ctx)
	if err != nil {
		return TokenWritten{}, err
	}
	info, err := m.Describe(ctx, t)
	if err != nil {
		return TokenWritten{}, err
	}
	if r.Length == 0 {
		r.Length = v.Size() - r.Offset
	}
	if info.Type != tokens.RODTypeBlockDeviceZero && r.TokenOffset < info.Length {
		r.Length = min(r.Length, info.Length-r.TokenOffset)
	}
	n, err := m.OffloadWrite(blockdev.StopAfter(ctx, requestTime), t, r.TokenOffset, offload.Destination{Volume: v, BlockLength: blockLength},
		[]blockdev.Range{{Offset: r.Offset, Length: r.Length}}, tokens.WriteOptions{})
	if n > 0 { // also before an error: the count is of durable bytes
		if lost := v.Flush(ctx); lost != nil {
			n, err = 0, lost
		}
	}
	return TokenWritten{Bytes: n, Remaining: r.Length - n}, err
}

func (s *Store) ReadToken(ctx context.Context, t *tokens.Token, p []byte, off int64) (int, error) {
	m, err := s.TokenManager(ctx)
	if err != nil {
		return 0, err
	}
	r, err := m.OpenReader(ctx, t, tokens.ReaderOptions{})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := r.ReadAt(ctx, p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (s *Store) VerifyToken(ctx context.Context, r TokenWrite) (TokenVerified, error) {
	t, err := ParseToken(r.Token)
	if err != nil {
		return TokenVerified{}, err
	}
	v, err := s.Object(r.Volume)
	if err != nil {
		return TokenVerified{}, err
	}
	m, err := s.TokenManager(ctx)
	if err != nil {
		return TokenVerified{}, err
	}
	if r.TokenOffset != 0 {
		return TokenVerified{}, fmt.Errorf("%w: a checksum covers the whole token; token_offset has to be 0", blockdev.ErrInvalid)
	}
	if r.Length == 0 {
		r.Length = (v.Size() - r.Offset) &^ (blockLength - 1) // Verify ignores what exceeds the token
	}
	verdict, err := m.Verify(ctx, t, offload.Destination{Volume: v, BlockLength: blockLength}, []blockdev.Range{{Offset: r.Offset, Length: r.Length}})
	return TokenVerified{Match: verdict == tokens.Match}, err
}

// ParseToken returns the token in b; blockdev.ErrInvalid unless b has the length of
// one.
func ParseToken(b []byte) (*tokens.Token, error) {
	if len(b) != tokens.TokenLength {
		return nil, fmt.Errorf("%w: a token has %d bytes, not %d", blockdev.ErrInvalid, tokens.TokenLength, len(b))
	}
	return (*tokens.Token)(b), nil
}

func (s *Store) Tokens(ctx context.Context) ([]TokenInfo, error) {
	m, err := s.TokenManager(ctx)
	if err != nil {
		return nil, err
	}
	list := []TokenInfo{}
	for _, i := range m.List() {
		list = append(list, tokenInfo(i))
	}
	return list, nil
}

func (s *Store) Token(ctx context.Context, id tokens.ID) (TokenInfo, error) {
	m, err := s.TokenManager(ctx)
	if err != nil {
		return TokenInfo{}, err
	}
	i, err := m.Find(id)
	if err != nil {
		return TokenInfo{}, fmt.Errorf("token %v: %w", id, err)
	}
	return tokenInfo(i), nil
}

func (s *Store) CopyStats(ctx context.Context) (CopyStats, error) {
	if s.server == nil {
		return CopyStats{}, fmt.Errorf("%w: the counters are those of a server", ErrNotRunning)
	}
	m, err := s.TokenManager(ctx)
	if err != nil {
		return CopyStats{}, err
	}
	if _, err := m.HeldBytes(ctx); err != nil { // which Stats returns
		return CopyStats{}, err
	}
	return CopyStats{Commands: s.server.CopyCommands(), Tokens: m.Stats()}, nil
}

func (s *Store) DeleteToken(ctx context.Context, id tokens.ID) error {
	m, err := s.TokenManager(ctx)
	if err != nil {
		return err
	}
	return m.Delete(ctx, id, tokens.Revoked)
}

func (s *Store) RevokeToken(ctx context.Context, t *tokens.Token) error {
	m, err := s.TokenManager(ctx)
	if err != nil {
		return err
	}
	if h, err := m.Resolve(t); err == nil && h.Info().Server != "" {
		return h.DeleteFor(ctx, tokens.Requester{}) // the peer that made it decides
	}
	return m.DeleteToken(ctx, t, tokens.Revoked)
}

func tokenInfo(i tokens.Info) TokenInfo {
	t := TokenInfo{
		ID: i.ID, Type: i.Type, TypeName: i.Type.String(), Bytes: i.Length,
		Volume: i.Creator.Volume, Initiator: i.Creator.Initiator,
		Created: i.Created.UTC(), LastUsed: i.LastUsed.UTC(), Inactivity: int64(i.Inactivity / time.Second),
		Uses: i.Uses, InUse: i.InUse, Priority: i.Priority,
	}
	if !i.Expires.IsZero() {
		expires := i.Expires.UTC()
		t.Expires = &expires
	}
	return t
}
