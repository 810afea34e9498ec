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
)

// portNumbersKey is the key of the target port numbers in the store.
const portNumbersKey = "server/ports"

// portNumbersVersion is the version of that record.
const portNumbersVersion = 1

// portNumbers are the numbers of the server's target ports, each of which is a target
// port group of its own: initiators see a volume of several targets as one device, and
// distinguish its ports by their numbers. A port keeps its number, also while it is not
// configured, and no other port ever gets it. The record and the names of its fields
// are durable.
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
	text, err := store.GetRecord([]byte(portNumbersKey))
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

// of returns the number of a port. A new one gets the number of its portal group, if
// no port ever had that, otherwise the one after the largest.
func (n *portNumbers) of(target string, group uint16) (uint16, error) {
	number, largest := group, uint16(0)
	for _, p := range n.Ports {
		if p.Target == target && p.Group == group {
			return p.Number, nil
		}
		largest = max(largest, p.Number)
	}
	if slices.ContainsFunc(n.Ports, func(p numberedPort) bool { return p.Number == group }) {
		if largest == math.MaxUint16 {
			return 0, fmt.Errorf("portal group %d of %s: no target port number is left", group, target)
		}
		number = largest + 1
	}
	n.Ports = append(n.Ports, numberedPort{target, group, number})
	n.changed = true
	return number, nil
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
	if err := store.PutRecords(ctx, backstore.Record{Key: []byte(portNumbersKey), Value: text}); err != nil {
		return fmt.Errorf("number target ports: %w", err)
	}
	if err := store.Flush(ctx); err != nil {
		return fmt.Errorf("number target ports: %w", err)
	}
	n.changed = false
	return nil
}
