package backstore

import (
	"path/filepath"

	"odx/backstore/journal"
	"odx/backstore/layout"
)

func (s *Store) journalOptions(first journal.LSN) journal.Options {
	return journal.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, layout.JournalDir), StoreID: s.parts.sb.ID, First: first,
		BeforeWrite: s.parts.segments.WriteOut, BeforeSync: s.durable.syncSegments, Legacy: s.parts.sb.OldJournal,
		FileBytes: s.space.journalFile, Left: s.space.noteLeft,
	}
}
