package scsi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/handover"
	"odx/target/qos"
	"odx/target/scsi/sense"
)

// TargetConfig describes a SCSI target device.
type TargetConfig struct {
	// Name is the iSCSI name of the target.
	Name string
	// PortGroups are the target port groups, one for each iSCSI target portal group;
	// the default is one with tag 1.
	PortGroups []PortGroup
	// ImplicitOnly prevents initiators from changing the states of the port groups: SET
	// TARGET PORT GROUPS is not supported.
	ImplicitOnly bool
	// Initiators are the limits of initiators over all their LUNs, of this target and
	// others; nil: there are none.
	Initiators *qos.Initiators
	// Log receives internal target failures; nil discards them.
	Log *logrus.Entry
}

// Target is a SCSI target device: logical units by LUN, and the attached I_T nexuses.
// Transports drive it as their device server.
type Target struct {
	name       string
	log        *logrus.Entry
	epoch      time.Time // whose distance is cheaper to measure than the time
	initiators *qos.Initiators

	mu           sync.Mutex // guards what follows
	ports        []PortGroup
	implicitOnly bool
	units        map[uint16]*LogicalUnit
	// replaced are the LUNs that were another logical unit before a start.
	replaced  map[uint16]bool
	sightings sightings
	nexuses   map[*Nexus]struct{}
	lost      lostNexuses
}

// NewTarget returns a target without logical units.
func NewTarget(c TargetConfig) *Target {
	log := c.Log
	if log == nil {
		log = discardLog()
	}
	return &Target{
		name:         c.Name,
		log:          log.WithField("target", c.Name),
		epoch:        time.Now(),
		initiators:   c.Initiators,
		ports:        c.PortGroups,
		implicitOnly: c.ImplicitOnly,
		units:        make(map[uint16]*LogicalUnit),
		nexuses:      make(map[*Nexus]struct{}),
	}
}

// Name returns the iSCSI name of the target.
func (tg *Target) Name() string { return tg.name }

// AddLU makes lu addressable as LUN lun (0 to 16383), in addition to what the target has.
// It is Reconfigure for one logical unit.
func (tg *Target) AddLU(lun uint16, lu *LogicalUnit) error {
	defer tg.keepPorts()
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if _, ok := tg.units[lun]; ok {
		return fmt.Errorf("LUN %d is taken", lun)
	}
	units := maps.Clone(tg.units)
	units[lun] = lu
	_, err := tg.reconfigure(Configuration{Units: units, PortGroups: tg.ports, ImplicitOnly: tg.implicitOnly, Replaced: tg.replaced})
	return err
}

// Replaced records that before this start, or an earlier one, another logical unit was
// at lun. A new nexus that sees the LUN under this number and has not been notified
// gets INQUIRY DATA HAS CHANGED there, and REPORTED LUNS DATA HAS CHANGED everywhere.
// It belongs to the set-up; for a nexus with a View, ViewedLU.Replaced has that
// meaning. A nexus known to have found another logical unit (KeepSightings) is notified
// without it.
func (tg *Target) Replaced(lun uint16) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	replaced := map[uint16]bool{lun: true} // Reconfigure may have the map of its caller
	maps.Copy(replaced, tg.replaced)
	tg.replaced = replaced
}

// LU returns the logical unit at lun, or nil.
func (tg *Target) LU(lun uint16) *LogicalUnit {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.units[lun]
}

// LUNs returns the LUNs in use, ascending.
func (tg *Target) LUNs() []uint16 {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return slices.Sorted(maps.Keys(tg.units))
}

// LUs returns the logical units in the order of their LUNs.
func (tg *Target) LUs() []*LogicalUnit {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.unitsByLUN()
}

// unitsByLUN is LUs. The caller holds tg.mu.
func (tg *Target) unitsByLUN() []*LogicalUnit {
	var lus []*LogicalUnit
	for _, lun := range slices.Sorted(maps.Keys(tg.units)) {
		lus = append(lus, tg.units[lun])
	}
	return lus
}

// Attach opens an I_T nexus that sees every logical unit. Each reports to it power on
// once, or the loss of the nexus since.
func (tg *Target) Attach(id NexusID) *Nexus { return tg.AttachWith(id, Rights{}) }

// AttachWith opens an I_T nexus with its own view of the logical units, which
// must not be changed any more.
func (tg *Target) AttachWith(id NexusID, r Rights) *Nexus {
	n := newNexus(tg, id, r)
	tg.attach(n, tg.beginning, nil)
	return n
}

// beginning returns how a nexus begins that logs in. The caller holds tg.mu.
func (tg *Target) beginning(id NexusID) beginning {
	switch {
	case tg.lost.take(id):
		return lost
	case tg.sightings.resumes(id):
		return resumed
	}
	return poweredOn
}

