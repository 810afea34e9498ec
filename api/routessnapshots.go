package api

import (
	"context"
	"net/http"
	"net/url"

	"odx/admin"
	"odx/conf"
)

// policies is a handler that needs the policies of snapshots.
func policies(do func(c *call, p admin.SnapshotPolicies) (any, error)) func(c *call) (any, error) {
	return func(c *call) (any, error) {
		if c.snapshots == nil {
			return nil, errNotLive
		}
		p, err := c.snapshots()
		if err != nil {
			return nil, err
		}
		return do(c, p)
	}
}

// snapshotRoutes are the routes of snapshots and of the policies by which they are taken.
var snapshotRoutes = []route{
	{http.MethodGet, "/v1/snapshots", "The snapshots, those of volume if that is given: of policies, and other read-only volumes.", http.StatusOK, lists, reads, looks, policies(func(c *call, p admin.SnapshotPolicies) (any, error) {
		return listV1(SnapshotV1)(p.Snapshots(c.ctx, c.request.URL.Query().Get("volume")))
	})},
	{http.MethodGet, "/v1/snapshot-policies", "The policies by which snapshots are taken, and how they go.", http.StatusOK, lists, reads, looks, policies(func(c *call, p admin.SnapshotPolicies) (any, error) {
		return listV1(SnapshotPolicyV1)(p.SnapshotPolicies(c.ctx))
	})},
	{http.MethodPost, "/v1/snapshot-policies/{policy}/run", "Take the snapshots of a policy now, and delete those that it does not keep.", http.StatusOK, long, operates, changes("snapshot run"), policies(func(c *call, p admin.SnapshotPolicies) (any, error) {
		return asV1(SnapshotRunV1)(p.RunPolicy(c.ctx, c.policy()))
	})},
	{http.MethodPost, "/v1/snapshot-policies/{policy}/prune", "Delete the snapshots that a policy does not keep; with dry_run say which those are.", http.StatusOK, long, administers, changes("snapshot prune"), policies(func(c *call, p admin.SnapshotPolicies) (any, error) {
		dryRun, err := c.flag("dry_run")
		if err != nil {
			return nil, err
		}
		policy := c.request.PathValue("policy")
		if !dryRun {
			policy = c.policy()
		}
		return asV1(PrunedSnapshotsV1)(p.PrunePolicy(c.ctx, policy, dryRun))
	})},
	{http.MethodPost, "/v1/snapshot-policies/{policy}/pause", "Set pause of a policy in the configuration.", http.StatusOK, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		name := c.policy()
		return c.edit(l, "policy "+name, conf.PauseSnapshots{Policy: name, Pause: true})
	})},
	{http.MethodPost, "/v1/snapshot-policies/{policy}/resume", "Remove pause of a policy from the configuration.", http.StatusOK, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		name := c.policy()
		return c.edit(l, "policy "+name, conf.PauseSnapshots{Policy: name})
	})},
}

// policy returns the policy in the path, and makes it the subject.
func (c *call) policy() string {
	name := c.request.PathValue("policy")
	c.subject("policy " + name)
	return name
}

// policyPath returns the path of a policy.
func policyPath(name string) string { return "/v1/snapshot-policies/" + segmentOf(name) }

// The methods of this file implement admin.SnapshotPolicies.

func (c *Client) Snapshots(ctx context.Context, volume string) ([]admin.Snapshot, error) {
	path := "/v1/snapshots"
	if volume != "" {
		path += "?volume=" + url.QueryEscape(volume)
	}
	return requestAs(ctx, c, http.MethodGet, path, nil, each(snapshotOf))
}

func (c *Client) SnapshotPolicies(ctx context.Context) ([]admin.PolicyStatus, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/snapshot-policies", nil, each(policyStatusOf))
}

func (c *Client) RunPolicy(ctx context.Context, policy string) (admin.PolicyRun, error) {
	return requestAs(ctx, c, http.MethodPost, policyPath(policy)+"/run", nil, policyRunOf)
}

func (c *Client) PrunePolicy(ctx context.Context, policy string, dryRun bool) ([]admin.PrunedSnapshot, error) {
	path := policyPath(policy) + "/prune"
	if dryRun {
		path += "?dry_run=true"
	}
	return requestAs(ctx, c, http.MethodPost, path, nil, each(prunedSnapshotOf))
}
