package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"odx/api"
	"odx/conf"
	"odx/quota"
	"odx/standby"
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
}

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the LUNs of a configuration until SIGTERM or SIGINT",
		Long: "Serve the LUNs of a configuration. When they are served, odx prints the portals and the URL of\n" +
			"each LUN. A portal whose address the machine does not have yet is retried while the others\n" +
			"serve. SIGTERM or SIGINT stops cleanly; a second one immediately. SIGHUP is ignored: the\n" +
			"configuration is read at the start only. A LUN that cannot be served is left out, with an error\n" +
			"in the log and in odx status.\n\n" +
			"--standby waits while another odx serves the store, and serves it when that one ends, for any\n" +
			"reason: initiators find the same portals, reservations and path states. Its configuration is\n" +
			"checked at the start, and read again then.\n\n" +
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
	cmd.MarkFlagsMutuallyExclusive("rescue", "standby")
	cmd.Flags().BoolVar(&o.writeDefault, "write-default", false, "write a default configuration first if FILE does not exist")
	return cmd
}

func serve(ctx context.Context, o serveOptions, stdout, stderr io.Writer) error {
	cfg, err := loadConfig(o)
	if err != nil {
		return err
	}
	log, err := newLog(cfg.Log, stderr)
	if err != nil {
		return err
	}
	target.LimitMemory(cfg)
	ctx, release := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer release()
	defer ignoreSignals(log)()

	run, err := begin(ctx, cfg, o, stdout, log)
	if errors.Is(err, context.Canceled) {
		log.Info("stopped during the start")
		return nil
	}
	if err != nil {
		return err
	}
	service := run.service
	queries, err := serveAPI(run, log)
	if err != nil {
		return errors.Join(err, service.Stop(ctx))
	}
	if err := run.held.Close(); err != nil {
		log.WithError(err).Warn("listening sockets of the server before this one that are not in the configuration: not closed")
	}
	if err := announce(stdout, service); err != nil {
		log.WithError(err).Warn("cannot write to standard output")
	}
	notify(log, daemon.SdNotifyReady)
	var guard sync.WaitGroup
	defer guard.Wait() // ctx is cancelled then
	guard.Go(func() { service.GuardMemory(ctx) })

	select {
	case <-ctx.Done():
	case err = <-service.Failed():
		log.WithError(err).Error("serving failed")
	}
	release() // the next signal ends the process immediately
	log.Info("stopping")
	notify(log, daemon.SdNotifyStopping)
	return errors.Join(err, stop(service, queries, log))
}

// started is a service, the configuration that it has, and the sockets of the server
// before it that it has not taken.
type started struct {
	cfg     *conf.Config
	service *target.Service
	held    *standby.Held // nil without a standby
}

// begin starts the service as the options say.
func begin(ctx context.Context, cfg *conf.Config, o serveOptions, stdout io.Writer, log *logrus.Entry) (started, error) {
	if o.standby {
		return takeOver(ctx, cfg, o, stdout, log)
	}
	start := target.Start
	if o.rescue {
		start = target.Rescue
	}
	service, err := start(ctx, cfg, log)
	return started{cfg: cfg, service: service}, err
}

// ignoreSignals ignores, until the returned function is called, the signals by which
// other daemons reload, and SIGPIPE. For systemd, an end by most of them is clean, and
// it would not restart the service.
func ignoreSignals(log *logrus.Entry) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	var listening sync.WaitGroup
	listening.Go(func() {
		for s := range signals {
			if s != syscall.SIGPIPE { // the log itself may be the broken pipe
				log.WithField("signal", s.String()).Warn("signal ignored: the configuration is read at the start only, restart odx serve to apply it")
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		listening.Wait()
	}
}

// serveAPI serves the API on the socket, and on TCP if configured.
func serveAPI(run started, log *logrus.Entry) ([]*api.Server, error) {
	cfg, service := run.cfg, run.service
	var guarded net.Listener
	var secret []byte
	if cfg.API.Listen != "" {
		var warnings []string
		var err error
		listen := func(network, address string) (net.Listener, error) {
			l, err := run.held.Listen(context.Background(), network, address)
			if err == nil {
				service.OfferStandbys(network, address, l)
			}
			return l, err
		}
		if guarded, secret, warnings, err = api.ListenTCP(cfg, listen); err != nil {
			return nil, err
		}
		for _, w := range warnings {
			log.Warn(w)
		}
		log.WithField("address", guarded.Addr()).Info("API listens on TCP")
	}
	servers := []*api.Server{api.NewServer(service.Admin(), log)}
	memory := quota.New(service.Admin().Memory().Requests)
	servers[0].ShareMemory(memory)
	servers[0].ServeSocket(cfg.DataDir)
	if guarded != nil {
		tcp := api.NewGuardedServer(service.Admin(), log, secret)
		tcp.ShareMemory(memory)
		servers = append(servers, tcp)
		go tcp.Serve(guarded)
	}
	return servers, nil
}

// missingConfig is a configuration file that does not exist.
type missingConfig struct {
	path  string
	cause error
}

func (e *missingConfig) Error() string {
	return "there is no configuration " + e.path + "; use --config or $" + configVariable + ", or create one with odx serve --write-default"
}

func (e *missingConfig) Unwrap() error { return e.cause }

func loadConfig(o serveOptions) (*conf.Config, error) {
	path := configPath(o.config)
	if o.writeDefault {
		if _, err := conf.WriteDefault(path); err != nil {
			return nil, err
		}
	}
	cfg, err := conf.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingConfig{path, err}
	}
	return cfg, err
}

// announce prints the portals and the URLs of all LUNs, in one write.
func announce(w io.Writer, s *target.Service) error {
	var b strings.Builder
	fmt.Fprintf(&b, "odx %s is ready on %s\n", buildVersion(), strings.Join(s.Portals(), ", "))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, l := range s.LUNs() {
		what := fmt.Sprintf("%s, %s", l.Medium, conf.FormatSize(l.Size))
		switch {
		case l.Problem != "":
			what = l.Medium + ", NOT SERVED: " + l.Problem
		case l.ReadOnly:
			what += ", read-only"
		}
		for _, url := range l.URLs {
			fmt.Fprintf(table, "%s\t%s\n", url, what)
		}
	}
	for _, p := range s.MissingPortals() {
		fmt.Fprintf(table, "%s\tNOT SERVED YET: %s\n", p.Address, p.Problem)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// stop closes everything within stopLimit.
func stop(service *target.Service, queries []*api.Server, log *logrus.Entry) error {
	err := within(stopLimit, func() error {
		drain, cancel := context.WithTimeout(context.Background(), drainLimit)
		defer cancel()
		var errs []error
		for _, q := range queries {
			errs = append(errs, q.Shutdown(drain))
		}
		return errors.Join(append(errs, service.Stop(drain))...)
	})
	if err == nil {
		log.Info("stopped")
	}
	return err
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
