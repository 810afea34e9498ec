package iscsi

// companyLasts is for how many PDUs a connection's reader leaves all but short
// commands to workers after it found that it kept one waiting.
const companyLasts = 64

// solitude tells whether an initiator waits for the answer to a command before
// it sends another one. Then the reader runs commands itself that are not short,
// such as a flush or an offload read: nothing comes that it would have to read
// meanwhile, and waking a worker, and that waking the initiator, costs more than
// many a command.
//
// Whether a PDU came while a command ran on the reader is told by its ExpStatSN:
// it was sent before the initiator had the answer if it does not acknowledge it.
// It belongs to the reader.
type solitude struct {
	// next is the StatSN behind the answer of the last command that ran on the
	// reader; watched says that no PDU has come since.
	next    uint32
	watched bool
	company int // PDUs to go until the reader tries again
}

// likely reports whether the initiator has waited for its answers lately.
func (o *solitude) likely() bool { return o.company == 0 }

// answered notes the StatSN that follows the answer of a command that ran on
// the reader.
func (o *solitude) answered(next uint32) { o.next, o.watched = next, true }

// heed learns from a PDU that has come.
func (o *solitude) heed(expStatSN uint32) {
	if o.company > 0 {
		o.company--
	}
	if o.watched && serialLess(expStatSN, o.next) {
		o.company = companyLasts
	}
	o.watched = false
}
