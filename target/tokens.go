package target

import (
	"context"
	"fmt"

	"odx/conf"
	"odx/tokens"
)

// openTokens reads what the store says about tokens.
func (s *Service) openTokens(ctx context.Context) (err error) {
	o := tokenOptions(&s.cfg.Tokens, &s.memory)
	o.Store, o.Log = tokens.ExtentStore(s.store), s.log
	s.tokens, err = tokens.Open(ctx, o)
	if err != nil {
		return fmt.Errorf("open the tokens of the store in %s: %w", s.cfg.DataDir, err)
	}
	return nil
}

// CountTokens returns how many tokens the store has, and the bytes that they stand
// for. Of a store that is only looked at, those whose time has passed count as well.
func (s *Service) CountTokens(ctx context.Context) (live int, pinned int64, err error) {
	if s.readOnly {
		return tokens.Count(tokens.ExtentStore(s.store))
	}
	m, err := s.Tokens(ctx)
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

// endOrphans ends the tokens whose volume or file is gone. It is called after
// something was deleted, and before that is made durable.
func (s *Service) endOrphans(ctx context.Context) error {
	if s.tokens == nil {
		return nil // ended when they are opened
	}
	return s.tokens.EndOrphans(ctx)
}

// relieveStore gives up tokens that hold space which the store needs.
func (s *Service) relieveStore(need int64) {
	given, err := s.tokens.Relieve(context.Background(), need)
	if err != nil {
		s.log.WithError(err).Warn("tokens could not be given up for space")
	}
	if given > 0 {
		s.log.WithField("bytes", given).Info("tokens were given up: the store is getting full")
	}
}
