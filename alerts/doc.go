// Package alerts posts what an administrator has to act upon to webhooks: for who has no
// Prometheus. Names and meaning are those of contrib/prometheus/odx.rules.yml, and what is
// posted is what Alertmanager posts to a webhook (version 4), so that receivers of that take
// it.
//
// A Notifier looks at the status every few seconds. What changes is queued for each webhook,
// which has a goroutine of its own: a webhook that does not answer delays no other.
package alerts
