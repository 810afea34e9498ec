package scsi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/blockdev"
	"odx/target/handover"
	"odx/target/qos"
	"odx/target/scsi/mode"
	"odx/target/scsi/record"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// Limits of the Block Limits VPD page, which bound the memory and the time of one
// command.
const (
	// maximumBuffered bounds the Data-Out of a command that is not streamed, and the
	// length of PRE-FETCH, in bytes.
	maximumBuffered = 16 << 20
	// optimalTransfer is the length in bytes that initiators should not exceed.
	optimalTransfer = 1 << 20
	// maximumWriteSame bounds WRITE SAME, in bytes: 32 MiB less one block of the store,
	// so that it is a multiple of that block.
	maximumWriteSame = 32<<20 - blockdev.BlockLength
	// maximumUnmapBlocks bounds the logical blocks of one UNMAP.
	maximumUnmapBlocks = 1 << 20
	// maximumUnmapDescriptors bounds the block descriptors of one UNMAP.
	maximumUnmapDescriptors = 256
	// maximumCompareAndWrite is in logical blocks; the CDB field has 8 bits.
	maximumCompareAndWrite = 255
)

// LUConfig describes a logical unit.
type LUConfig struct {
	Volume blockdev.Volume
	// ID is the permanent identity. The NAA and EUI-64 designators and the unit serial
	// number are derived from it, so it must stay the same for the same data across
	// restarts, and differ for any other.
	ID [16]byte
	// LogicalBlockLength in bytes: 512 (the default) or 4096.
	LogicalBlockLength int
	// ReadOnly write protects the medium for every initiator.
	ReadOnly bool
	// Thin reports the logical unit as thin provisioned: UNMAP works, and WRITE SAME
	// with zeros deallocates.
	Thin bool
	// UnmapGranularity is, with Thin, the granularity in bytes that suits UNMAP best: a
	// multiple of the logical block length. 0 means the block length of the store; if
	// logical blocks have the same length, it is reported only to initiators that need
	// it.
	UnmapGranularity int64
	// Space describes, with Thin, the LBA mapping resources of the logical unit.
	Space Space
	// Records stores the state that survives a restart. With nil nothing does, and
	// initiators learn that saving is not supported.
	Records Records
	// Era stores the state that outlives the process, but no loss of power: current mode
	// parameters, all persistent reservations, the states of ports. An era is the time
	// from one loss of power to the next. nil: none outlives the process.
	Era Records
	// Volatile: the medium loses writes with the process, as a cache does that writes
	// back, so that each start is a loss of power for it.
	Volatile bool
	// WriteThrough: the write cache is off, and no initiator can turn it on.
	WriteThrough bool
	// Audit receives what initiators have changed. It is called once the change has been
	// made, by the command that made it, and must not block. nil: nothing does.
	Audit func(Event)
	// VendorID (at most 8 characters), ProductID (16) and Revision (4) are the texts of
	// INQUIRY. Empty ones get defaults.
	VendorID, ProductID, Revision string
}

// LogicalUnit is a direct access block device: a Volume with its identity and state.
// Its methods may be called concurrently, except those documented as part of the set-up
// before commands arrive.
type LogicalUnit struct {
	config LUConfig
	// on is what the logical unit stores its blocks on; it changes while commands are held.
	on         atomic.Pointer[medium]
	holding    hold
	away       atomic.Uint32 // a PortState: see SetAway
	blockShift uint
	// blocks is the capacity, cached so that commands do not wait for the volume.
	blocks atomic.Uint64
	// changeable is what of config can change: config has what it was at first.
	changeable changeable
	// limiter has the limits of the logical unit for all initiators together, initiators
	// those for each.
	limiter    qos.Limiter
	initiators qos.Initiators

	// Set at creation, read without a lock.
	opcodes   [256]opcode
	vpd       [256]func(n *Nexus) []byte
	errorRows []ErrorSense

	modes        *mode.Parameters
	reservations *reserve.Reservations
	// background runs the flushes that no command waits for.
	background backgroundFlush
	// tasks are the tasks of all nexuses.
	tasks taskSet
	// eraser erases the whole medium.
	eraser eraser

	resizing sync.Mutex // serializes Resized
	keeping  sync.Mutex // serializes keepPorts; before mu

	mu      sync.Mutex // guards the fields below
	nexuses map[*Nexus]*itlNexus
	// former have tasks here, and belong to nexuses that have lost the logical unit.
	former    []*itlNexus
	accounts  accounts
	ports     map[string][]*luPort // by target name
	keptPorts []keptPort           // from the process before this one
	// portsRestored: restorePorts has changed states that keepPorts is to store.
	portsRestored bool
	onReset       []func()
	onNexusLoss   []func(*Nexus)
	onSuspend     []func(context.Context, *Nexus, *handover.Unit)
	onContinue    []func(*Nexus, *handover.Unit)

	onPreemptAndAbort []func([]NexusID)
}

