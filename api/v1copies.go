package api

import (
	"odx/admin"
	v1 "odx/api/v1"
	"odx/tokens"
)

// CopyStatsV1 returns the JSON of the copy counters.
func CopyStatsV1(s admin.CopyStats) v1.CopyStats {
	c := &s.Commands
	return v1.CopyStats{Tokens: tokenStatsV1(s.Tokens), Commands: v1.CopyCommands{
		Since: c.Since, Populated: c.Populated, Written: c.Written, Extended: c.Extended, Partial: c.Partial,
		PopulatedBytes: c.PopulatedBytes, PopulatedMovedBytes: c.PopulatedMovedBytes, WrittenBytes: c.WrittenBytes, WrittenMovedBytes: c.WrittenMovedBytes,
		ExtendedBytes: c.ExtendedBytes, ExtendedMovedBytes: c.ExtendedMovedBytes, Aborted: c.Aborted, Refused: c.Refused, RefusedBy: c.RefusedBy,
		Recent: each(func(r admin.CopyRefusal) v1.CopyRefusal { return v1.CopyRefusal(r) })(c.Recent),
	}}
}

// copyStatsOf is the inverse of CopyStatsV1; an error for an unknown cause.
func copyStatsOf(s v1.CopyStats) (admin.CopyStats, error) {
	c := &s.Commands
	counted, err := tokenStatsOf(s.Tokens)
	return admin.CopyStats{Tokens: counted, Commands: admin.CopyCommands{
		Since: c.Since, Populated: c.Populated, Written: c.Written, Extended: c.Extended, Partial: c.Partial,
		PopulatedBytes: c.PopulatedBytes, PopulatedMovedBytes: c.PopulatedMovedBytes, WrittenBytes: c.WrittenBytes, WrittenMovedBytes: c.WrittenMovedBytes,
		ExtendedBytes: c.ExtendedBytes, ExtendedMovedBytes: c.ExtendedMovedBytes, Aborted: c.Aborted, Refused: c.Refused, RefusedBy: c.RefusedBy,
		Recent: each(func(r v1.CopyRefusal) admin.CopyRefusal { return admin.CopyRefusal(r) })(c.Recent),
	}}, err
}

func tokenStatsV1(s tokens.Stats) v1.TokenStats {
	var causes map[string]uint64
	if s.CancelledFor != nil {
		causes = make(map[string]uint64, len(s.CancelledFor))
		for cause, n := range s.CancelledFor {
			causes[cause.String()] = n
		}
	}
	return v1.TokenStats{
		Live: s.Live, Tombstones: s.Tombstones, PinnedBytes: s.PinnedBytes, HeldBytes: s.HeldBytes, MemoryBytes: s.MemoryBytes,
		Created: s.Created, Uses: s.Uses, Expired: s.Expired, Cancelled: s.Cancelled, Revoked: s.Revoked, Deleted: s.Deleted,
		CancelledFor: causes, Refused: s.Refused,
	}
}

func tokenStatsOf(s v1.TokenStats) (tokens.Stats, error) {
	var causes map[tokens.Cause]uint64
	if s.CancelledFor != nil {
		causes = make(map[tokens.Cause]uint64, len(s.CancelledFor))
		for words, n := range s.CancelledFor {
			var cause tokens.Cause
			if err := cause.UnmarshalText([]byte(words)); err != nil {
				return tokens.Stats{}, err
			}
			causes[cause] = n
		}
	}
	return tokens.Stats{
		Live: s.Live, Tombstones: s.Tombstones, PinnedBytes: s.PinnedBytes, HeldBytes: s.HeldBytes, MemoryBytes: s.MemoryBytes,
		Created: s.Created, Uses: s.Uses, Expired: s.Expired, Cancelled: s.Cancelled, Revoked: s.Revoked, Deleted: s.Deleted,
		CancelledFor: causes, Refused: s.Refused,
	}, nil
}
