package backstore

import (
	"path/filepath"
	"time"

	"odx/backstore/journal"
	"odx/backstore/layout"
)

// noteAfter is when a store that machines share notes that its last records are durable, which
// is one more write over the network. Records that follow sooner say so themselves.
const noteAfter = 10 * time.Millisecond

// sharedFile bounds the files of the journal there. Each is an object that is written in small
// pieces, which cost an OSD more in a longer one.
const sharedFile = 8 << 20

func (s *Store) journalOptions(first journal.LSN) journal.Options {
	o := journal.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, layout.JournalDir), StoreID: s.parts.sb.ID, First: first,
		BeforeWrite: s.parts.segments.WriteOut, BeforeSync: s.durable.syncSegments, Legacy: s.parts.sb.OldJournal,
		FileBytes: s.space.journalFile, Left: s.space.noteLeft,
	}
	if s.opts.Shared {
		o.NoteAfter, o.Sparse, o.FileBytes = noteAfter, true, min(o.FileBytes, sharedFile)
	}
	return o
}
