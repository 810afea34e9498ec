package scsi

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/blockdev"
	"odx/target/scsi/mode"
	"odx/target/scsi/reserve"
)

// Limits that the Block Limits VPD page reports and that bound the memory and
// the time of one command.
const (
	// maximumBuffered bounds the Data-Out of a command that does not move it in pieces,
	// in bytes, and what PRE-FETCH reads.
	maximumBuffered = 16 << 20
	// optimalTransfer is the length of a command that initiators should not exceed, in
	// bytes.
	optimalTransfer = 1 << 20
	// maximumWriteSame bounds WRITE SAME, in bytes: 32 MiB less one block of the
	// store, to stay a multiple of it.
	maximumWriteSame = 32<<20 - blockdev.BlockLength
	// maximumUnmapBlocks bounds the logical blocks of one UNMAP.
	maximumUnmapBlocks = 1 << 20
	// maximumUnmapDescriptors bounds the block descriptors of one UNMAP.
	maximumUnmapDescriptors = 256
	// maximumCompareAndWrite is in logical blocks; the CDB has 8 bits for it.
	maximumCompareAndWrite = 255
)

// LUConfig describes a logical unit.
type LUConfig struct {
	Volume blockdev.Volume
	// ID is the permanent identity: the NAA and EUI-64 designators and the unit
	// serial number come from it, so that it must stay the same for the same data
	// over restarts, and differ for any other.
	ID [16]byte
	// LogicalBlockLength in bytes: 512 (the default) or 4096.
	LogicalBlockLength int
	// ReadOnly makes the medium write protected for every initiator.
	ReadOnly bool
	// Thin reports the logical unit as thin provisioned: UNMAP works, and WRITE
	// SAME with zeros gives space back.
	Thin bool
	// UnmapGranularity is, with Thin, what UNMAP works best with multiples of, in
	// bytes: a multiple of the logical block length. 0: the blocks of the store; where
	// logical blocks are as long, it is reported only to initiators that need it.
	UnmapGranularity int64
	// Space describes, with Thin, what the logical unit takes its space from.
	Space Space
	// Records keeps what outlives a restart. nil: nothing does, and initiators are
	// told that nothing can be saved.
	Records Records
	// VendorID (8 characters at most), ProductID (16) and Revision (4) are the
	// texts of INQUIRY. Empty ones get defaults.
	VendorID, ProductID, Revision string
}

