package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"odx/conf"
	"odx/owner"
	"odx/pool"
	"odx/pool/shardserver"
	"odx/target"
)

const (
	// stopLimit bounds the whole stop. What is acknowledged as durable is so
	// already; a store that cannot close in time recovers at the next start.
	stopLimit = 9500 * time.Millisecond
	// drainLimit is how long commands may run before they are aborted.
	drainLimit = 4 * time.Second
)

// errStopLimit is the error of a stop that takes longer than stopLimit.
var errStopLimit = fmt.Errorf("store not closed within %v; the next start replays its journal", stopLimit)

type serveOptions struct {
	config       string
	writeDefault bool
	rescue       bool
	standby      bool
	successor    bool
	// node is the name of this machine among the nodes of a pool, shard: the process serves a
	// shard for the process of the node.
	node  string
	shard bool
}

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the LUNs of a configuration until SIGTERM or SIGINT",
		Long: "Serve the LUNs of a configuration. When they are served, odx prints the portals and the URL of\n" +
			"each LUN. A portal whose address the machine does not have yet is retried while the others\n" +
			"serve. SIGTERM or SIGINT stops cleanly; a second one immediately. SIGUSR2 hands over to a new\n" +
			"process, as odx handover does. SIGHUP reads the configuration again and applies what has\n" +
			"changed, as a whole or not at all, as odx reload does. A LUN that cannot be served is left out,\n" +
			"with an error in the log and in odx status.\n\n" +
			"--standby waits while another odx serves the store, and serves it when that one ends, for any\n" +
			"reason: initiators find the same portals, reservations and path states. Its configuration is\n" +
			"checked at the start, and read again then.\n\n" +
			"A store in a pool (docs/cluster.md) is always waited for, and a server that another one has taken\n" +
			"it over from waits again. With ceph.shards, this process shares the shards of the pool with other\n" +
			"nodes: it starts a server for each, and sends initiators to the node that serves their target.\n\n" +
			"--rescue serves whatever can be read of a damaged store, every LUN read-only, and changes none\n" +
			"of its files: to copy data off it, before odx store repair.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.rescue, "rescue", false, "serve what can be read of a damaged store, read-only")
	cmd.Flags().BoolVar(&o.standby, "standby", false, "wait until no other odx serves the store, then serve it")
	cmd.Flags().BoolVar(&o.successor, successorFlag, false, "take over from the process that has started this one")
	cmd.Flag(successorFlag).Hidden = true
	cmd.Flags().StringVar(&o.node, "node", "", "`NAME` of this machine in ceph.nodes (default: its host name)")
	cmd.Flags().BoolVar(&o.shard, shardserver.Flag, false, "serve a shard for the process that has started this one")
	cmd.Flag(shardserver.Flag).Hidden = true
	cmd.MarkFlagsMutuallyExclusive("rescue", "standby", successorFlag)
	cmd.Flags().BoolVar(&o.writeDefault, "write-default", false, "write a default configuration first if FILE does not exist")
	return cmd
}

func serve(ctx context.Context, o serveOptions, stdout, stderr io.Writer) error {
	program, unknown := ownProgram()
	if o.successor {
		return beSuccessor(ctx, program, stdout, stderr)
	}
	if o.shard {
		return serveShard(ctx, stdout, stderr)
	}
	cfg, err := loadConfig(o)
	if err != nil {
		return err
	}
	log, err := newLog(cfg.Log, stderr)
	if err != nil {
		return err
	}
	if cfg.Pool != nil && cfg.Pool.Shards > 0 {
		if err := refuseShards(cfg, o); err != nil {
			return err
		}
		return serveNode(ctx, cfg, o, program, stdout, log)
	}
	target.LimitMemory(cfg)
	if unknown != nil {
		log.WithError(unknown).Warn("path of this program not known: it cannot hand over")
	}
	others, stop := notifySignals()
	defer stop()
	asked, err := serveAs(ctx, log, stdout, others, func(ctx context.Context) (*running, error) {
		run, err := begin(ctx, cfg, o, stdout, log)
		if err == nil {
			run.program = program
		}
		return run, err
	})
	if !asked && cfg.Pool != nil && errors.Is(err, owner.ErrLost) {
		log.WithError(err).Warn("another process may serve the store now")
		return errors.Join(err, again(program, log))
	}
	return err
}

// serveAs starts a service, and serves until a signal ends it, another process has taken
// over, or it fails. asked reports whether a signal has ended it.
func serveAs(ctx context.Context, log *logrus.Entry, stdout io.Writer, others *signals, start func(context.Context) (*running, error)) (asked bool, err error) {
	ctx, release := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer release()
	defer ignoreSignals(log)()

	run, err := start(ctx)
	if errors.Is(err, context.Canceled) {
		log.Info("stopped during the start")
		return true, nil
	}
	if err != nil {
		return ctx.Err() != nil, err
	}
	run, err = run.untilEnd(ctx, others, stdout)
	asked = ctx.Err() != nil
	if run == nil {
		return asked, err
	}
	release() // the next signal ends the process immediately
	log.Info("stopping")
	notify(log, daemon.SdNotifyStopping)
	return asked, errors.Join(err, run.stop())
}

// begin starts the service as the options say.
func begin(ctx context.Context, cfg *conf.Config, o serveOptions, stdout io.Writer, log *logrus.Entry) (*running, error) {
	if cfg.Pool != nil {
		return inPool(ctx, cfg, o, stdout, log)
	}
	if o.standby {
		return takeOver(ctx, cfg, o, stdout, log)
	}
	start := target.Start
	if o.rescue {
		start = target.Rescue
	}
	service, err := start(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	return &running{service: service, log: log}, nil
}

// ignoreSignals ignores, until the returned function is called, a signal by which other
// daemons reload, and SIGPIPE. For systemd, an end by them is clean, and it would not
// restart the service.
func ignoreSignals(log *logrus.Entry) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGPIPE)
	var listening sync.WaitGroup
	listening.Go(func() {
		for s := range signals {
			if s != syscall.SIGPIPE { // the log itself may be the broken pipe
				log.WithField("signal", s.String()).Warn("signal ignored: SIGHUP reloads the configuration")
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		listening.Wait()
	}
}

// missingConfig is a configuration file that does not exist.
type missingConfig struct {
	path  string
	cause error
}

func (e *missingConfig) Error() string {
	return "there is no configuration " + e.path + "; use --config or $" + conf.Variable + ", or create one with odx serve --write-default"
}

func (e *missingConfig) Unwrap() error { return e.cause }

func loadConfig(o serveOptions) (*conf.Config, error) {
	path, err := conf.Find(o.config)
	if err != nil {
		return nil, err
	}
	if o.writeDefault {
		if _, err := conf.WriteDefault(path); err != nil {
			return nil, err
		}
	}
	cfg, err := conf.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingConfig{path, err}
	}
	if err != nil {
		return nil, err
	}
	return cfg, pool.Check(cfg)
}

// within returns what do returns, or errStopLimit after stopLimit: a disk that does not
// respond must not block the end of the process. do continues until the process ends;
// acknowledged data is durable nevertheless.
func within(limit time.Duration, do func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errStopLimit
	}
}

// notify sends the state of the service to systemd, if it has started this process.
func notify(log *logrus.Entry, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.WithError(err).Warn("systemd not notified")
	}
}
