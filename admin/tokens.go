package admin

import (
	"context"
	"fmt"

	"odx/conf"
	"odx/offload"
	"odx/tokens"
)

// TokenManager returns the manager of the store's tokens.
func (s *Store) TokenManager(ctx context.Context) (*tokens.Manager, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.tokens != nil {
		return s.tokens, nil
	}
	now := s.using.now.Load()
	o := tokenOptions(&now.cfg.Tokens, &now.memory)
	o.Store, o.Log = offload.ExtentStore{Store: s.store}, s.log
	var err error
	if s.tokens, err = tokens.Open(ctx, o); err != nil {
		return nil, fmt.Errorf("open the tokens of the store in %s: %w", now.cfg.DataDir, err)
	}
	s.tokens.Engine().LimitMemory(now.memory.Copies)
	return s.tokens, nil
}

// countTokens returns how many tokens the store has, and the bytes that they represent.
// In a store opened read-only, expired tokens count as well.
func (s *Store) countTokens(ctx context.Context) (live int, pinned int64, err error) {
	if s.readOnly {
		return tokens.Count(offload.ExtentStore{Store: s.store})
	}
	m, err := s.TokenManager(ctx)
	if err != nil {
		return 0, 0, err
	}
	st := m.Stats()
	return st.Live, st.PinnedBytes, nil
}

// tokenOptions turns the configuration into options of the token manager.
func tokenOptions(t *conf.Tokens, m *conf.Memory) tokens.Options {
	o := tokens.Options{
		Limits: tokens.Limits{
			Tokens: t.Max, TokensPerInitiator: t.MaxPerInitiator, MemoryBytes: m.Tokens, HeldBytes: t.Held, TokenBytes: t.Size,
			MinInactivity: t.MinInactivity, DefaultInactivity: t.DefaultInactivity, MaxInactivity: t.MaxInactivity,
			UseRecordsPerSecond: t.UseRecords, DigestBytes: t.DigestSize, HashLifetime: t.HashLifetime,
		},
		Policy: tokens.Policy{
			WhenFull:    map[string]tokens.WhenFull{"refuse": tokens.RefuseNew}[t.WhenFull],
			Pressure:    map[string]tokens.Pressure{"keep": tokens.Keep}[t.UnderPressure],
			Deletion:    map[string]tokens.Deletion{"hint": tokens.DeletionHint}[t.Deletion],
			RunningCopy: map[string]tokens.RunningCopy{"abort": tokens.AbortCopy}[t.RunningCopy],
			Unmapped:    map[string]tokens.Unmapped{"lower": tokens.LowerUnmapped, "refuse": tokens.RefuseUnmapped}[t.Unmapped],
			Access:      tokens.Access(t.Access),
		},
	}
	for _, g := range t.Groups {
		group := tokens.Group{Name: g.Name}
		for _, p := range g.Initiators {
			group.Initiators = append(group.Initiators, tokens.Pattern(p))
		}
		o.Policy.Groups = append(o.Policy.Groups, group)
	}
	for _, r := range t.Rules {
		o.Policy.Rules = append(o.Policy.Rules, tokens.Rule{
			Initiator: tokens.Pattern(r.Initiator), Use: r.Use, Priority: r.Priority, Access: tokens.Access(r.Access),
		})
	}
	return o
}

// endOrphans ends the tokens whose volume or file was deleted. It is called after a
// deletion, before that is made durable.
func (s *Store) endOrphans(ctx context.Context) error {
	s.opening.Lock()
	m := s.tokens
	s.opening.Unlock()
	if m == nil {
		return nil // ended when they are opened
	}
	return m.EndOrphans(ctx)
}
