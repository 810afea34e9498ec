package audit

import (
	"context"
	"fmt"
)

// Kind is a kind of Actor.
type Kind string

// The kinds of actors.
const (
	// Server is the server itself.
	Server Kind = "server"
	// Signalled is an administrator of the machine who sent a signal.
	Signalled Kind = "signal"
	// Local is a process of this machine.
	Local Kind = "local"
	// Remote is a client of the API over TCP.
	Remote Kind = "secret"
	// Scsi is an initiator.
	Scsi Kind = "initiator"
)

// Actor is who changes something. The zero Actor is the server.
type Actor struct {
	// Kind is what Name is the name of; empty is Server.
	Kind Kind
	// Name is that of the signal, of the user if it has one, of the secret, or of the
	// initiator.
	Name string
	// UID and PID are those of a Local process, as the kernel has them.
	UID uint32
	PID int32
	// Address is where a Remote client or an initiator is; without its port.
	Address string
}

// Signal is the actor of a change that a signal such as "SIGHUP" causes.
func Signal(name string) Actor { return Actor{Kind: Signalled, Name: name} }

// Process is a process of this machine; user is the name of its user, if it has one.
func Process(uid uint32, pid int32, user string) Actor {
	return Actor{Kind: Local, Name: user, UID: uid, PID: pid}
}

// Secret is a client of the API that has the secret of that name.
func Secret(name, address string) Actor { return Actor{Kind: Remote, Name: name, Address: address} }

// Initiator is an initiator, by its iSCSI name.
func Initiator(name, address string) Actor { return Actor{Kind: Scsi, Name: name, Address: address} }

// String returns the actor as the log has it.
func (a Actor) String() string {
	switch a.Kind {
	case Local:
		if a.Name == "" {
			return fmt.Sprintf("uid %d, pid %d", a.UID, a.PID)
		}
		return fmt.Sprintf("uid %d (%s), pid %d", a.UID, a.Name, a.PID)
	case "", Server:
		return string(Server)
	case Signalled:
		return "signal " + a.Name
	default:
		if a.Address == "" {
			return string(a.Kind) + " " + a.Name
		}
		return string(a.Kind) + " " + a.Name + " from " + a.Address
	}
}

type actorKey struct{}

// With returns a context whose changes are those of a.
func With(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// From returns the actor of a context; the server if it has none.
func From(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	if a.Kind == "" {
		a.Kind = Server
	}
	return a
}