// LogicalUnit is a direct access block device: a Volume with its identity and
// state. Its methods may be called concurrently, except those that say that
// they belong to the set-up before commands arrive.
type LogicalUnit struct {
	config      LUConfig
	volume      blockdev.Volume
	conditional blockdev.ConditionalWriter // nil when the volume has no atomic compare and write
	updater     blockdev.Updater           // nil when the volume cannot update in one step
	atomic      blockdev.AtomicWriter      // nil when the volume has no atomic writes
	mapper      blockdev.Mapper            // nil when the volume does not know what is mapped
	blockShift  uint
	// blocks is the capacity; commands must not wait for the volume to tell it.
	blocks atomic.Uint64

	// Set up once, read without a lock.
	opcodes   [256]opcode
	vpd       [256]func(n *Nexus) []byte
	errorRows []ErrorSense

	modes        *mode.Parameters
	reservations *reserve.Reservations
	// background are the flushes that no command waits for.
	background backgroundFlush
	// tasks are the tasks of all nexuses.
	tasks taskSet
	// eraser erases the whole medium.
	eraser eraser

	resizing sync.Mutex // serializes Resized

	mu          sync.Mutex // guards what follows
	nexuses     map[*Nexus]*itlNexus
	ports       map[string][]*luPort // by target name
	onReset     []func()
	onNexusLoss []func(*Nexus)

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
	lu := &LogicalUnit{
		config:     c,
		volume:     c.Volume,
		blockShift: uint(bits.TrailingZeros(uint(c.LogicalBlockLength))),
		nexuses:    make(map[*Nexus]*itlNexus),
	}
	lu.background.init()
	lu.conditional, _ = c.Volume.(blockdev.ConditionalWriter)
	lu.updater, _ = c.Volume.(blockdev.Updater)
	lu.atomic, _ = c.Volume.(blockdev.AtomicWriter)
	lu.mapper, _ = c.Volume.(blockdev.Mapper)
	lu.blocks.Store(uint64(c.Volume.Size()) >> lu.blockShift)
	var err error
	if lu.modes, err = mode.Open(modeConfig(&c)); err != nil {
		return nil, fmt.Errorf("saved mode parameters: %w", err)
	}
	if err := lu.installCommands(); err != nil {
		return nil, err
	}
	lu.installVPDPages()
	if lu.reservations, err = reserve.Open(reservedUnit{lu}, c.Records); err != nil {
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

// Volume returns the address space behind the logical unit.
func (lu *LogicalUnit) Volume() blockdev.Volume { return lu.volume }

// LogicalBlockLength returns the length of a logical block in bytes.
func (lu *LogicalUnit) LogicalBlockLength() int { return 1 << lu.blockShift }

// Blocks returns the capacity in logical blocks.
func (lu *LogicalUnit) Blocks() uint64 { return lu.blocks.Load() }

// ID returns the permanent identity.
func (lu *LogicalUnit) ID() [16]byte { return lu.config.ID }

// ReadOnly reports whether the logical unit was made write protected. SWP, the
// software write protection, is another matter: see WriteProtected.
func (lu *LogicalUnit) ReadOnly() bool { return lu.config.ReadOnly }

// WriteProtected returns the sense data that a write to the medium ends with
// now, nil when writing is allowed.
func (lu *LogicalUnit) WriteProtected() error {
	if lu.config.ReadOnly {
		return NewSense(KeyDataProtect, ASCWriteProtected)
	}
	if lu.modes.WriteProtected() {
		return NewSense(KeyDataProtect, ASCSoftwareWriteProtected)
	}
	return nil
}

// WriteThrough reports that the write cache is off (WCE=0): a command that
// changed the medium must Flush before it ends.
func (lu *LogicalUnit) WriteThrough() bool { return !lu.modes.WriteCache() }

// senseFormat is the format that D_SENSE chooses.
func (lu *LogicalUnit) senseFormat() SenseFormat { return lu.modes.SenseFormat() }

// Resized takes over the volume's size and, if it is new, tells every nexus.
// Whoever resizes the volume calls it right after. It waits for the volume.
func (lu *LogicalUnit) Resized() {
	// One at a time, so that an old size cannot replace a new one.
	lu.resizing.Lock()
	defer lu.resizing.Unlock()
	blocks := uint64(lu.volume.Size()) >> lu.blockShift
	if lu.blocks.Swap(blocks) != blocks {
		lu.establish(ASCCapacityDataChanged, nil)
	}
}

// OnReset has fn called after every reset of the logical unit. It belongs to
// the set-up.
func (lu *LogicalUnit) OnReset(fn func()) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onReset = append(lu.onReset, fn)
}

// OnNexusLoss has fn called whenever an I_T nexus of the logical unit ended. It
// belongs to the set-up.
func (lu *LogicalUnit) OnNexusLoss(fn func(*Nexus)) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onNexusLoss = append(lu.onNexusLoss, fn)
}

// OnPreemptAndAbort has fn called when a PREEMPT AND ABORT has ended the commands
// of I_T nexuses, attached or not, to end what goes on for them without a
// command. The preempting command waits for fn. It belongs to the set-up.
func (lu *LogicalUnit) OnPreemptAndAbort(fn func(preempted []NexusID)) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onPreemptAndAbort = append(lu.onPreemptAndAbort, fn)
}

// attach adds a nexus, whose first unit attention is begin.
func (lu *LogicalUnit) attach(n *Nexus, seen uint16, as ViewedLU, begin ASC) *itlNexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	itl := &itlNexus{nexus: n, lun: seen, lu: lu, port: lu.portOf(n.ID), readOnly: as.ReadOnly}
	itl.establish(begin)
	if itl.port != nil && itl.port.demoted() {
		lu.restorePorts(itl.port, n.ID.InitiatorName)
	}
	lu.nexuses[n] = itl
	return itl
}

// detach forgets a nexus and what it holds.
func (lu *LogicalUnit) detach(n *Nexus) {
	lu.reservations.Detach(&n.ID)
	lu.mu.Lock()
	delete(lu.nexuses, n)
	callbacks := lu.onNexusLoss
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn(n)
	}
}

// reset is the logical unit reset condition (SAM-5 6.3.3).
func (lu *LogicalUnit) reset() {
	lu.reservations.Reset()
	lu.modes.Reset()
	lu.establish(ASCBusDeviceResetFunction, nil)
	lu.mu.Lock()
	callbacks := lu.onReset
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn()
	}
}

// attention is the sense data of a unit attention.
func (lu *LogicalUnit) attention(asc ASC) *SenseError {
	sense := NewSense(KeyUnitAttention, asc)
	if asc == ASCSoftThresholdReached {
		return sense.WithInformation(lu.config.softThreshold())
	}
	return sense
}

// establish queues a unit attention for every nexus except one (nil: for all).
func (lu *LogicalUnit) establish(asc ASC, except *Nexus) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	for n, itl := range lu.nexuses {
		if n != except {
			itl.establish(asc)
		}
	}
}

// discardLog returns a log that goes nowhere.
func discardLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}
