package successor

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Predecessor is the process whose place this one takes.
type Predecessor struct{ link }

// Connect returns the process that has started this one, and its plan.
func Connect() (*Predecessor, *Plan, error) {
	l, err := linkOf(os.NewFile(childFD, "predecessor"))
	if err != nil {
		return nil, nil, fmt.Errorf("no odx has started this one to take over: %w", err)
	}
	p := &Predecessor{l}
	plan, err := p.plan()
	if err != nil {
		return nil, nil, errors.Join(err, p.conn.Close())
	}
	return p, plan, nil
}

// plan receives the plan.
func (p *Predecessor) plan() (*Plan, error) {
	if err := p.deadline(readyLimit); err != nil {
		return nil, err
	}
	first, file, err := p.receive()
	if err != nil {
		return nil, err
	}
	if file == nil || first.Kind != kindConfiguration {
		return nil, fmt.Errorf("a packet %q, not the configuration", first.Kind)
	}
	text, err := readMemory(file)
	return &Plan{Path: first.Name, Configuration: text, StateVersion: first.State}, err
}

// Ready says that this process can take over.
func (p *Predecessor) Ready() error { return p.send(packet{Kind: kindReady}, nil) }

// Refuse says why this process cannot take over.
func (p *Predecessor) Refuse(why error) error {
	reason := why.Error()
	return p.send(packet{Kind: kindRefused, Reason: reason[:min(len(reason), 1000)]}, nil)
}

// Receive returns what the predecessor passes on. It waits for as long as the predecessor
// lives: what that does before it passes anything, such as a checkpoint, may take long.
func (p *Predecessor) Receive() (*Estate, error) {
	if err := p.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	e := &Estate{}
	for {
		next, file, err := p.receive()
		switch {
		case err != nil:
		case file == nil:
			err = fmt.Errorf("a packet %q without a file", next.Kind)
		case next.Kind == kindFile && len(e.Files) < maxFiles:
			e.Files = append(e.Files, File{next.Name, file})
			if err = p.deadline(servingLimit); err == nil {
				continue
			}
		case next.Kind == kindState:
			e.State, err = readMemory(file)
			if err == nil {
				return e, nil
			}
		default:
			err = errors.Join(fmt.Errorf("a packet %q in place of a file", next.Kind), file.Close())
		}
		return nil, errors.Join(err, e.Close())
	}
}

// Serving says that this process serves, which ends the predecessor. One that has ended
// before, for example because it was killed, has left everything to this process by then.
func (p *Predecessor) Serving() error {
	err := p.deadline(readyLimit)
	if err == nil {
		err = p.send(packet{Kind: kindServing}, nil)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		err = nil
	}
	return errors.Join(err, p.conn.Close())
}
