package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
	"odx/pool/address"
	"odx/target/iscsi"
)

const (
	// connectionsKey is the key of the record of connections, connectionsVersion its version.
	connectionsKey     = "server/connections"
	connectionsVersion = 1
	// maxConnections is how many connections the record has: it is one row of metadata.
	maxConnections = 1000
	// connectionsEvery is how long a connection may be missing in the record.
	connectionsEvery = time.Second
)

// ownerAddresses are the addresses that follow the owner of a store in a pool, and the
// connections to them, which the next owner resets. The zero value has none.
type ownerAddresses struct {
	list  []conf.OwnerAddress
	store *backstore.Store
	log   *logrus.Entry
	held  *address.Held // nil for none
	known []address.Connection
}

// connectionsRecord is durable.
type connectionsRecord struct {
	Version     int                `json:"version"`
	Connections []connectionRecord `json:"connections"`
}

// connectionRecord is an address.Connection.
type connectionRecord struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
}

// hold adds the addresses of a configuration to this machine.
func (o *ownerAddresses) hold(cfg *conf.Config, store *backstore.Store, log *logrus.Entry) error {
	if cfg.Pool == nil || len(cfg.Pool.Addresses) == 0 {
		return nil
	}
	o.list, o.store, o.log = cfg.Pool.Addresses, store, log
	var err error
	if o.known, err = loadConnections(store); err != nil {
		log.WithError(err).Warn("connections of the server before this one not known: their initiators find out by themselves")
	}
	if o.held, err = address.Hold(o.list, store, log); err != nil {
		return cfg.Problem("ceph.addresses", "%v", err)
	}
	return nil
}

// announce is called when connections to the addresses are accepted.
func (o *ownerAddresses) announce() {
	if o.held != nil {
		o.held.Announce(o.known)
	}
}

// close removes the addresses.
func (o *ownerAddresses) close() error {
	if o.held == nil {
		return nil
	}
	return o.held.Close()
}

// loadConnections returns the connections of the server before this one.
func loadConnections(store *backstore.Store) ([]address.Connection, error) {
	text, err := store.GetRecord([]byte(connectionsKey))
	if errors.Is(err, backstore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseConnections(text)
}

func parseConnections(text []byte) ([]address.Connection, error) {
	var r connectionsRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	if r.Version != connectionsVersion {
		return nil, fmt.Errorf("version %d is not known", r.Version)
	}
	if len(r.Connections) > maxConnections {
		return nil, fmt.Errorf("%d connections are more than %d", len(r.Connections), maxConnections)
	}
	var list []address.Connection
	for _, c := range r.Connections {
		if !c.Local.IsValid() || !c.Remote.IsValid() {
			return nil, errors.New("a connection without addresses")
		}
		list = append(list, address.Connection(c))
	}
	return list, nil
}

// keepConnections keeps the record of connections until ctx ends. It is written when they
// change, once a second at most. After ctx the record stays as it is: connections that a clean
// stop has closed are reset once more.
func (o *ownerAddresses) keepConnections(ctx context.Context, sessions func() []iscsi.SessionInfo) {
	if o.held == nil {
		return
	}
	tick := time.NewTicker(connectionsEvery)
	defer tick.Stop()
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := o.connections(sessions())
		if slices.Equal(now, o.known) {
			continue
		}
		err := o.save(ctx, now)
		if err == nil {
			o.known = now
		} else if !failed {
			o.log.WithError(err).Warn("connections not stored: after a takeover their initiators find out by themselves")
		}
		failed = err != nil
	}
}

// connections returns those of sessions to the addresses, in an order that does not change.
func (o *ownerAddresses) connections(sessions []iscsi.SessionInfo) (list []address.Connection) {
	for _, s := range sessions {
		for _, c := range s.Connections {
			local, err := netip.ParseAddrPort(c.Local)
			remote, remoteErr := netip.ParseAddrPort(c.Remote)
			ours := slices.ContainsFunc(o.list, func(a conf.OwnerAddress) bool { return a.Prefix.Addr() == local.Addr() })
			if err == nil && remoteErr == nil && ours && len(list) < maxConnections {
				list = append(list, address.Connection{Local: local, Remote: remote})
			}
		}
	}
	slices.SortFunc(list, func(a, b address.Connection) int { return a.Remote.Compare(b.Remote) })
	return list
}

func (o *ownerAddresses) save(ctx context.Context, list []address.Connection) error {
	r := connectionsRecord{Version: connectionsVersion}
	for _, c := range list {
		r.Connections = append(r.Connections, connectionRecord(c))
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := o.store.PutRecords(ctx, backstore.Record{Key: []byte(connectionsKey), Value: text}); err != nil {
		return err
	}
	return o.store.Flush(ctx)
}
