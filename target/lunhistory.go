package target

import (
	"context"
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

	changed bool
	// renewed: the store has another identity than when it was served last, and so
	// has every LUN of it.
	renewed bool
	// lost: which logical units were served is not known, so each may have been another.
	lost bool
}

// servedLUN is a logical unit at a LUN.
type servedLUN struct {
	Target string `json:"target"`
	// Access is the entry of the access list with a LUN map of its own; empty for the
	// LUNs of the target.
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
	h := &lunHistory{Version: lunHistoryVersion, Identity: now}
	text, err := store.GetRecord([]byte(lunHistoryKey))
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
	if h.Identity != now {
		h.renewed, h.changed = h.Identity != "", true
		h.Identity = now
	}
	return h, nil
}

// serve sets the logical unit of a LUN. It returns the previous one, if that was
// another.
func (h *lunHistory) serve(now servedLUN) (before *servedLUN) {
	for i := range h.LUNs {
		l := &h.LUNs[i]
		if l.Target != now.Target || l.Access != now.Access || l.LUN != now.LUN {
			continue
		}
		old := *l
		now.Replaced = old.Replaced || old.Unit != now.Unit
		if old == now {
			return nil
		}
		*l, h.changed = now, true
		if old.Unit == now.Unit {
			return nil // it has another name
		}
		return &old
	}
	now.Replaced = h.lost
	h.LUNs, h.changed = append(h.LUNs, now), true
	return nil
}

// save stores the history, durably.
func (h *lunHistory) save(ctx context.Context, store *backstore.Store) error {
	if !h.changed {
		return nil
	}
	text, err := json.Marshal(h)
	if err == nil {
		err = store.PutRecords(ctx, backstore.Record{Key: []byte(lunHistoryKey), Value: text})
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
func accessKey(a *conf.Access) string { return fmt.Sprint(a.Initiators, a.Addresses) }

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

// compareLUNs updates the history and logs the LUNs that have another logical unit than
// before. It returns the LUNs for which that was ever the case.
func (s *Service) compareLUNs(h *lunHistory, st *state) map[place]bool {
	for i := range st.cfg.Targets {
		t := &st.cfg.Targets[i]
		medium := map[uint16]string{}
		for k := range t.LUNs {
			l := &t.LUNs[k]
			medium[l.Number] = l.Medium()
			s.compareLUN(h, place{t.Name, "", l.Number}, st, l.Medium())
		}
		for i := range t.Access {
			a := &t.Access[i]
			for _, m := range a.LUNs {
				s.compareLUN(h, place{t.Name, accessKey(a), m.As}, st, medium[m.LUN])
			}
		}
	}
	return h.replaced()
}

func (s *Service) compareLUN(h *lunHistory, at place, st *state, medium string) {
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
	if h.renewed && before.Medium == medium {
		s.log.WithFields(fields).Info("store has a new identity: this LUN is another disk for initiators, which are notified")
		return
	}
	s.log.WithFields(fields).Warn("LUN has another disk than before; initiators are notified, but one that has it in use may write to the wrong disk: detach it there, or change the configuration back")
}
