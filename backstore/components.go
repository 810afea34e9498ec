package backstore

import (
	"golang.org/x/time/rate"

	"odx/backstore/damage"
	"odx/backstore/pages"
	"odx/backstore/scrubplan"
)

// newStore returns a store that is not open. o has its defaults.
func newStore(o Options) *Store {
	found := damage.NewLog(o.Log)
	s := &Store{
		opts: o, log: o.Log, damage: found, parts: parts{clock: pages.NewClock()},
		life:    life{readOnly: o.ReadOnly, log: o.Log, damage: found, owner: o.Owner},
		catalog: newCatalog(), copies: newCopyBuffers(),
		checkpoints: checkpointer{hurry: make(chan struct{}, 1), stored: make(chan struct{}, 1)},
	}
	p, opts := &s.parts, &s.opts
	s.recovery = recovery{parts: p, opts: opts, log: s.log, damage: s.damage, life: &s.life, catalog: &s.catalog, durable: &s.durable, aliases: &s.aliases}
	s.records = recordTable{parts: p, opts: opts, life: &s.life, damage: s.damage, changed: make(map[string][]byte)}
	s.durable = syncer{parts: p, opts: opts}
	s.space = space{parts: p, opts: opts, log: s.log, damage: s.damage, checkpoints: &s.checkpoints, cleanNow: make(chan struct{}, 1)}
	s.pace = pacer{parts: p, opts: opts, life: &s.life, space: &s.space, checkpoints: &s.checkpoints}
	s.reader = reader{parts: p, opts: opts, log: s.log, life: &s.life, damage: s.damage, pace: &s.pace, opMu: &s.opMu}
	s.writer = writer{
		parts: p, opts: opts, log: s.log, life: &s.life, damage: s.damage, space: &s.space, durable: &s.durable,
		indexLoaded: make(chan struct{}),
	}
	s.scrubs = &scrubplan.Plan{Records: planRecords{s}, Every: o.ScrubEvery, Scrub: s.scheduledScrub, Log: s.log}
	s.scrubRate.Store(o.ScrubBytesPerSecond)
	s.storeDuplicates.Store(o.StoreDuplicates)
	s.names = names{parts: p, opts: opts, log: s.log, wake: make(chan struct{}, 1)}
	s.series = series{parts: p}
	s.aliases = newAliases(p, opts)
	s.cleaner = cleaner{
		parts: p, opts: opts, log: s.log, life: &s.life, damage: s.damage, space: &s.space, writer: &s.writer, opMu: &s.opMu,
		checkpoint: s.Checkpoint, distrust: s.reader.distrust,
		budget:     rate.NewLimiter(rate.Limit(o.CleanBytesPerSecond), int(max(o.CleanBytesPerSecond, cleanBatch))),
		background: &s.background, aliases: &s.aliases, holds: &s.holds,
	}
	return s
}
