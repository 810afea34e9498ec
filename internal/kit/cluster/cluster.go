// Package cluster starts several servers, each with its own store and on a host of its own
// (package netns), which are peers of each other: each trusts the certificates of the
// others, and has a secret for each.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"odx/internal/kit"
	"odx/internal/kit/netns"
)

// apiPort is where each server has its API, on all addresses of its host.
const apiPort = "3262"

// Secret is the secret of every server's API with the role administer.
const Secret = "the administrator of all servers"

// Cluster is servers that know each other.
type Cluster struct {
	Dir     string // holds all data, certificates and secrets
	CA      *Authority
	Net     *netns.Net
	Servers []*Server
}

// Server is one of a Cluster.
type Server struct {
	*kit.Target
	Name  string
	Store string // its ID
	Host  *netns.Host

	cluster *Cluster
	file    map[string]any // of its configuration, in addition to what package kit writes
	target  map[string]any // of its target, likewise
}

// Options are what servers have.
type Options struct {
	Dir  string // for everything; it must be there
	LUNs []kit.LUN
	// Ahead is how far the clocks of servers are ahead, by name.
	Ahead map[string]time.Duration
}

// Start starts servers with these names. They are no peers of each other yet: see Introduce.
func Start(ctx context.Context, o Options, names ...string) (c *Cluster, err error) {
	if err := netns.Check(); err != nil {
		return nil, err
	}
	c = &Cluster{Dir: o.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.CA, err = NewAuthority(o.Dir); err != nil {
		return nil, err
	}
	if c.Net, err = netns.New(names...); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := c.start(ctx, name, &o); err != nil {
			return c, fmt.Errorf("server %s: %w", name, err)
		}
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, name string, o *Options) error {
	s := &Server{Name: name, Host: c.Net.Host(name), cluster: c}
	dir := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := s.Certify(Valid); err != nil {
		return err
	}
	secret, err := c.secret("administrator", Secret)
	if err != nil {
		return err
	}
	s.file = map[string]any{"api": map[string]any{
		"listen": net.JoinHostPort("0.0.0.0", apiPort), "secret_file": secret,
		"certificate": s.certificate(), "private_key": s.key(),
	}}
	// Two servers of one name would be one target with two stores.
	s.target = map[string]any{"name": IQN(name)}
	s.Target, err = kit.StartODXWith(ctx, dir, o.LUNs, kit.Settings{
		File: s.file, Target: s.target, Ahead: o.Ahead[name],
		On: &kit.Machine{Address: s.Host.Control.String(), Line: s.Host.Args},
	})
	if err != nil {
		return err
	}
	s.Target.IQN = IQN(name)
	c.Servers = append(c.Servers, s)
	var info struct {
		ID string `json:"id"`
	}
	if err := s.Admin(ctx, &info, "store", "info"); err != nil {
		return err
	}
	s.Store = info.ID
	return nil
}

// IQN is the name of a server's target.
func IQN(name string) string { return kit.IQN + "-" + name }

// secret writes a file with a secret and returns its name.
func (c *Cluster) secret(name, secret string) (path string, err error) {
	path = filepath.Join(c.Dir, name+".secret")
	return path, os.WriteFile(path, []byte(secret), 0o600)
}

// Introduce makes all servers peers of each other.
func (c *Cluster) Introduce(ctx context.Context) error {
	for _, s := range c.Servers {
		var peers, secrets []any
		for _, other := range c.Servers {
			if other == s {
				continue
			}
			peer, err := c.peer(s, other)
			if err != nil {
				return err
			}
			// What the other one shows.
			file, err := c.secret(other.Name+"-to-"+s.Name, "server "+other.Name+" asks server "+s.Name)
			if err != nil {
				return err
			}
			peers = append(peers, peer)
			secrets = append(secrets, map[string]any{"name": other.Name, "role": "peer", "secret_file": file})
		}
		if err := s.Change(ctx, func(file map[string]any) {
			file["peers"] = peers
			file["api"].(map[string]any)["secrets"] = secrets
		}); err != nil {
			return fmt.Errorf("server %s: %w", s.Name, err)
		}
	}
	return nil
}

// peer is what a server's configuration says of another one.
func (c *Cluster) peer(s, other *Server) (map[string]any, error) {
	file, err := c.secret(s.Name+"-to-"+other.Name, "server "+s.Name+" asks server "+other.Name)
	return map[string]any{
		"name": other.Name, "store": other.Store, "addresses": []string{"https://" + net.JoinHostPort(other.Host.Address.String(), apiPort)},
		"ca": c.CA.File(), "secret_file": file,
	}, err
}

// Change changes the configuration of a server, now and for its next starts.
func (s *Server) Change(ctx context.Context, change func(file map[string]any)) error {
	change(s.file)
	return s.Reload(ctx, func(config map[string]any) {
		for key, value := range s.file {
			config[key] = value
		}
	})
}

// Keep has the next starts of the server have the LUNs that its configuration has now,
// instead of those that it was started with.
func (s *Server) Keep() error {
	text, err := os.ReadFile(s.ConfigFile())
	if err != nil {
		return err
	}
	var config struct {
		Targets []struct {
			LUNs []any `yaml:"luns"`
		} `yaml:"targets"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return err
	}
	s.target["luns"] = config.Targets[0].LUNs
	return nil
}

// AddTarget gives the server another target, now and for its next starts.
func (s *Server) AddTarget(ctx context.Context, target map[string]any) error {
	return errors.Join(s.Reload(ctx, func(config map[string]any) {
		config["targets"] = append(config["targets"].([]any), target)
	}), s.KeepTargets())
}

// KeepTargets has the next starts of the server have the targets that its configuration has
// now, whether it runs or not.
func (s *Server) KeepTargets() error {
	text, err := os.ReadFile(s.ConfigFile())
	if err != nil {
		return err
	}
	config := map[string]any{}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return err
	}
	s.file["targets"] = config["targets"]
	return nil
}

// API is the URL of the server's API for the test.
func (s *Server) API() string {
	return "https://" + net.JoinHostPort(s.Host.Control.String(), apiPort)
}

// Curl returns the arguments of curl(1) for a request of an administrator.
func (s *Server) Curl(path string, more ...string) []string {
	args := []string{"--silent", "--show-error", "--fail-with-body", "--cacert", s.cluster.CA.File(), "--header", "Authorization: Bearer " + Secret}
	return append(append(args, more...), s.API()+path)
}

// ODX returns a command of odx for the server, which runs on its host.
func (s *Server) ODX(ctx context.Context, args ...string) (*exec.Cmd, error) {
	binary, err := kit.Binary()
	if err != nil {
		return nil, err
	}
	return s.Host.Command(ctx, binary, append(args, "--config", s.ConfigFile())...), nil
}

// Stop ends the servers and removes the network. That one has ended by itself, or does not
// end cleanly, is an error.
func (c *Cluster) Stop() error {
	var failed []error
	for _, s := range c.Servers {
		if err := s.Target.Stop(); err != nil {
			failed = append(failed, fmt.Errorf("server %s: %w", s.Name, err))
		}
	}
	if c.Net != nil {
		failed = append(failed, c.Net.Close())
	}
	return errors.Join(failed...)
}

// Log returns the last n lines of each server's log.
func (c *Cluster) Log(n int) string {
	var b strings.Builder
	for _, s := range c.Servers {
		fmt.Fprintf(&b, "--- %s (store %s, %s)\n%s", s.Name, s.Store, s.Host.Address, s.LogTail(n))
	}
	return b.String()
}