// attach adds a nexus. Its logical units in before, by the LUN of the nexus, continue;
// begin returns how the others begin. before is nil for a nexus that logs in.
func (tg *Target) attach(n *Nexus, begin func(NexusID) beginning, before map[uint16]*handover.Unit) {
	defer tg.keepPorts()
	tg.mu.Lock()
	defer tg.mu.Unlock()
	how := begin(n.ID)
	units := make(map[uint16]*itlNexus, len(tg.units))
	replaced, announced := false, false
	same := 0 // as before
	for seen, as := range tg.viewed(n.view) {
		lu := tg.units[as.LUN]
		if u := before[seen]; lu.continues(u) {
			same++
			units[seen] = lu.attach(n, seen, as, continued)
			units[seen].restore(u)
			announced = announced || slices.Contains(u.Attentions, uint16(sense.ASCReportedLUNsDataChanged))
		} else {
			units[seen] = lu.attach(n, seen, as, how)
		}
		if tg.findsAnother(n, seen, lu, as.Replaced) {
			units[seen].establish(sense.ASCInquiryDataChanged)
			replaced = true
		}
	}
	switch {
	case before != nil && (same != len(units) || same != len(before)):
		n.inventory = inventory(units)
		announce(units)
	case announced:
		n.inventory = inventory(units)
	case replaced:
		tg.announceReplaced(n, units)
	}
	n.units.Store(&units)
	tg.nexuses[n] = struct{}{}
}

// Detach ends an I_T nexus (SAM-5 6.3.4, I_T nexus loss): its reservations are
// released. No task of it may be running.
func (tg *Target) Detach(n *Nexus) {
	tg.mu.Lock()
	if _, attached := tg.nexuses[n]; attached {
		delete(tg.nexuses, n)
		tg.lost.add(n.ID)
	}
	units := n.units.Swap(nil)
	tg.mu.Unlock()
	if units == nil {
		return
	}
	for _, itl := range *units {
		itl.lu.detach(itl)
	}
	if tg.initiators != nil {
		tg.initiators.Leave(n.ID.InitiatorName)
	}
}

// Prepare looks up the logical unit, reports unit attentions and reservation conflicts,
// checks the CDB and sets t.LU and t.Wanted. It does not block. done reports that the
// task has ended.
func (tg *Target) Prepare(t *Task) (done bool) {
	itl := t.Nexus.unit(t.Lun)
	var err error
	if itl == nil {
		err = prepareMissing(t)
	} else {
		t.LU = itl.lu
		err = itl.prepare(t)
	}
	if err != nil {
		t.refused(err)
		t.countRefused(err)
		tg.fail(t, err)
		return true
	}
	return false
}

// Execute runs a task that Prepare passed and sets its status, Data-In and sense data.
// A streamed task takes several calls: see Task.Streamed.
func (tg *Target) Execute(ctx context.Context, t *Task) {
	t.stream.more = false
	began := time.Since(tg.epoch)
	defer func() {
		t.took += time.Since(tg.epoch) - began
		if !t.stream.more {
			t.count()
			t.Leave()
		}
	}()
	err := t.admit(ctx)
	if err != nil {
		t.refused(err)
	} else {
		err = t.op.Execute(ctx, t)
	}
	if err != nil {
		t.stream.more = false
		t.DropDataIn()
		tg.fail(t, err)
		return
	}
	t.Result = StatusGood
}

// HasLU reports whether lun names a logical unit that n can address.
func (tg *Target) HasLU(n *Nexus, lun [8]byte) bool { return n.unit(lun) != nil }

// ResetLU does the device server's part of a LOGICAL UNIT RESET.
func (tg *Target) ResetLU(n *Nexus, lun [8]byte) {
	if itl := n.unit(lun); itl != nil {
		if err := itl.lu.reset(); err != nil {
			tg.log.WithError(err).WithField("lun", itl.lun).Warn("reset not stored; a process that takes over from this one may not know of it")
		}
	}
}

// TasksAborted notifies the nexuses other than n by unit attention that their tasks
// were aborted, unless TAS reports it in the status of each task.
func (tg *Target) TasksAborted(n *Nexus, lun [8]byte) {
	if itl := n.unit(lun); itl != nil && !itl.lu.modes.ReportsAborts() {
		itl.lu.establish(sense.ASCCommandsClearedByOther, n)
	}
}

// fail ends t with the status and sense data of err.
func (tg *Target) fail(t *Task, err error) {
	if status, ok := plainStatus(err); ok {
		t.Result = status
		return
	}
	format := sense.Fixed
	se := sense.New(sense.KeyHardwareError, sense.ASCInternalTargetFailure)
	if t.LU != nil {
		format = t.LU.senseFormat()
		se = t.LU.Sense(err)
	} else if own, ok := err.(*sense.Error); ok {
		se = own
	}
	if se.Key == sense.KeyHardwareError || se.Key == sense.KeyMediumError {
		tg.log.WithError(err).WithField("cdb", fmt.Sprintf("% x", t.CDB())).Error("command failed: internal target failure")
	}
	t.Result = StatusCheckCondition
	var buf [64]byte
	t.SetSense(se.AppendSense(buf[:0], format))
}
