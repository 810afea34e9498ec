package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
)

// lunHistoryKey is the key of the LUN history in the store, and lunHistoryVersion its
// version.
const (
	lunHistoryKey     = "server/luns"
	lunHistoryVersion = 1
)

// lunHistory records which logical unit was last served at each LUN. An initiator that
// logs in again after a restart continues with its disk; if the LUN has another disk,
// the initiator has to be notified before it writes. The record and the names of its
// fields are durable.
type lunHistory struct {
	Version int         `json:"version"`
	LUNs    []servedLUN `json:"luns"`
	// Identity is that of the store, in hexadecimal; empty in older records.
	Identity string `json:"identity,omitempty"`
	// Forgot: LUNs that were not configured were dropped, so one that is not here may have
	// been another logical unit.
	Forgot bool `json:"forgot,omitempty"`

	changed bool
	// renewed: the store has another identity than when it was served last, and so
	// has every LUN of it.
	renewed bool
	// lost: which logical units were served is not known, so each may have been another.
	lost bool
	at   map[place]int // in LUNs
	// differences are lines for the log, once what is compared is served.
	differences []func(log *logrus.Entry)
}

// maxAbsentLUNs bounds the LUNs in the history that are not configured: LUNs come and go.
const maxAbsentLUNs = 4096

// servedLUN is a logical unit at a LUN.
type servedLUN struct {
	Target string `json:"target"`
	// Access is the key of the entry of the access list with a LUN map of its own; empty
	// for the LUNs of the target.
	Access string `json:"access,omitempty"`
	LUN    uint16 `json:"lun"`
	// Unit is the identity of the logical unit in hexadecimal, Medium its medium.
	Unit   string `json:"unit"`
	Medium string `json:"medium"`
	// Replaced: at this or an earlier start it replaced another one.
	Replaced bool `json:"replaced,omitempty"`
}

// loadLUNHistory reads the record. Without it initiators are notified at every LUN.
func loadLUNHistory(store *backstore.Store, log *logrus.Entry) (*lunHistory, error) {
	id := store.ID()
	now := hex.EncodeToString(id[:])
	h := &lunHistory{Version: lunHistoryVersion, Identity: now, at: map[place]int{}}
	text, err := readParts(store, lunHistoryKey)
	if errors.Is(err, backstore.ErrNotFound) {
		return h, nil
	}
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		log.WithError(err).Error("the history of LUNs is lost: all initiators are notified that a LUN may have another disk than before")
		h.lost, h.changed = true, true
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(text, h)
	}
	if err == nil && h.Version != lunHistoryVersion {
		err = fmt.Errorf("version %d is not known", h.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("history of LUNs: %w", err)
	}
	for i := range h.LUNs {
		h.LUNs[i].Access = shortKey(h.LUNs[i].Access)
	}
	h.index()
	if h.Identity != now {
		h.renewed, h.changed = h.Identity != "", true
		h.Identity = now
	}
	return h, nil
}

// index makes at what LUNs says.
func (h *lunHistory) index() {
	clear(h.at)
	for i, l := range h.LUNs {
		h.at[place{l.Target, l.Access, l.LUN}] = i
	}
}

// serve sets the logical unit of a LUN. It returns the previous one, if that was
// another.
func (h *lunHistory) serve(now servedLUN) (before *servedLUN) {
	at := place{now.Target, now.Access, now.LUN}
	i, known := h.at[at]
	if !known {
		now.Replaced = h.lost || h.Forgot
		h.at[at] = len(h.LUNs)
		h.LUNs, h.changed = append(h.LUNs, now), true
		return nil
	}
	old := h.LUNs[i]
	now.Replaced = old.Replaced || old.Unit != now.Unit
	if old == now {
		return nil
	}
	h.LUNs[i], h.changed = now, true
	if old.Unit == now.Unit {
		return nil // it has another name
	}
	return &old
}

// forget drops what is too much of the LUNs that are not configured.
func (h *lunHistory) forget(configured map[place]bool) {
	absent := func(l servedLUN) bool { return !configured[place{l.Target, l.Access, l.LUN}] }
	if h.LUNs, h.Forgot = dropFirst(h.LUNs, absent, maxAbsentLUNs, h.Forgot); len(h.LUNs) < len(h.at) {
		h.changed = true
		h.index()
	}
}

// save stores the history, durably.
func (h *lunHistory) save(ctx context.Context, store *backstore.Store) error {
	if !h.changed {
		return nil
	}
	text, err := json.Marshal(h)
	if err == nil {
		err = writeParts(ctx, store, lunHistoryKey, text)
	}
	if err == nil {
		err = store.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("store history of LUNs: %w", err)
	}
	h.changed = false
	return nil
}

// place is a LUN of a target, or of an entry of its access list.
type place struct {
	target, access string
	lun            uint16
}

// accessKey names an entry of an access list.
func accessKey(a *conf.Access) string { return shortKey(fmt.Sprint(a.Initiators, a.Addresses)) }

// shortKey returns a key of bounded length for the text of an entry, which may have
// thousands of initiators and is in the history once for each of its LUNs.
func shortKey(text string) string {
	const longest = 256
	if len(text) <= longest {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// replaced returns the LUNs whose logical unit was replaced, at this or an earlier
// start.
func (h *lunHistory) replaced() map[place]bool {
	places := map[place]bool{}
	for i := range h.LUNs {
		if l := &h.LUNs[i]; l.Replaced {
			places[place{l.Target, l.Access, l.LUN}] = true
		}
	}
	return places
}

// compare updates the history with a state, and notes the LUNs that have another logical
// unit than before. It returns the LUNs for which that was ever the case.
func (h *lunHistory) compare(st *state) map[place]bool {
	configured := map[place]bool{}
	visit := func(at place, medium string) {
		configured[at] = true
		h.compareLUN(at, st, medium)
	}
	for i := range st.cfg.Targets {
		t := &st.cfg.Targets[i]
		medium := map[uint16]string{}
		for k := range t.LUNs {
			l := &t.LUNs[k]
			medium[l.Number] = l.Medium()
			visit(place{t.Name, "", l.Number}, l.Medium())
		}
		for i := range t.Access {
			a := &t.Access[i]
			for _, m := range a.LUNs {
				visit(place{t.Name, accessKey(a), m.As}, medium[m.LUN])
			}
		}
	}
	h.forget(configured)
	return h.replaced()
}

func (h *lunHistory) compareLUN(at place, st *state, medium string) {
	lu := st.unit(medium)
	if lu == nil {
		return
	}
	id := lu.ID()
	before := h.serve(servedLUN{Target: at.target, Access: at.access, LUN: at.lun, Unit: hex.EncodeToString(id[:]), Medium: medium})
	if before == nil {
		return
	}
	fields := logrus.Fields{"target": at.target, "lun": at.lun, "before": before.Medium, "now": medium}
	if at.access != "" {
		fields["access"] = at.access
	}
	renewed := h.renewed && before.Medium == medium
	h.differences = append(h.differences, func(log *logrus.Entry) {
		if log = log.WithFields(fields); renewed {
			log.Info("store has a new identity: this LUN is another disk for initiators, which are notified")
			return
		}
		log.Warn("LUN has another disk than before; initiators are notified, but one that has it in use may write to the wrong disk: detach it there, or change the configuration back")
	})
}

// logDifferences logs what compare has noted.
func (h *lunHistory) logDifferences(log *logrus.Entry) {
	for _, write := range h.differences {
		write(log)
	}
	h.differences = nil
}
