package admin

import (
	"context"
	"fmt"
	"time"

	"odx/blockdev"
	"odx/tokens"
)

// Peers describes the other servers of a server, and what they have of it.
type Peers struct {
	Peers []Peer
	Holds []PeerHold
}

// Peer is another server, as this one sees it.
type Peer struct {
	Name string
	// Store is the ID of its store, in hexadecimal.
	Store     string
	Addresses []string
	// Up: it has answered the last request, and is the one that it should be. Problem is why
	// not.
	Up      bool
	Problem string
	// Heard is when it answered last; nil if it has not.
	Heard *time.Time
	// Requests were sent to it since the start; Failures were not answered. FetchedBytes came
	// from it as data, MappedBytes were here already, WireBytes is all that was received.
	Requests, Failures, FetchedBytes, MappedBytes, WireBytes int64
}

// PeerHold is data that a peer has asked this server to keep for a while.
type PeerHold struct {
	// Peer is who has it, Of what it is of: a token, a volume, file:NAME.
	Peer, Of string
	// Bytes are held, ReadBytes were read.
	Bytes, ReadBytes int64
	Since            time.Time
	// LeaseMS is what is left of the lease in milliseconds; 0 while a request uses it.
	LeaseMS int64
}

// PeerTokens are the live tokens that a peer has made, or why it does not say.
type PeerTokens struct {
	Peer, Problem string
	Tokens        []TokenInfo
	// More are not listed.
	More int
}

// Peerer knows other servers. Its methods return ErrNotRunning where no server has the store
// open.
type Peerer interface {
	// Peers asks all peers whether they are there, for a few seconds at most.
	Peers(ctx context.Context) (Peers, error)
	// PeerTokens asks all peers for their tokens.
	PeerTokens(ctx context.Context) ([]PeerTokens, error)
}

// peerTime bounds how long peers are asked.
const peerTime = 3 * time.Second

// Peers implements Peerer.
func (s *Store) Peers(ctx context.Context) (Peers, error) {
	if s.server == nil {
		return Peers{}, fmt.Errorf("%w: peers are those of a server", ErrNotRunning)
	}
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	return s.server.Peers(ctx), nil
}

// PeerTokens implements Peerer.
func (s *Store) PeerTokens(ctx context.Context) ([]PeerTokens, error) {
	if s.server == nil {
		return nil, fmt.Errorf("%w: peers are those of a server", ErrNotRunning)
	}
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	return s.server.PeerTokens(ctx), nil
}

// PeerTokenRequest describes a token that a peer is to make.
type PeerTokenRequest struct {
	// Peer is its name in the configuration, Volume one of its volumes, or file:NAME.
	Peer, Volume string
	// Offset and Length are in bytes; 0: up to the end.
	Offset, Length int64
	Options        tokens.ReadOptions
}

// createAtPeer has a peer make a token.
func (s *Store) createAtPeer(ctx context.Context, r *TokenRequest) (MadeToken, error) {
	inactivity, err := r.inactivity()
	switch {
	case err != nil:
		return MadeToken{}, err
	case s.server == nil:
		return MadeToken{}, fmt.Errorf("%w: peers are those of a server", ErrNotRunning)
	case r.each():
		return MadeToken{}, fmt.Errorf("%w: a peer makes tokens of data alone", blockdev.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	t, info, err := s.server.CreatePeerToken(ctx, PeerTokenRequest{
		Peer: r.Peer, Volume: r.Volume, Offset: r.Offset, Length: r.Length,
		Options: tokens.ReadOptions{Type: r.Type, InactivityTimeout: inactivity, Priority: r.Priority, Access: r.Access},
	})
	if err != nil {
		return MadeToken{}, err
	}
	return MadeToken{Token: t[:], Length: info.Length, TokenInfo: tokenInfo(info)}, nil
}

// InfoOf returns the description of a token.
func InfoOf(i tokens.Info) TokenInfo { return tokenInfo(i) }
