package scsi

import (
	"context"
	"encoding/json"
	"fmt"

	"odx/target/scsi/record"
)

// portsRecord is the key of the states of ports, which outlive the process;
// keptPortsVersion is the version of the record.
const (
	portsRecord      = "ports"
	keptPortsVersion = 1
)

// keptPorts is the record of the states of ports that initiators have changed.
type keptPorts struct {
	Version int        `json:"version"`
	Ports   []keptPort `json:"ports"`
}

// keptPort is the state of one port.
type keptPort struct {
	Target string `json:"target"`
	ID     uint16 `json:"id"`
	// Configured is the state by the configuration then: another one replaces State.
	Configured PortState `json:"configured"`
	State      PortState `json:"state"`
	ChangedBy  uint32    `json:"changed_by"`
}

// loadPorts returns the states of ports that the process before this one has left.
func loadPorts(era record.Store) ([]keptPort, error) {
	data, err := era.Load(portsRecord)
	if err != nil {
		return nil, fmt.Errorf("states of ports: %w", err)
	}
	if data == nil {
		return nil, nil
	}
	var k keptPorts
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, fmt.Errorf("record of the states of ports: %w", err)
	}
	if k.Version != keptPortsVersion {
		return nil, fmt.Errorf("record of the states of ports: version %d, not %d; use a version of odx that reads it", k.Version, keptPortsVersion)
	}
	for _, p := range k.Ports {
		if !p.State.settable() || p.ChangedBy > changedImplicitly {
			return nil, fmt.Errorf("record of the states of ports: state %d, changed by %d", p.State, p.ChangedBy)
		}
	}
	return k.Ports, nil
}

// keepPorts stores the states of ports for the process that takes over from this one.
func (lu *LogicalUnit) keepPorts(ctx context.Context) error {
	lu.keeping.Lock()
	defer lu.keeping.Unlock()
	lu.mu.Lock()
	lu.portsRestored = false
	k := keptPorts{Version: keptPortsVersion}
	for _, p := range lu.allPorts() {
		if by := p.changedBy.Load(); by != changedByNone {
			k.Ports = append(k.Ports, keptPort{Target: p.target, ID: p.ID, Configured: p.State, State: p.current(), ChangedBy: by})
		}
	}
	lu.mu.Unlock()
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return lu.config.Era.Save(ctx, portsRecord, data)
}

// keepPorts stores the states of the ports that the return of a nexus has restored, or
// that a change of port groups has ended.
func (tg *Target) keepPorts(left ...*LogicalUnit) {
	for _, lu := range append(tg.LUs(), left...) {
		lu.mu.Lock()
		restored := lu.portsRestored
		lu.mu.Unlock()
		if !restored {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), resetLimit)
		err := lu.keepPorts(ctx)
		cancel()
		if err != nil {
			tg.log.WithError(err).Warn("states of ports not stored; a process that takes over from this one has older ones")
		}
	}
}