// NewLogicalUnit returns a logical unit with the commands of SPC-4 and SBC-3
// that a disk needs.
func NewLogicalUnit(c LUConfig) (*LogicalUnit, error) {
	if c.Volume == nil {
		return nil, errors.New("logical unit without volume")
	}
	if c.LogicalBlockLength == 0 {
		c.LogicalBlockLength = 512
	}
	if c.LogicalBlockLength != 512 && c.LogicalBlockLength != 4096 {
		return nil, fmt.Errorf("logical block length %d: must be 512 or 4096", c.LogicalBlockLength)
	}
	if c.Volume.Size() < int64(c.LogicalBlockLength) {
		return nil, fmt.Errorf("volume of %d bytes: too small for one logical block of %d", c.Volume.Size(), c.LogicalBlockLength)
	}
	if err := c.defaultTexts(); err != nil {
		return nil, err
	}
	if c.Era == nil || c.Volatile {
		c.Era = record.None{}
	}
	lu := &LogicalUnit{
		config:     c,
		blockShift: uint(bits.TrailingZeros(uint(c.LogicalBlockLength))),
		nexuses:    make(map[*Nexus]*itlNexus),
	}
	lu.background.init()
	lu.on.Store(newMedium(c.Volume))
	lu.blocks.Store(uint64(c.Volume.Size()) >> lu.blockShift)
	lu.changeable.init(&c)
	lu.accounts.recent.sample(time.Now(), Stats{})
	var err error
	if lu.modes, err = mode.Open(modeConfig(&c)); err != nil {
		return nil, fmt.Errorf("saved mode parameters: %w", err)
	}
	if err := lu.installCommands(); err != nil {
		return nil, err
	}
	lu.installVPDPages()
	if lu.reservations, err = reserve.Open(reservedUnit{lu}, c.Records, c.Era); err != nil {
		return nil, err
	}
	if lu.keptPorts, err = loadPorts(c.Era); err != nil {
		return nil, err
	}
	if err := lu.eraser.init(lu); err != nil {
		return nil, err
	}
	return lu, nil
}

// defaultTexts fills in the INQUIRY texts and checks their lengths.
func (c *LUConfig) defaultTexts() error {
	texts := []struct {
		name     string
		text     *string
		length   int
		fallback string
	}{
		{"vendor identification", &c.VendorID, 8, "ODX"},
		{"product identification", &c.ProductID, 16, "VIRTUAL-DISK"},
		{"product revision level", &c.Revision, 4, "0001"},
	}
	for _, t := range texts {
		if *t.text == "" {
			*t.text = t.fallback
		}
		if len(*t.text) > t.length {
			return fmt.Errorf("%s %q: at most %d characters", t.name, *t.text, t.length)
		}
		for _, r := range *t.text {
			if r < 0x20 || r > 0x7E {
				return fmt.Errorf("%s %q: printable ASCII only", t.name, *t.text)
			}
		}
	}
	return nil
}

// Volume returns the volume of the logical unit. It can be another one later: see
// SetVolume.
func (lu *LogicalUnit) Volume() blockdev.Volume { return lu.on.Load().Volume }

// LogicalBlockLength returns the length of a logical block in bytes.
func (lu *LogicalUnit) LogicalBlockLength() int { return 1 << lu.blockShift }

// Blocks returns the capacity in logical blocks.
func (lu *LogicalUnit) Blocks() uint64 { return lu.blocks.Load() }

// ID returns the permanent identity.
func (lu *LogicalUnit) ID() [16]byte { return lu.config.ID }

// ReadOnly reports whether the logical unit is write protected by its configuration. SWP,
// the software write protection, is separate: see WriteProtected.
func (lu *LogicalUnit) ReadOnly() bool { return lu.changeable.readOnly.Load() }

// WriteProtected returns the sense data that a write to the medium currently ends with,
// or nil.
func (lu *LogicalUnit) WriteProtected() error {
	if lu.ReadOnly() {
		return sense.New(sense.KeyDataProtect, sense.ASCWriteProtected)
	}
	if lu.modes.WriteProtected() {
		return sense.New(sense.KeyDataProtect, sense.ASCSoftwareWriteProtected)
	}
	return nil
}

