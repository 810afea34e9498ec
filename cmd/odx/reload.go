package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/audit"
	"odx/conf"
	"odx/successor"
	"odx/target"
)

// signals are what an administrator asks a server for by signals. Each channel has room for
// one: a second reload would find nothing new.
type signals struct{ handovers, reloads chan os.Signal }

// notifySignals receives signals until stop is called. It comes before what has others send them.
func notifySignals() (s *signals, stop func()) {
	s = &signals{make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(s.handovers, syscall.SIGUSR2)
	signal.Notify(s.reloads, syscall.SIGHUP)
	return s, func() {
		signal.Stop(s.handovers)
		signal.Stop(s.reloads)
	}
}

// reload asks for what SIGHUP asks for.
func (s *signals) reload() {
	select {
	case s.reloads <- syscall.SIGHUP:
	default: // it is asked for
	}
}

// pass asks the process that has taken over for a reload that this one has not begun.
func (s *signals) pass(log *logrus.Entry, child *successor.Child) {
	signal.Stop(s.reloads)
	select {
	case <-s.reloads:
		if err := child.Reload(); err != nil {
			log.WithError(err).Warn("reload not passed on to the new process")
		}
	default:
	}
}

// serving is what systemctl status shows of a server.
const serving = "serving"

// reload applies the configuration file, and says so to systemd before and after it
// (Type=notify-reload). After an error the service is what it was.
func (r *running) reload(ctx context.Context) {
	notify(r.log, reloading(r.log))
	_, err := r.service.Reload(audit.With(ctx, audit.Signal("SIGHUP")))
	if r.reloaded != nil {
		r.reloaded(err)
	}
	status := serving
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		status = fmt.Sprintf("serving; the last reload has changed nothing: %.500s", first)
	}
	notify(r.log, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// reloading is the state of a service that reloads, with the time that systemd asks for.
func reloading(log *logrus.Entry) string {
	at := daemon.SdNotifyMonotonicUsec()
	if at == "" {
		log.Warn("this system has no monotonic clock for systemd")
	}
	return daemon.SdNotifyReloading + "\n" + at
}

// followLog prepares the log of a configuration.
func (r *running) followLog(next *conf.Config) (target.Prepared, error) {
	level, formatter, err := logSettings(next.Log, r.log.Logger.Out)
	if err != nil {
		return target.Prepared{}, err
	}
	return target.Prepared{
		Commit: func() {
			r.log.Logger.SetLevel(level)
			r.log.Logger.SetFormatter(formatter)
			notify(r.log, "STATUS="+serving)
		},
		Undo: func() {},
	}, nil
}
