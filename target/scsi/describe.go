package scsi

import "fmt"

// Name returns the name of the command in the standard, or its operation code. It is for
// the log.
func (t *Task) Name() string {
	if t.op != nil {
		return t.op.Name
	}
	return fmt.Sprintf("operation code %02Xh", t.OpCode)
}

// LUN returns the number of the LUN that the command addresses; false if its field has
// another form.
func (t *Task) LUN() (number uint16, ok bool) { return decodeLUN(t.Lun) }