// WriteThrough reports that the write cache is off (WCE=0): a command that changed the
// medium must Flush before it ends.
func (lu *LogicalUnit) WriteThrough() bool { return !lu.modes.WriteCache() }

// senseFormat returns the format that D_SENSE selects.
func (lu *LogicalUnit) senseFormat() sense.Format { return lu.modes.SenseFormat() }

// Resized reads the size of the volume and notifies every nexus if it has changed. The
// caller that resizes the volume calls it right afterwards. It waits for the volume.
func (lu *LogicalUnit) Resized() {
	// Calls are serialized, so that an old size cannot replace a new one.
	lu.resizing.Lock()
	defer lu.resizing.Unlock()
	blocks := uint64(lu.Volume().Size()) >> lu.blockShift
	if lu.blocks.Swap(blocks) != blocks {
		lu.establish(sense.ASCCapacityDataChanged, nil)
	}
}

// OnReset registers fn, which runs after every reset of the logical unit. It belongs to
// the set-up.
func (lu *LogicalUnit) OnReset(fn func()) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onReset = append(lu.onReset, fn)
}

// OnNexusLoss registers fn, which runs when an I_T nexus of the logical unit has ended.
// It belongs to the set-up.
func (lu *LogicalUnit) OnNexusLoss(fn func(*Nexus)) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onNexusLoss = append(lu.onNexusLoss, fn)
}

// OnPreemptAndAbort registers fn, which runs when PREEMPT AND ABORT has ended the
// commands of I_T nexuses, attached or not. fn ends the background work of these
// nexuses; the preempting command waits for it. It belongs to the set-up.
func (lu *LogicalUnit) OnPreemptAndAbort(fn func(preempted []NexusID)) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onPreemptAndAbort = append(lu.onPreemptAndAbort, fn)
}

// attach adds a nexus; its first unit attention, if any, says how it begins.
func (lu *LogicalUnit) attach(n *Nexus, seen uint16, as ViewedLU, how beginning) *itlNexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	itl := &itlNexus{nexus: n, lun: seen, lu: lu}
	itl.readOnly.Store(as.ReadOnly)
	port := lu.portOf(n.ID)
	itl.port.Store(port)
	itl.account = lu.accounts.join(lu, n.ID.InitiatorName)
	if how == resumed && lu.config.Volatile {
		how = poweredOn
	}
	if asc := how.attention(); asc != sense.ASCNone {
		itl.establish(asc)
	}
	// A nexus that the end of a process interrupted has not lost its path.
	if port != nil && port.demoted() && how != resumed && how != continued {
		lu.restorePorts(port, n.ID.InitiatorName)
	}
	lu.nexuses[n] = itl
	return itl
}

// detach removes the I_T_L nexus of a nexus that ends or that loses the logical unit, and
// its reservations.
func (lu *LogicalUnit) detach(itl *itlNexus) {
	n := itl.nexus
	lu.reservations.Detach(&n.ID)
	lu.mu.Lock()
	delete(lu.nexuses, n)
	lu.accounts.leave(lu, itl)
	lu.former = slices.DeleteFunc(append(lu.former, itl), func(f *itlNexus) bool {
		if f.tasks.Load() > 0 {
			return false
		}
		lu.accounts.fold(f)
		return true
	})
	callbacks := lu.onNexusLoss
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn(n)
	}
}

// resetLimit bounds how long a reset waits for the store.
const resetLimit = time.Second

// reset establishes the logical unit reset condition (SAM-5 6.3.3). An error means that
// a process that takes over from this one may not know of it.
func (lu *LogicalUnit) reset() error {
	lu.reservations.Reset()
	ctx, cancel := context.WithTimeout(context.Background(), resetLimit)
	defer cancel()
	err := lu.modes.Reset(ctx)
	lu.establish(sense.ASCBusDeviceResetFunction, nil)
	lu.mu.Lock()
	callbacks := lu.onReset
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn()
	}
	return err
}

// attention returns the sense data of a unit attention.
func (lu *LogicalUnit) attention(asc sense.ASC) *sense.Error {
	se := sense.New(sense.KeyUnitAttention, asc)
	if asc == sense.ASCSoftThresholdReached {
		return se.WithInformation(softThreshold(lu.changeable.softThreshold.Load()))
	}
	return se
}

// establish queues a unit attention for every nexus except one (nil: for all).
func (lu *LogicalUnit) establish(asc sense.ASC, except *Nexus) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	for n, itl := range lu.nexuses {
		if n != except {
			itl.establish(asc)
		}
	}
}

// discardLog returns a log that discards its entries.
func discardLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}
