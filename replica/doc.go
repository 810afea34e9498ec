// Package replica keeps content of this store the same as that of another one: as streams
// (package stream) that are sent and received, and by replication between servers. What
// arrives is hidden until all of it is there, and becomes visible in one step.
package replica
