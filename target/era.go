package target

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
)

// eraKey is the key of the record of the era; eraVersion is its version.
const (
	eraKey     = "server/era"
	eraVersion = 1
)

// era is the time from one loss of power of the server, as initiators see it, to the next.
// The end of a process is no loss of power: the hosts, and what they know, go on. A clean
// stop is one, and so is a start of the machine.
type era struct {
	id    admin.EraID
	boot  string // of the machine; "" if it cannot be told
	store *backstore.Store
}

// eraRecord is durable.
type eraRecord struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // in hexadecimal
	Boot    string `json:"boot"`
	// Ended: the server was stopped cleanly.
	Ended bool `json:"ended,omitempty"`
}

// poolBoot stands for the start of the machine where the store is in a pool: what initiators
// know outlives each machine that serves it, and each stop.
const poolBoot = "pool"

// bootID returns the identity of this start of the machine (random(4)).
func bootID(cfg *conf.Config) string {
	if cfg.Pool != nil {
		return poolBoot
	}
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// loadEra goes on with the era of the process before this one, or begins another.
func loadEra(ctx context.Context, store *backstore.Store, boot string, log *logrus.Entry) (*era, error) {
	e := &era{boot: boot, store: store}
	if e.resume(log) {
		log.WithField("era", hex.EncodeToString(e.id[:])).Info("era continues: initiators keep their reservations and path states")
		return e, nil
	}
	if _, err := rand.Read(e.id[:]); err != nil {
		return nil, err
	}
	return e, e.save(ctx, false)
}

// resume takes the era of the record, unless it has ended. A record that cannot be read
// begins another era, as a loss of power does.
func (e *era) resume(log *logrus.Entry) bool {
	text, err := e.store.GetRecord([]byte(eraKey))
	if errors.Is(err, backstore.ErrNotFound) {
		return false
	}
	var r eraRecord
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.Version != eraVersion {
		err = fmt.Errorf("version %d is not known", r.Version)
	}
	var id []byte
	if err == nil {
		id, err = hex.DecodeString(r.ID)
	}
	if err == nil && len(id) != len(e.id) {
		err = fmt.Errorf("an identifier of %d bytes", len(id))
	}
	if err != nil {
		log.WithError(err).Warn("record of the last start unreadable: this start counts as one after a loss of power")
		return false
	}
	if r.Ended || r.Boot == "" || r.Boot != e.boot {
		return false
	}
	e.id = admin.EraID(id)
	return true
}

// end makes the next start begin another era.
func (e *era) end(ctx context.Context) error { return e.save(ctx, true) }

func (e *era) save(ctx context.Context, ended bool) error {
	text, err := json.Marshal(eraRecord{Version: eraVersion, ID: hex.EncodeToString(e.id[:]), Boot: e.boot, Ended: ended})
	if err != nil {
		return err
	}
	return e.store.PutRecords(ctx, backstore.Record{Key: []byte(eraKey), Value: text})
}
