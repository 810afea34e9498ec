package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"odx/api"
	"odx/conf"
	"odx/successor"
	"odx/target"
)

// successorFlag makes odx serve the successor of the process that has started it.
const successorFlag = "successor"

// queriesLimit is how long requests of the API may go on before a handover.
const queriesLimit = time.Second

// handover is one that both sides have agreed to.
type handover struct {
	child  *successor.Child
	handed *target.Handed
}

// untilHandover serves until ctx ends or the service fails, whose error it returns, or until
// a handover can begin, which it returns. One that cannot changes nothing. It reloads the
// configuration when a signal asks for it.
func (r *running) untilHandover(ctx context.Context, asked *signals) (*handover, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-r.service.Failed():
			r.log.WithError(err).Error("serving failed")
			return nil, err
		case <-asked.reloads:
			r.reload(ctx)
			continue
		case <-asked.handovers:
		}
		h, err := r.prepareHandover(ctx)
		if err == nil {
			return h, nil
		}
		r.log.WithError(err).Error("not handed over: this process continues")
		r.service.HandoverFailed(err)
	}
}

// prepareHandover does what can fail while this process serves. The configuration that the
// new process gets stays in force from then on.
func (r *running) prepareHandover(ctx context.Context) (*handover, error) {
	if cfg := r.service.Configuration(); cfg.Pool != nil {
		return nil, fmt.Errorf("the store in %s is in a pool: stop this server, and a machine that waits for the store takes it over", cfg.DataDir)
	}
	release, err := r.service.HoldConfiguration(ctx)
	if err != nil {
		return nil, err
	}
	child, err := r.startSuccessor(ctx)
	if err != nil {
		release()
		return nil, err
	}
	handed, err := r.service.PrepareHandover(ctx)
	if err != nil {
		release()
		return nil, errors.Join(err, child.Kill())
	}
	if child.Ended() { // this may have taken long
		release()
		return nil, errors.Join(errors.New("the new process has ended; what it wrote to standard error says why"), child.Kill(), handed.Close())
	}
	return &handover{child, handed}, nil
}

// ownProgram returns the path by which this process was started, or that of its file if it was
// not started by one. It is asked for at the start: an upgrade may put another file there, or
// let a symbolic link lead to another one.
func ownProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	named, err := exec.LookPath(os.Args[0])
	if err != nil {
		return self, nil
	}
	running, runs := os.Stat("/proc/self/exe")
	found, finds := os.Stat(named)
	if runs != nil || finds != nil || !os.SameFile(running, found) {
		return self, nil // the name is not that of the file, as that of a login shell
	}
	return filepath.Abs(named)
}

// startSuccessor starts the program by its path: it may be another one by now.
func (r *running) startSuccessor(ctx context.Context) (*successor.Child, error) {
	if os.Getpid() == 1 {
		return nil, errors.New("as process 1 of a container odx cannot hand over: its end is that of the container; run it below an init")
	}
	if r.program == "" {
		return nil, errors.New("the path of the program is not known: stop odx and start it again")
	}
	cfg := r.service.Configuration()
	return successor.Start(ctx, r.program, []string{"serve", "--" + successorFlag},
		successor.Plan{Path: cfg.File, Configuration: cfg.Text(), StateVersion: target.StateVersion})
}

// handOver passes the service to another process. It returns the service that continues in
// this process if the other one cannot: nil after a handover, and with an error if none does.
//
// A signal that ends this process while it hands over ends the one that serves after that: as
// long as it is not known which one that is, nothing is given up.
func (r *running) handOver(ctx context.Context, h *handover, asked *signals) (*running, error) {
	r.log.WithField("process", h.child.PID()).Info("handing over")
	unended := context.WithoutCancel(ctx)
	limited, cancel := context.WithTimeout(unended, queriesLimit)
	defer cancel()
	if err := r.closeServers(limited); err != nil {
		r.log.WithError(err).Warn("requests of the API ended for the handover")
	}
	r.endGuard()
	err := r.service.Suspend(unended, h.handed)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = h.handed.Pass(ctx, h.child)
	}
	if err != nil {
		return r.resume(unended, h.handed, errors.Join(err, h.child.Kill()))
	}
	r.log.WithField("process", h.child.PID()).Info("handed over")
	notify(r.log, fmt.Sprintf("MAINPID=%d", h.child.PID()))
	asked.pass(r.log, h.child)
	err = errors.Join(h.child.Leave(), h.handed.Close())
	if ctx.Err() != nil { // the child does not know of the signal
		err = errors.Join(err, h.child.Stop())
	}
	return nil, err
}

// resume serves in this process what another one could not take over because of why.
func (r *running) resume(ctx context.Context, handed *target.Handed, why error) (*running, error) {
	r.log.WithError(why).Error("not handed over: this process continues")
	if errors.Is(why, successor.ErrServed) {
		// What the other process has read or answered is not known.
		r.log.Warn("the other process had begun to serve: initiators have to log in again")
		if err := handed.DropSessions(); err != nil {
			r.log.WithError(err).Warn("connections not closed")
		}
	}
	next, err := inherit(ctx, r.service.Configuration(), handed, nil, r.log)
	if err != nil {
		return nil, errors.Join(why, err)
	}
	next.program = r.program
	next.service.HandoverFailed(why)
	return next, nil
}

// inherit goes on with what was handed over; see target.Inherit.
func inherit(ctx context.Context, cfg *conf.Config, handed *target.Handed, ready func() error, log *logrus.Entry) (*running, error) {
	service, held, err := target.Inherit(ctx, cfg, log, handed, ready)
	if err != nil {
		return nil, err
	}
	return &running{service: service, held: held, log: log}, nil
}

// beSuccessor takes over from the process that has started this one, and serves until ctx ends.
func beSuccessor(ctx context.Context, program string, stdout, stderr io.Writer) error {
	forgetWatchdogPID()
	before, plan, err := successor.Connect()
	if err != nil {
		return err
	}
	cfg, log, err := check(plan, stderr)
	if err != nil {
		return errors.Join(err, before.Refuse(err))
	}
	target.LimitMemory(cfg)
	others, stop := notifySignals()
	defer stop()
	_, err = serveAs(ctx, log, stdout, others, func(ctx context.Context) (*running, error) {
		if err := before.Ready(); err != nil {
			return nil, err
		}
		estate, err := before.Receive()
		if err != nil {
			return nil, err
		}
		handed, err := target.HandedOf(estate)
		if err != nil {
			return nil, err
		}
		run, err := inherit(ctx, cfg, handed, before.Serving, log)
		if err == nil {
			run.program = program
		}
		return run, err
	})
	return err
}

// check returns the configuration of a plan, and its log, if this program can go on by it.
func check(plan *successor.Plan, stderr io.Writer) (*conf.Config, *logrus.Entry, error) {
	if plan.StateVersion != target.StateVersion {
		return nil, nil, fmt.Errorf("this program takes over states of version %d, not %d: stop odx and start it again", target.StateVersion, plan.StateVersion)
	}
	cfg, err := conf.Parse(plan.Path, plan.Configuration)
	if err != nil {
		return nil, nil, err
	}
	log, err := newLog(cfg.Log, stderr)
	if err != nil {
		return nil, nil, err
	}
	return cfg, log, errors.Join(target.Check(cfg, log), api.CheckTCP(cfg))
}
