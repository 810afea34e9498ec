// Package monitoring has Debian's Prometheus scrape a live server, and its Alertmanager
// receive the alert that comes of a store that a test fills.
package monitoring
