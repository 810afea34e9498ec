package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
)

// portNumbersKey is the key of the target port numbers in the store.
const portNumbersKey = "server/ports"

// portNumbersVersion is the version of that record.
const portNumbersVersion = 1

// portNumbers are the numbers of the server's target ports, each of which is a target
// port group of its own: initiators see a volume of several targets as one device, and
// distinguish its ports by their numbers. A port keeps its number, also while it is not
// configured, and no other port gets it until maxAbsentPorts others have left. The record
// and the names of its fields are durable.
type portNumbers struct {
	Version int            `json:"version"`
	Ports   []numberedPort `json:"ports"`

	changed bool
}

type numberedPort struct {
	Target string `json:"target"`
	Group  uint16 `json:"portal_group"`
	Number uint16 `json:"number"`
}

// loadPortNumbers reads the record. Lost numbers are assigned again: initiators may see
// other ones, and no data depends on them.
func loadPortNumbers(store *backstore.Store, log *logrus.Entry) (*portNumbers, error) {
	n := &portNumbers{Version: portNumbersVersion}
	text, err := readParts(store, portNumbersKey)
	if errors.Is(err, backstore.ErrNotFound) {
		return n, nil
	}
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		log.WithError(err).Error("target port numbers are lost and assigned again: hosts with several paths may have to rescan")
		return n, nil
	}
	if err == nil {
		err = json.Unmarshal(text, n)
	}
	if err == nil && n.Version != portNumbersVersion {
		err = fmt.Errorf("version %d is not known", n.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("numbers of target ports: %w", err)
	}
	return n, nil
}

// maxAbsentPorts bounds the ports that are not configured and keep their numbers: targets
// come and go.
const maxAbsentPorts = 4096

// forget drops what was numbered first of the ports that are not configured, and too many.
func (n *portNumbers) forget(cfg *conf.Config) {
	configured := map[numberedPort]bool{}
	for i := range cfg.Targets {
		for _, p := range cfg.Portals {
			configured[numberedPort{Target: cfg.Targets[i].Name, Group: p.Group}] = true
		}
	}
	absent := func(p numberedPort) bool { return !configured[numberedPort{Target: p.Target, Group: p.Group}] }
	n.Ports, n.changed = dropFirst(n.Ports, absent, maxAbsentPorts, n.changed)
}

// dropFirst drops the first elements of list for which is holds until no more than keep of
// these are left. changed becomes true if it drops one.
func dropFirst[T any](list []T, is func(T) bool, keep int, changed bool) ([]T, bool) {
	excess := -keep
	for _, e := range list {
		if is(e) {
			excess++
		}
	}
	if excess <= 0 {
		return list, changed
	}
	return slices.DeleteFunc(list, func(e T) bool {
		if excess <= 0 || !is(e) {
			return false
		}
		excess--
		return true
	}), true
}

// of returns the number of a port. A new one gets the number of its portal group, if no
// port has that, otherwise the one after the largest, or the lowest that is free.
func (n *portNumbers) of(target string, group uint16) (uint16, error) {
	number, largest := group, uint16(0)
	for _, p := range n.Ports {
		if p.Target == target && p.Group == group {
			return p.Number, nil
		}
		largest = max(largest, p.Number)
	}
	if slices.ContainsFunc(n.Ports, func(p numberedPort) bool { return p.Number == group }) {
		if number = largest + 1; largest == math.MaxUint16 {
			number = n.lowestFree()
		}
		if number == 0 {
			return 0, fmt.Errorf("portal group %d of %s: no target port number is left", group, target)
		}
	}
	n.Ports = append(n.Ports, numberedPort{target, group, number})
	n.changed = true
	return number, nil
}

// lowestFree returns the lowest number that no port has, 0 if there is none.
func (n *portNumbers) lowestFree() uint16 {
	var used [math.MaxUint16 + 1]bool
	for _, p := range n.Ports {
		used[p.Number] = true
	}
	return uint16(max(slices.Index(used[1:], false)+1, 0))
}

// save stores new numbers, durably.
func (n *portNumbers) save(ctx context.Context, store *backstore.Store) error {
	if !n.changed {
		return nil
	}
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := writeParts(ctx, store, portNumbersKey, text); err != nil {
		return fmt.Errorf("number target ports: %w", err)
	}
	if err := store.Flush(ctx); err != nil {
		return fmt.Errorf("number target ports: %w", err)
	}
	n.changed = false
	return nil
}
