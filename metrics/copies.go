package metrics

import (
	"odx/admin"
	"odx/monitor"
	"odx/tokens"
)

// copyFamilies are about third-party copy commands.
func copyFamilies() []Family {
	command := []string{"command"}
	perCommand := func(name, help string, populate, write, extended func(*admin.CopyCommands) uint64) Family {
		return Family{Name: name, Help: help, Type: Counter, Labels: command, values: func(s *monitor.Sample, emit func(float64, ...string)) {
			c := &s.Figures.Server.Copies
			emit(float64(populate(c)), "populate_token")
			emit(float64(write(c)), "write_using_token")
			emit(float64(extended(c)), "extended_copy")
		}}
	}
	type c = admin.CopyCommands
	return []Family{
		perCommand("odx_copy_commands_total", "Copy commands of initiators that did all that was asked for.",
			func(c *c) uint64 { return c.Populated }, func(c *c) uint64 { return c.Written }, func(c *c) uint64 { return c.Extended }),
		one(Counter, "odx_copy_commands_partial_total", "Copy commands that did a part of what was asked for; initiators go on from there.",
			func(s *monitor.Sample) float64 { return float64(s.Figures.Server.Copies.Partial) }),
		one(Counter, "odx_copy_commands_aborted_total", "Copy commands that initiators aborted.",
			func(s *monitor.Sample) float64 { return float64(s.Figures.Server.Copies.Aborted) }),
		{Name: "odx_copy_commands_refused_total", Help: "Copy commands that did nothing, by additional sense code or status; `odx token stats` has the reasons of the last ones.", Type: Counter, Labels: []string{"sense"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				counted(s.Figures.Server.Copies.RefusedBy, emit)
			}},
		perCommand("odx_copy_mapped_bytes_total", "Bytes that were copied without moving them.",
			func(c *c) uint64 { return c.PopulatedBytes - c.PopulatedMovedBytes },
			func(c *c) uint64 { return c.WrittenBytes - c.WrittenMovedBytes },
			func(c *c) uint64 { return c.ExtendedBytes - c.ExtendedMovedBytes }),
		perCommand("odx_copy_moved_bytes_total", "Bytes that were read and written, since they are outside the store or not aligned to 4 KiB.",
			func(c *c) uint64 { return c.PopulatedMovedBytes }, func(c *c) uint64 { return c.WrittenMovedBytes }, func(c *c) uint64 { return c.ExtendedMovedBytes }),
	}
}

// tokenFamilies are about tokens.
func tokenFamilies() []Family {
	single := func(kind Type, name, help string, value func(*tokens.Stats) float64) Family {
		return one(kind, name, help, func(s *monitor.Sample) float64 { return value(&s.Figures.Tokens) })
	}
	return []Family{
		{Name: "odx_tokens", Help: "Tokens by state: live, or ended, of which the reason is still known.", Type: Gauge, Labels: []string{"state"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				emit(float64(s.Figures.Tokens.Live), "live")
				emit(float64(s.Figures.Tokens.Tombstones), "ended")
			}},
		single(Counter, "odx_tokens_created_total", "Tokens that were created.", func(t *tokens.Stats) float64 { return float64(t.Created) }),
		single(Counter, "odx_token_uses_total", "Writes and reads with a token.", func(t *tokens.Stats) float64 { return float64(t.Uses) }),
		{Name: "odx_tokens_ended_total", Help: "Tokens that ended, by reason.", Type: Counter, Labels: []string{"reason"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				t := &s.Figures.Tokens
				emit(float64(t.Expired), "expired")
				emit(float64(t.Cancelled), "cancelled")
				emit(float64(t.Revoked), "revoked")
				emit(float64(t.Deleted), "deleted")
			}},
		{Name: "odx_tokens_cancelled_total", Help: "Tokens that the server cancelled, by cause: their copies start again from the beginning.", Type: Counter, Labels: []string{"cause"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				by := map[string]uint64{}
				for cause, n := range s.Figures.Tokens.CancelledFor {
					by[cause.String()] = n
				}
				counted(by, emit)
			}},
		{Name: "odx_tokens_refused_total", Help: "Uses of tokens that were refused, by reason.", Type: Counter, Labels: []string{"reason"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) { counted(s.Figures.Tokens.Refused, emit) }},
		single(Gauge, "odx_tokens_pinned_bytes", "Bytes that live tokens stand for; most of them are in use by volumes, too.", func(t *tokens.Stats) float64 { return float64(t.PinnedBytes) }),
		single(Gauge, "odx_tokens_held_bytes", "Bytes that only live tokens keep, when that was measured last.", func(t *tokens.Stats) float64 { return float64(t.HeldBytes) }),
		single(Gauge, "odx_tokens_memory_bytes", "Memory of live tokens.", func(t *tokens.Stats) float64 { return float64(t.MemoryBytes) }),
	}
}
