package iscsi

// backoffPDUs is the number of PDUs for which the reader runs only short commands after it
// delayed a PDU by running a longer one.
const backoffPDUs = 64

// closedLoop detects initiators that wait for the response to a command before they
// send another one: queue depth 1. The reader then also runs longer commands, such as a
// flush or an offload read. There is nothing else to read, and the handover to a worker
// would cost more than many commands.
//
// The ExpStatSN of a PDU shows whether it was sent while a command ran on the reader:
// it does not acknowledge the response of that command. closedLoop belongs to the
// reader.
type closedLoop struct {
	// next is the StatSN after the response of the last command on the reader. pending
	// is set until the next PDU arrives.
	next    uint32
	pending bool
	backoff int // PDUs until the reader tries again
}

// detected reports whether the initiator recently waited for responses.
func (o *closedLoop) detected() bool { return o.backoff == 0 }

// responded records the StatSN after the response of a command on the reader.
func (o *closedLoop) responded(next uint32) { o.next, o.pending = next, true }

// received evaluates the ExpStatSN of a received PDU.
func (o *closedLoop) received(expStatSN uint32) {
	if o.backoff > 0 {
		o.backoff--
	}
	if o.pending && serialLess(expStatSN, o.next) {
		o.backoff = backoffPDUs
	}
	o.pending = false
}
