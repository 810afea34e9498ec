package backstore

import (
	"errors"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/journal"
	"odx/backstore/known"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
)

// parts are the packages below that a store is made of, each opened when open, an
// upgrade or a repair comes to it, and nil before. A component has a pointer to them. No
// lock guards them: they are set before anything else uses the store.
type parts struct {
	sb           layout.Superblock
	fingerprints *fingerprint.Key

	kv       meta.KV
	segments *segment.Set
	journal  *journal.Journal // nil where it is damaged, and the store is only read
	clock    *pages.Clock
	usage    *extent.Usage
	extents  *extent.Table
	forest   *blockmap.Forest
	known    *known.Table
}

// close closes what openParts has opened.
func (p *parts) close() error {
	var errs []error
	if p.journal != nil {
		errs = append(errs, p.journal.Close())
	}
	if p.segments != nil {
		errs = append(errs, p.segments.Close())
	}
	if p.kv != nil {
		errs = append(errs, p.kv.Close())
	}
	return errors.Join(errs...)
}

// dirty returns about how many bytes of metadata no checkpoint has stored.
func (p *parts) dirty() int64 {
	return p.forest.DirtyBytes() + p.extents.DirtyBytes() + p.known.DirtyBytes()
}
