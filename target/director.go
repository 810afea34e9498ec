package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/chap"
	"odx/conf"
	"odx/target/iscsi"
)

// directorBuffers bounds the memory for what discovery sessions of a director are sent.
const directorBuffers = 32 << 20

// Where says where the shards of a pool are. Its methods are called concurrently and do not block.
type Where interface {
	// Serves returns the node that serves a shard; "" for none.
	Serves(shard int) string
}

// Director answers discovery for all targets of a pool whose shards are on several nodes, and sends
// each login to the node that serves the shard of its target.
type Director struct {
	where      Where
	log        *logrus.Entry
	challenges *chap.Challenges
	server     *iscsi.Server
	serving    sync.WaitGroup
	failed     chan error
}

// Direct begins to direct initiators at the portal of a node, with a whole configuration. Errors in
// that are conf.Problems.
func Direct(ctx context.Context, cfg *conf.Config, n conf.Node, where Where, log *logrus.Entry) (*Director, error) {
	d := &Director{where: where, log: log, challenges: &chap.Challenges{}, failed: make(chan error, 1)}
	c, err := d.configuration(cfg)
	if err != nil {
		return nil, err
	}
	portal := cfg.NodePortal(n)
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, portal.Network(), portal.String())
	if err != nil {
		return nil, portalProblem(cfg, 0, err)
	}
	if d.server, err = iscsi.NewServer(c.Options, c.Targets); err != nil {
		return nil, errors.Join(fmt.Errorf("iSCSI: %w", err), l.Close())
	}
	d.serving.Go(func() {
		err := d.server.Serve(context.Background(), iscsi.Portal{Listener: l, Group: portal.Group})
		if !errors.Is(err, iscsi.ErrClosed) {
			d.failed <- fmt.Errorf("portal %s: %w", portal, err)
		}
	})
	return d, nil
}

// configuration returns what the server of a director is to have.
func (d *Director) configuration(cfg *conf.Config) (c iscsi.Reconfiguration, err error) {
	secrets, _, err := readSecrets(cfg) // what is unwise the servers of the shards say
	if err != nil {
		return c, err
	}
	c.Options = iscsi.DefaultOptions()
	c.Options.Log, c.Options.BufferBytes = d.log, directorBuffers
	set(&c.Options.LoginTimeout, cfg.Limits.LoginTimeout)
	if c.Options.DiscoveryAuthentication, err = secrets.authentication(&cfg.DiscoveryAuthentication, d.challenges); err != nil {
		return c, err
	}
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		c.Targets = append(c.Targets, iscsi.TargetConfig{Name: t.Name, Director: &placed{cfg, t.Shard, d.where}, Redirect: redirect(t.Redirect), Admit: admit(t, nil)})
	}
	return c, nil
}

// Prepare prepares to direct by another configuration, with the same portal, from commit on. The
// portal stays open, and discovery sessions continue.
func (d *Director) Prepare(cfg *conf.Config) (commit func(), err error) {
	c, err := d.configuration(cfg)
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		return nil, err
	}
	return func() {
		if _, err := d.server.Reconfigure(c); err != nil { // of a server that is shut down
			d.log.WithError(err).Error("director not reconfigured; restart odx serve")
		}
	}, nil
}

// Failed delivers the error of a portal that ends before Close.
func (d *Director) Failed() <-chan error { return d.failed }

// Close ends it.
func (d *Director) Close(ctx context.Context) error {
	err := d.server.Shutdown(ctx)
	d.serving.Wait()
	return err
}

// placed is the iscsi.Director of a target.
type placed struct {
	cfg   *conf.Config
	shard int
	where Where
}

// Login implements iscsi.Director.
func (p *placed) Login() (address string, ok bool) {
	n, ok := p.cfg.Pool.Node(p.where.Serves(p.shard))
	if !ok {
		return "", false
	}
	for _, a := range p.cfg.Pool.Addresses {
		if a.Shard == p.shard && a.Prefix.Addr().Is4() == n.Address.Is4() {
			at := p.cfg.Portals[0]
			at.Host = a.Prefix.Addr().String()
			return at.String(), true
		}
	}
	return p.cfg.ShardPortal(n, p.shard).String(), true
}

// Discovered implements iscsi.Director: the portals of all nodes, that of the node with the target
// first. It does not report the port at which that serves the shard: initiators keep what they have
// discovered, and would look for the target there when it is somewhere else.
func (p *placed) Discovered() []string {
	owner := p.where.Serves(p.shard)
	var list []string
	for _, n := range p.cfg.Pool.Nodes {
		at := p.cfg.NodePortal(n)
		value := at.String() + "," + strconv.Itoa(int(at.Group))
		if n.Name == owner {
			list = append([]string{value}, list...)
		} else {
			list = append(list, value)
		}
	}
	return list
}
