package backstore

import (
	"github.com/sirupsen/logrus"

	"odx/backstore/damage"
	"odx/backstore/journal"
	"odx/backstore/record"
)

// recovery knows what opening the store found: which records were replayed, and what is
// lost or stored elsewhere. One goroutine changes it, before anything else uses the store.
type recovery struct {
	parts   *parts
	opts    *Options
	log     *logrus.Entry
	damage  *damage.Log
	catalog *catalog
	life    *life
	durable *syncer
	aliases *aliases

	redone    journal.LSN // the last record that was replayed
	stateless bool        // it is not known which records the rows have; none is replayed
	guessed   bool        // rows of volumes are lost: no more than an older row, or nothing, is known of some
	unused    record.Unused

	displaced      []displaced // by the replay
	displacedBytes int         // how long it was
}
