package scsi

import (
	"sync/atomic"

	"odx/latency"
	"odx/target/qos"
	"odx/target/scsi/sense"
)

// Kind classifies commands for Stats.
type Kind int

// Kinds of commands.
const (
	KindOther Kind = iota // all others, VERIFY among them
	KindRead
	KindWrite // also WRITE SAME and the writes that compare
	KindUnmap
	KindCopy // third-party copies
	Kinds    = iota
)

// String returns the name of the kind in reports.
func (k Kind) String() string {
	return [Kinds]string{"other", "read", "write", "unmap", "copy"}[k]
}

// Counts are commands of one kind. They only grow.
type Counts struct {
	// Commands are those that have ended, other than with a unit attention, which is sent
	// again, and other than aborted before they began.
	Commands uint64
	// Bytes are those of the medium that were read, written, unmapped or copied.
	Bytes uint64
	// Errors are the commands that ended with another status than GOOD.
	Errors uint64
	// Latency has how long commands ran, without waits for data and for other tasks.
	Latency latency.Counts
}

func (c *Counts) add(other *Counts) {
	c.Commands += other.Commands
	c.Bytes += other.Bytes
	c.Errors += other.Errors
	c.Latency.Add(&other.Latency)
}

// since subtracts what there was before.
func (c *Counts) since(before *Counts) {
	c.Commands -= before.Commands
	c.Bytes -= before.Bytes
	c.Errors -= before.Errors
	c.Latency.Sub(&before.Latency)
}

// Stats are commands by their Kind.
type Stats [Kinds]Counts

// Total returns the commands of all kinds.
func (s *Stats) Total() (all Counts) {
	for i := range s {
		all.add(&s[i])
	}
	return all
}

func (s *Stats) add(other *Stats) {
	for i := range s {
		s[i].add(&other[i])
	}
}

// counters count the commands of an I_T_L nexus. Commands add to them without a lock.
type counters [Kinds]kindCounters

type kindCounters struct {
	bytes, errors atomic.Uint64
	// refused are the commands that did not run, ran those that did.
	refused atomic.Uint64
	ran     latency.Histogram
}

// addTo adds the counters to s.
func (c *counters) addTo(s *Stats) {
	if c == nil {
		return
	}
	for i := range c {
		k, to := &c[i], &s[i]
		to.Bytes += k.bytes.Load()
		to.Errors += k.errors.Load()
		ran := k.ran.Counts()
		to.Latency.Add(&ran)
		to.Commands += k.refused.Load() + ran.Total()
	}
}

// counters returns the counters of the nexus, which the first command makes.
func (i *itlNexus) counters() *counters {
	if c := i.stats.Load(); c != nil {
		return c
	}
	i.stats.CompareAndSwap(nil, new(counters))
	return i.stats.Load()
}

// count counts a task that Execute has ended.
func (t *Task) count() {
	if t.itl == nil {
		return
	}
	k := &t.itl.counters()[t.kind]
	k.ran.Observe(t.took)
	if t.bytes > 0 {
		k.bytes.Add(t.bytes)
	}
	if t.Result != StatusGood {
		k.errors.Add(1)
	}
}

// countRefused counts a task that Prepare has ended with err.
func (t *Task) countRefused(err error) {
	if t.itl == nil {
		return
	}
	if se, ok := err.(*sense.Error); ok && se.Key == sense.KeyUnitAttention {
		return
	}
	k := &t.itl.counters()[t.kind]
	k.refused.Add(1)
	k.errors.Add(1)
}

// Account is what a task counts for. It is valid after the end of the task, for a copy in
// the background. The zero value counts nothing.
type Account struct{ itl *itlNexus }

// Account returns the account of a task that Prepare has passed.
func (t *Task) Account() Account { return Account{t.itl} }

// Account returns the account of the nexus at a logical unit, for a copy that another process
// has begun.
func (n *Nexus) Account(lu *LogicalUnit) Account { return Account{lu.nexus(n)} }

// AddBytes counts bytes of the medium that were read, written, unmapped or copied.
func (a Account) AddBytes(kind Kind, n uint64) {
	if a.itl != nil {
		a.itl.counters()[kind].bytes.Add(n)
	}
}

// Charge takes c from the limits of the task, after it has done what costs that: commands
// after it wait for it, for no more than two seconds.
func (a Account) Charge(c qos.Cost) {
	if a.itl == nil || !a.itl.limited() {
		return
	}
	a.itl.account.limiter.Charge(c)
	if a.itl.nexus.limiter != nil {
		a.itl.nexus.limiter.Charge(c)
	}
	a.itl.lu.limiter.Charge(c)
}
