package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/conf"
)

// targetRoutes are the routes of parts of the configuration. They edit its file.
var targetRoutes = []route{
	{http.MethodGet, "/v1/targets", "The targets of the configuration: LUNs, users, access.", http.StatusOK, lists, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		cfg, err := c.config(l)
		if err != nil {
			return nil, err
		}
		return list{len(cfg.Targets), func(i int) any { return targetV1(&cfg.Targets[i]) }}, nil
	})},
	{http.MethodGet, "/v1/targets/{target}", "A target of the configuration.", http.StatusOK, short, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		cfg, err := c.config(l)
		if err != nil {
			return nil, err
		}
		name := c.target()
		i := slices.IndexFunc(cfg.Targets, func(t conf.Target) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("target %s %w", name, conf.ErrNotFound)
		}
		return targetV1(&cfg.Targets[i]), nil
	})},
	{http.MethodPost, "/v1/targets", "Add a target with its LUNs.", http.StatusCreated, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		var p v1.CreateTarget
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		if _, err := conf.ParseName(p.Name); err != nil {
			return nil, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
		}
		luns, err := newLUNs(p.LUNs)
		if err != nil {
			return nil, err
		}
		return c.edit(l, "target "+p.Name, conf.AddTarget{Name: p.Name, LUNs: luns, PortalGroups: p.PortalGroups})
	})},
	{http.MethodDelete, "/v1/targets/{target}", "Remove a target; its volumes stay.", http.StatusOK, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		return c.edit(l, placeOf(c.target()), conf.RemoveTarget{Name: c.target()})
	})},
	{http.MethodPost, "/v1/targets/{target}/luns", "Add a LUN to a target.", http.StatusCreated, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		var p v1.LUN
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		lun, err := newLUN(p)
		if err != nil {
			return nil, err
		}
		return c.edit(l, fmt.Sprintf("LUN %d of %s", p.Number, placeOf(c.target())), conf.AddLUN{Target: c.target(), LUN: lun})
	})},
	{http.MethodDelete, "/v1/targets/{target}/luns/{lun}", "Remove a LUN of a target; its volume stays.", http.StatusOK, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		n, err := c.pathNumber("lun")
		if err != nil {
			return nil, err
		}
		return c.edit(l, fmt.Sprintf("LUN %d of %s", n, placeOf(c.target())), conf.RemoveLUN{Target: c.target(), Number: n})
	})},
	{http.MethodGet, "/v1/discovery", "The authentication of discovery sessions.", http.StatusOK, short, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		cfg, err := c.config(l)
		if err != nil {
			return nil, err
		}
		return DiscoveryV1(&cfg.DiscoveryAuthentication), nil
	})},
	{http.MethodPost, "/v1/discovery/users", "Add a user of discovery sessions; the first one makes authentication mandatory there.", http.StatusCreated, short, administers, reconfigures, live(addUser)},
	{http.MethodPatch, "/v1/discovery/users/{user}", "Change the secret or the initiators of a user of discovery sessions.", http.StatusOK, short, administers, reconfigures, live(setUser)},
	{http.MethodDelete, "/v1/discovery/users/{user}", "Remove a user of discovery sessions.", http.StatusOK, short, administers, reconfigures, live(removeUser)},
	{http.MethodPost, "/v1/targets/{target}/users", "Add a user to a target; the first one makes authentication mandatory there.", http.StatusCreated, short, administers, reconfigures, live(addUser)},
	{http.MethodPatch, "/v1/targets/{target}/users/{user}", "Change the secret or the initiators of a user of a target.", http.StatusOK, short, administers, reconfigures, live(setUser)},
	{http.MethodDelete, "/v1/targets/{target}/users/{user}", "Remove a user of a target.", http.StatusOK, short, administers, reconfigures, live(removeUser)},
	{http.MethodPost, "/v1/targets/{target}/access", "Add an entry to the access list of a target.", http.StatusCreated, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		var p v1.AddAccess
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		access, err := accessOf(p.Access)
		if err != nil {
			return nil, err
		}
		at := -1 // the end
		if p.At != nil {
			at = *p.At
		}
		return c.edit(l, "access to "+placeOf(c.target()), conf.AddAccess{Target: c.target(), Access: access, At: at})
	})},
	{http.MethodDelete, "/v1/targets/{target}/access/{entry}", "Remove an entry of the access list of a target, by its place from 0.", http.StatusOK, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		n, err := c.pathNumber("entry")
		if err != nil {
			return nil, err
		}
		return c.edit(l, "access to "+placeOf(c.target()), conf.RemoveAccess{Target: c.target(), Index: int(n)})
	})},
}

func addUser(c *call, l admin.Live) (any, error) {
	var p v1.AddUser
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	secret, err := secretOf(p.SecretSource)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		return nil, fmt.Errorf("%w: give one of secret_file, secret_env and secret", blockdev.ErrInvalid)
	}
	return c.edit(l, fmt.Sprintf("user %s of %s", p.Name, placeOf(c.target())),
		conf.AddUser{Target: c.target(), User: conf.User{Name: p.Name, Secret: *secret, Initiators: patternsOf(p.Initiators)}})
}

func setUser(c *call, l admin.Live) (any, error) {
	var p v1.SetUser
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	e := conf.SetUser{Target: c.target(), Name: c.request.PathValue("user")}
	var err error
	if e.Secret, err = secretOf(p.SecretSource); err != nil {
		return nil, err
	}
	if p.Initiators != nil {
		e.Initiators = new(patternsOf(*p.Initiators))
	}
	return c.edit(l, fmt.Sprintf("user %s of %s", e.Name, placeOf(e.Target)), e)
}

func removeUser(c *call, l admin.Live) (any, error) {
	e := conf.RemoveUser{Target: c.target(), Name: c.request.PathValue("user")}
	return c.edit(l, fmt.Sprintf("user %s of %s", e.Name, placeOf(e.Target)), e)
}

// edit edits the configuration file and applies it.
func (c *call) edit(l admin.Live, subject string, e conf.Edit) (any, error) {
	c.subject(subject)
	return asV1(ReloadedV1)(l.EditConfig(c.ctx, e))
}

// config returns the configuration of the server, without its secrets.
func (c *call) config(l admin.Live) (*conf.Config, error) {
	text, err := l.Config(c.ctx)
	if err != nil {
		return nil, err
	}
	return conf.ParseEffective("configuration", text)
}

// target returns the target in the path in the normal form of its name; empty for
// discovery.
func (c *call) target() string {
	given := c.request.PathValue("target")
	if name, err := conf.ParseName(given); err == nil {
		return name
	}
	return given
}

// placeOf returns the words for a target, or for discovery.
func placeOf(target string) string {
	if target == "" {
		return "discovery"
	}
	return "target " + target
}

// pathNumber reads a number of the path, of at most 16 bits.
func (c *call) pathNumber(key string) (uint16, error) {
	text := c.request.PathValue(key)
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is %q; use a number from 0 to 65535", blockdev.ErrInvalid, key, text)
	}
	return uint16(n), nil
}
